/* Load network.bin and run it on a Cortex-M4 without an operating system or a C library.
 *
 * Files are read and written by semihosting, which debuggers and QEMU understand:
 *     qemu-system-arm -M mps2-an386 -nographic -semihosting -kernel osbc_m4.elf
 * Where there is a file rasters.bin, its samples are run, and their outputs written to outputs.bin;
 * both are those of the host program. Where there is a file states.bin, it takes the state buffer
 * after every step. Another network.bin runs without a new build.
 * ticks.bin gets how far the board's timer went in every step.
 */
#include "../@P@_runtime.h"

#define BLOB_BYTES (1024u * 1024u)
#define STATE_BYTES (1024u * 1024u)
#define STEP_BYTES (256u * 1024u)

static int32_t blob[BLOB_BYTES / 4u], state[STATE_BYTES / 4u], input[STEP_BYTES / 4u];
static int32_t output[STEP_BYTES / 4u];

@start@
@ticks@

/* Open a file of the host to read (mode 1) or write (5); UINT32_MAX where that fails. */
static uint32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    uintptr_t arguments[3];
    arguments[0] = (uintptr_t)name;
    arguments[1] = mode;
    arguments[2] = length;
    return semihosting(0x01, arguments);
}

/* Bytes that were read (0x06) or written (0x05). */
static uint32_t transfer(uint32_t operation, uint32_t file, void *data, uint32_t bytes)
{
    uintptr_t arguments[3];
    arguments[0] = file;
    arguments[1] = (uintptr_t)data;
    arguments[2] = bytes;
    return bytes - semihosting(operation, arguments);
}

static const char *run(const @P@_network *network, uint32_t rasters)
{
    int format = @P@_input_format(network);
    uint32_t bytes = @P@_inputs(network) * (uint32_t)(format < 0 ? -format : format);
    uint32_t answer = @P@_outputs(network) * 4u, kept = @P@_state_size(network), sizes[2], sample, t;
    uint32_t outputs = open_file("outputs.bin", 11u, 5u), states = open_file("states.bin", 10u, 1u);
    uint32_t counts = open_file("ticks.bin", 9u, 5u), began;
    if (states != UINT32_MAX) {
        states = open_file("states.bin", 10u, 5u);
    }
    if (outputs == UINT32_MAX || transfer(0x06, rasters, sizes, 8u) != 8u) {
        return "rasters.bin, outputs.bin: cannot be read and written\n";
    }
    for (sample = 0; sample < sizes[0]; sample++) {
        if (@P@_reset(network, state, sizeof state) != @U@_OK) {
            return "network.bin: needs more RAM\n";
        }
        for (t = 0; t < sizes[1]; t++) {
            if (transfer(0x06, rasters, input, bytes) != bytes) {
                return "rasters.bin: ends before the last step\n";
            }
            began = ticks();
            if (@P@_step(network, state, input, output) != @U@_OK) {
                return "a current left the chip's range\n";
            }
            began = ticks() - began;
            if (transfer(0x05, counts, &began, 4u) != 4u) {
                return "ticks.bin: cannot be written\n";
            }
            if (states != UINT32_MAX && transfer(0x05, states, state, kept) != kept) {
                return "states.bin: cannot be written\n";
            }
            if (transfer(0x05, outputs, output, answer) != answer) {
                return "outputs.bin: cannot be written\n";
            }
        }
    }
    return NULL;
}

static const char *load_and_run(void)
{
    uint32_t file = open_file("network.bin", 11u, 1u), loaded;
    @P@_network network;
    if (file == UINT32_MAX) {
        return "network.bin: cannot be opened\n";
    }
    loaded = transfer(0x06, file, blob, sizeof blob);
    if (@P@_load(&network, blob, loaded) != @U@_OK) {
        return loaded == sizeof blob ? "network.bin: needs more flash\n"
                                     : "network.bin: is refused\n";
    }
    if (@P@_inputs(&network) > sizeof input / 4u || @P@_outputs(&network) > sizeof output / 4u) {
        return "network.bin: needs more RAM\n";
    }
    file = open_file("rasters.bin", 11u, 1u);
    return file == UINT32_MAX ? NULL : run(&network, file);
}

void m4_start(void)
{
    uint32_t *to, *from = &m4_data_load;
    const char *wrong;
    for (to = &m4_data_start; to < &m4_data_end; to++) {
        *to = *from++;
    }
    for (to = &m4_bss_start; to < &m4_bss_end; to++) {
        *to = 0;
    }
    start_ticks();
    wrong = load_and_run();
    (void)semihosting(0x04, wrong == NULL ? "osbc: done\n" : wrong);
    /* 0x20026 tells QEMU that the program ended well, 0x20024 that it did not. */
    (void)semihosting(0x18, (const void *)(uintptr_t)(wrong == NULL ? 0x20026 : 0x20024));
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    (uintptr_t)&m4_stack_top, (uintptr_t)&m4_start
};
