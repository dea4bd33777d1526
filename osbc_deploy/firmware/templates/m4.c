/* Run the self-test of @name@ on a Cortex-M4 without an operating system or a C library.
 *
 * The result is printed by semihosting, which debuggers and QEMU understand:
 *     qemu-system-arm -M mps2-an386 -nographic -semihosting -kernel @name@_m4.elf
 */
#include "../@name@.h"

static int32_t state[@NAME@_STATE_BYTES / 4];

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

static void semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void m4_start(void)
{
    uint32_t *to, *from = &m4_data_load;
    int result;
    for (to = &m4_data_start; to < &m4_data_end; to++) {
        *to = *from++;
    }
    for (to = &m4_bss_start; to < &m4_bss_end; to++) {
        *to = 0;
    }
    result = @name@_selftest(state, sizeof state);
    semihosting(0x04, result == @NAME@_OK ? "@name@ self-test: passed (0)\n"
                                          : "@name@ self-test: FAILED\n");
    /* 0x20026 tells QEMU that the program ended well, 0x20024 that it did not. */
    semihosting(0x18, (const void *)(uintptr_t)(result == @NAME@_OK ? 0x20026 : 0x20024));
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    (uintptr_t)&m4_stack_top, (uintptr_t)&m4_start
};
