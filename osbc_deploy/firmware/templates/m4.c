/* Run the self-test of @name@ on a Cortex-M4 without an operating system or a C library.
 *
 * The result is printed by semihosting, which debuggers and QEMU understand:
 *     qemu-system-arm -M mps2-an386 -nographic -semihosting -kernel @name@_m4.elf
 */
#include "../@name@.h"

static int32_t state[@NAME@_STATE_BYTES / 4];

@start@

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
    (void)semihosting(0x04, result == @NAME@_OK ? "@name@ self-test: passed (0)\n"
                                                : "@name@ self-test: FAILED\n");
    /* 0x20026 tells QEMU that the program ended well, 0x20024 that it did not. */
    (void)semihosting(0x18, (const void *)(uintptr_t)(result == @NAME@_OK ? 0x20026 : 0x20024));
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    (uintptr_t)&m4_stack_top, (uintptr_t)&m4_start
};
