/* The C state machine on simulated flash whose power can be cut, driven over stdin and stdout.
 *
 *     slots_driver SECTOR SLOT TARGET KEY_IN_HEX
 *
 * Flash is programmed byte by byte and erased in two halves; each of these is a tick, and the power
 * goes when the ticks that were given are used up. Signatures and digests are asked for: they are
 * the other side's.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "osbc_slots.h"

static uint8_t *flash;
static uint32_t bytes, ticks, used;
static jmp_buf cut;

static void take(void *to, size_t count)
{
    if (fread(to, 1, count, stdin) != count) {
        exit(0);
    }
}

static uint32_t take_number(void)
{
    uint32_t found;
    take(&found, 4);
    return found;
}

static void give(const void *from, size_t count)
{
    if (fwrite(from, 1, count, stdout) != count) {
        exit(1);
    }
}

static void tick(void)
{
    if (ticks == 0u) {
        longjmp(cut, 1);
    }
    ticks--;
    used++;
}

static void inside(uint32_t offset, uint32_t count)
{
    if (offset > bytes || count > bytes - offset) {
        abort();
    }
}

static int read_flash(void *context, uint32_t offset, uint8_t *to, uint32_t count)
{
    (void)context;
    inside(offset, count);
    memcpy(to, flash + offset, count);
    return 0;
}

static int write_flash(void *context, uint32_t offset, const uint8_t *from, uint32_t count)
{
    uint32_t i;
    (void)context;
    inside(offset, count);
    if (offset % 32u || count % 32u) {
        abort();
    }
    for (i = 0; i < count; i++) {
        tick();
        if (flash[offset + i] != 0xFFu) {
            abort(); /* programmed twice */
        }
        flash[offset + i] = from[i];
    }
    return 0;
}

static int erase_flash(void *context, uint32_t offset, uint32_t count)
{
    (void)context;
    inside(offset, count);
    tick();
    memset(flash + offset, 0xFF, count / 2u);
    flash[offset + count / 2u] ^= 0x5Au; /* neither erased nor what it was */
    tick();
    memset(flash + offset, 0xFF, count);
    return 0;
}

static int sync_flash(void *context)
{
    (void)context;
    return 0;
}

static int verify(void *context, const uint8_t key[32], const uint8_t *message, uint32_t count,
                  const uint8_t signature[64])
{
    uint8_t valid;
    (void)context;
    give("v", 1);
    give(key, 32);
    give(signature, 64);
    give(&count, 4);
    give(message, count);
    fflush(stdout);
    take(&valid, 1);
    return valid ? 0 : -1;
}

static int digest(void *context, uint32_t offset, uint32_t count, uint8_t found[32])
{
    (void)context;
    inside(offset, count);
    give("d", 1);
    give(&count, 4);
    give(flash + offset, count);
    fflush(stdout);
    take(found, 32);
    return 0;
}

static int install(const osbc_slots_device *device, const uint8_t *release, uint32_t count)
{
    osbc_slots_install now;
    uint8_t head[OSBC_SLOTS_HEAD_BYTES] = {0};
    uint32_t at, size = 1u;
    int result;
    memcpy(head, release, count < OSBC_SLOTS_HEAD_BYTES ? count : OSBC_SLOTS_HEAD_BYTES);
    result = osbc_slots_begin(device, &now, head);
    /* Pieces of 1, 2, 3, ... bytes. */
    for (at = 0; result == OSBC_SLOTS_OK && at < count; at += size++) {
        result = osbc_slots_append(device, &now, release + at,
                                   count - at < size ? count - at : size);
    }
    return result == OSBC_SLOTS_OK ? osbc_slots_finish(device, &now) : result;
}

int main(int argc, char **argv)
{
    static uint8_t keys[1][OSBC_SLOTS_KEY_BYTES];
    osbc_slots_device device = {NULL, read_flash, write_flash, erase_flash, sync_flash, verify, digest,
                          0, 0, NULL, (const uint8_t(*)[OSBC_SLOTS_KEY_BYTES])keys, 1u};
    uint32_t i;
    if (argc != 5) {
        return 2;
    }
    device.sector = (uint32_t)strtoul(argv[1], NULL, 10);
    device.slot = (uint32_t)strtoul(argv[2], NULL, 10);
    device.target = argv[3];
    for (i = 0; i < OSBC_SLOTS_KEY_BYTES; i++) {
        unsigned byte;
        if (sscanf(argv[4] + 2u * i, "%2x", &byte) != 1) {
            return 2;
        }
        keys[0][i] = (uint8_t)byte;
    }
    bytes = 2u * device.sector + 2u * device.slot;
    flash = malloc(bytes);
    if (flash == NULL) {
        return 2;
    }
    memset(flash, 0xFF, bytes);
    for (;;) {
        char command;
        uint32_t numbers[3] = {0, 0, 0};
        static uint8_t *release; /* static: kept over longjmp */
        static uint32_t count;
        osbc_slots_choice boot;
        int32_t answer[4] = {0, 0, 0, 0};
        take(&command, 1);
        if (command == 'S') {
            take(flash, bytes);
            continue;
        }
        if (command == 'G') {
            give(flash, bytes);
            fflush(stdout);
            continue;
        }
        memset(&boot, 0, sizeof boot);
        ticks = take_number();
        used = 0u;
        for (i = 0; i < 3u; i++) {
            numbers[i] = take_number();
        }
        if (command == 'I') {
            count = numbers[0];
            release = malloc(count ? count : 1u);
            if (release == NULL) {
                return 2;
            }
            take(release, count);
        }
        if (setjmp(cut) == 0) {
            uint8_t state;
            switch (command) {
            case 'I':
                answer[0] = install(&device, release, count);
                break;
            case 'B':
                answer[0] = osbc_slots_boot(&device, &boot);
                answer[1] = (int32_t)boot.slot;
                answer[2] = boot.trial;
                answer[3] = boot.slot == OSBC_SLOTS_NOBODY ? 0 : (int32_t)boot.manifest.version;
                break;
            case 'K':
                answer[0] = osbc_slots_confirm(&device);
                break;
            case 'R':
                answer[0] = osbc_slots_rollback(&device, (uint8_t)numbers[0], numbers[1]);
                break;
            default:
                answer[0] = osbc_slots_judge(&device, numbers[0], numbers[1], numbers[2], &state);
                break;
            }
            give("r", 1);
        } else {
            give("x", 1);
        }
        if (command == 'I') {
            free(release);
        }
        give(answer, sizeof answer);
        give(&used, 4);
        fflush(stdout);
    }
}
