extern uint32_t m4_stack_top, m4_data_start, m4_data_end, m4_data_load, m4_bss_start, m4_bss_end;

void m4_start(void);
void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

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

static uint32_t semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
