extern uint32_t m4_stack_top, m4_data_start, m4_data_end, m4_data_load, m4_bss_start, m4_bss_end;

void m4_start(void);
void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

__asm__(".section .start, \"ax\"\n"
        ".globl _start\n"
        "_start: la sp, m4_stack_top\n"
        "j m4_start\n"
        ".previous\n");

/* The compiler may call these two on its own. */
void *memset(void *to, int byte, size_t count)
{
    volatile uint8_t *bytes = (volatile uint8_t *)to;
    while (count-- > 0u) {
        bytes[count] = (uint8_t)byte;
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    volatile uint8_t *bytes = (volatile uint8_t *)to;
    while (count-- > 0u) {
        bytes[count] = ((const uint8_t *)from)[count];
    }
    return to;
}

/* A debugger knows the call by the instructions around it, which must be of 32 bits, on one page. */
static __attribute__((noinline)) uint32_t semihosting(uint32_t operation, const void *argument)
{
    register uint32_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".option push\n.option norvc\n.balign 16\n"
                     "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                     : "+r"(a0) : "r"(a1) : "memory");
    return a0;
}
