/* A network on trial on a bare Cortex-M4: loaded from its slot, tested, then run.
 *
 * Puts the runtime that `osbc-deploy export --format runtime` writes and the library of
 * `osbc-deploy release library` together. What `release sign` wrote lies in memory as in a slot
 * of the flash; here it is read from release.osbr by semihosting, which debuggers and QEMU
 * understand. That it is signed is the boot loader's to check, or osbc_slots_boot's.
 */
#include "osbc_runtime.h"
#include "osbc_slots.h"

#define SLOT_BYTES (512u * 1024u)
#define STATE_BYTES (512u * 1024u)
#define STEP_BYTES (64u * 1024u)
#define IMAGE_SIZE_AT 12u /* of the release: docs/releases.md */
#define SELFTEST_SIZE_AT 16u

extern uint32_t m4_stack_top, m4_data_start, m4_data_end, m4_data_load, m4_bss_start, m4_bss_end;

static int32_t slot[SLOT_BYTES / 4u], state[STATE_BYTES / 4u];
static int32_t input[STEP_BYTES / 4u], output[STEP_BYTES / 4u];

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

static void say(const char *text)
{
    (void)semihosting(0x04, text);
}

/* Read release.osbr into the slot; the number of its bytes. */
static uint32_t read_release(void)
{
    static const char name[] = "release.osbr";
    uintptr_t arguments[3];
    uint32_t file;
    arguments[0] = (uintptr_t)name;
    arguments[1] = 1u;
    arguments[2] = sizeof name - 1u;
    file = semihosting(0x01, arguments);
    if (file == UINT32_MAX) {
        return 0;
    }
    arguments[0] = file;
    arguments[1] = (uintptr_t)slot;
    arguments[2] = sizeof slot;
    return (uint32_t)sizeof slot - semihosting(0x06, arguments);
}

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* One step for the self-test: this is all that ties the two libraries together. */
static int step(void *context, int first, const void *payloads, int32_t *answer)
{
    const osbc_network *network = context;
    if (first && osbc_reset(network, state, sizeof state) != OSBC_OK) {
        return -1;
    }
    return osbc_step(network, state, payloads, answer);
}

/* Return 0 where the network of the slot is what was signed and computes what the engine does. */
static int try_slot(uint32_t bytes)
{
    const uint8_t *release = (const uint8_t *)slot, *image = release + OSBC_SLOTS_HEAD_BYTES;
    uint32_t image_bytes, test_bytes, behind, width;
    osbc_network network;
    int format;
    if (bytes < OSBC_SLOTS_HEAD_BYTES) {
        say("release.osbr: cannot be read, or is none\n");
        return -1;
    }
    image_bytes = u32(release + IMAGE_SIZE_AT);
    test_bytes = u32(release + SELFTEST_SIZE_AT);
    behind = bytes - OSBC_SLOTS_HEAD_BYTES;
    if (image_bytes > behind || osbc_load(&network, image, image_bytes) != OSBC_OK) {
        say("the image is refused\n");
        return -1;
    }
    image_bytes += (OSBC_SLOTS_ALIGNMENT - image_bytes % OSBC_SLOTS_ALIGNMENT) % OSBC_SLOTS_ALIGNMENT;
    format = osbc_input_format(&network);
    width = (uint32_t)(format < 0 ? -format : format);
    if (image_bytes > behind || test_bytes > behind - image_bytes
        || osbc_state_size(&network) > sizeof state || osbc_inputs(&network) > sizeof input / width
        || osbc_outputs(&network) > sizeof output / 4u) {
        say("the network needs more memory\n");
        return -1;
    }
    if (osbc_slots_selftest(image + image_bytes, test_bytes, input, osbc_inputs(&network) * width,
                            output, osbc_outputs(&network), &network, step) != OSBC_SLOTS_OK) {
        say("self-test: failed, so this version is rolled back\n");
        return -1;
    }
    say("self-test: passed\n");
    return 0;
}

void m4_start(void)
{
    uint32_t *to, *from = &m4_data_load;
    int wrong;
    for (to = &m4_data_start; to < &m4_data_end; to++) {
        *to = *from++;
    }
    for (to = &m4_bss_start; to < &m4_bss_end; to++) {
        *to = 0;
    }
    wrong = try_slot(read_release());
    /* 0x20026 tells QEMU that the program ended well, 0x20024 that it did not. */
    (void)semihosting(0x18, (const void *)(uintptr_t)(wrong == 0 ? 0x20026 : 0x20024));
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const uintptr_t vectors[] = {
    (uintptr_t)&m4_stack_top, (uintptr_t)&m4_start
};
