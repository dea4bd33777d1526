/* A device of the fleet: networks from two slots of its flash, counted and judged on trial.
 *
 *     device FLASH SECTOR SLOT TARGET KEY_IN_HEX BOOTS
 *
 * FLASH is a file. The link is stdin and stdout, numbers as in memory here:
 *     S samples steps INPUT     run the samples of a window
 *     I bytes RELEASE           install a release
 * It says
 *     b version trial           what it booted (version 0: nothing)
 *     r bytes RECORD            a telemetry record
 *     c, x reason               the trial is over: confirmed, or rolled back
 *     i result                  of the installation
 *     .                         done with what was asked
 * and ends with code 3 when it restarts. The two checks of osbc_slots that need cryptography ask
 * the other side of the link (v, h), as a chip would ask its own hardware.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "osbc_layout.h"
#include "osbc_runtime.h"
#include "osbc_slots.h"

#define RESTART 3

static FILE *flash;
static osbc_network network;
static int32_t *state, *output;
static void *input;
static uint32_t trial_samples, trial_silent, trial_clipped;

static void take(void *to, size_t bytes)
{
    if (fread(to, 1, bytes, stdin) != bytes) {
        exit(0); /* the link is gone */
    }
}

static void give(const void *from, size_t bytes)
{
    if (fwrite(from, 1, bytes, stdout) != bytes) {
        exit(1);
    }
}

static uint32_t taken(void)
{
    uint32_t number;
    take(&number, sizeof number);
    return number;
}

static void *room(size_t bytes)
{
    void *found = malloc(bytes ? bytes : 1u);
    if (found == NULL) {
        exit(1);
    }
    return found;
}

static int read_flash(void *context, uint32_t offset, uint8_t *to, uint32_t count)
{
    (void)context;
    return fseek(flash, (long)offset, SEEK_SET) != 0 || fread(to, 1, count, flash) != count;
}

static int write_flash(void *context, uint32_t offset, const uint8_t *from, uint32_t count)
{
    (void)context;
    return fseek(flash, (long)offset, SEEK_SET) != 0 || fwrite(from, 1, count, flash) != count;
}

static int erase_flash(void *context, uint32_t offset, uint32_t count)
{
    uint8_t *blank = room(count);
    int wrong;
    memset(blank, 0xFF, count);
    wrong = write_flash(context, offset, blank, count);
    free(blank);
    return wrong;
}

static int sync_flash(void *context)
{
    (void)context;
    return fflush(flash);
}

static int verify(void *context, const uint8_t key[32], const uint8_t *message, uint32_t count,
                  const uint8_t signature[64])
{
    uint8_t valid;
    (void)context;
    give("v", 1);
    give(key, 32);
    give(signature, 64);
    give(&count, sizeof count);
    give(message, count);
    fflush(stdout);
    take(&valid, 1);
    return valid ? 0 : -1;
}

static int digest(void *context, uint32_t offset, uint32_t count, uint8_t found[32])
{
    uint8_t *bytes = room(count);
    if (read_flash(context, offset, bytes, count) != 0) {
        free(bytes);
        return -1;
    }
    give("h", 1);
    give(&count, sizeof count);
    give(bytes, count);
    fflush(stdout);
    free(bytes);
    take(found, 32);
    return 0;
}

static int step(void *context, int first, const void *payloads, int32_t *answer)
{
    (void)context;
    if (first && osbc_reset(&network, state, osbc_state_size(&network)) != OSBC_OK) {
        return -1;
    }
    return osbc_step(&network, state, payloads, answer);
}

/* Load the image that boots, and test it if it is on trial; not 0 where it must not run. */
static int start(const osbc_slots_choice *boot)
{
    const osbc_slots_manifest *about = &boot->manifest;
    uint8_t *image = room(about->image_bytes), *vectors = room(about->selftest_bytes);
    int format, result;
    uint32_t width;
    if (read_flash(NULL, boot->image, image, about->image_bytes) != 0
        || read_flash(NULL, boot->selftest, vectors, about->selftest_bytes) != 0
        || osbc_load(&network, image, about->image_bytes) != OSBC_OK) {
        return -1;
    }
    format = osbc_input_format(&network);
    width = (uint32_t)(format < 0 ? -format : format);
    state = room(osbc_state_size(&network));
    input = room((size_t)osbc_inputs(&network) * width);
    output = room((size_t)osbc_outputs(&network) * sizeof *output);
    result = 0;
    if (boot->trial && about->selftest_bytes > 0u) {
        result = osbc_slots_selftest(vectors, about->selftest_bytes, input,
                                     osbc_inputs(&network) * width, output,
                                     osbc_outputs(&network), NULL, step);
    }
    free(vectors);
    return result;
}

static uint32_t u16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

/* Send the record of a window, and hold a trial against its limits; 1 where it is over. */
static int close_window(const osbc_slots_device *device, uint32_t samples, int *trial)
{
    const uint8_t *record = osbc_telemetry_record(&network);
    uint32_t bytes = osbc_record_size(&network), layer, layers = u16(record + OSBC_RECORD_LAYERS);
    uint8_t found = OSBC_SLOTS_TRIAL;
    osbc_slots_record journal;
    give("r", 1);
    give(&bytes, sizeof bytes);
    give(record, bytes);
    trial_samples += samples;
    trial_silent += u16(record + OSBC_RECORD_SILENT);
    for (layer = 0; layer < layers; layer++) {
        const uint8_t *at = record + OSBC_RECORD_BYTES + layer * OSBC_LAYER_BYTES;
        trial_clipped += u16(at + OSBC_LAYER_CLIPPED_CURRENTS);
        trial_clipped += u16(at + OSBC_LAYER_CLIPPED_POTENTIALS);
    }
    osbc_telemetry_next(&network);
    if (!*trial
        || osbc_slots_judge(device, trial_samples, trial_silent, trial_clipped, &found)
               != OSBC_SLOTS_OK
        || found == OSBC_SLOTS_TRIAL) {
        return 0;
    }
    *trial = 0;
    if (found == OSBC_SLOTS_CONFIRMED) {
        give("c", 1);
        return 0;
    }
    give("x", 1);
    if (osbc_slots_status(device, &journal) != OSBC_SLOTS_OK) {
        exit(1);
    }
    give(&journal.reason, 1);
    return 1;
}

/* Run the samples of a window; 1 where the device must restart. */
static int see(const osbc_slots_device *device, int *trial)
{
    uint32_t samples = taken(), steps = taken(), done;
    int format = osbc_input_format(&network);
    size_t each = (size_t)steps * osbc_inputs(&network) * (size_t)(format < 0 ? -format : format);
    void *sample = room(each);
    int64_t *evidence = room(osbc_classes(&network) * sizeof *evidence);
    uint32_t class_number;
    for (done = 0; done < samples; done++) {
        take(sample, each);
        /* A current out of range is counted as a fault. */
        (void)osbc_run(&network, state, osbc_state_size(&network), sample, steps, evidence,
                       &class_number);
    }
    free(sample);
    free(evidence);
    return close_window(device, samples, trial);
}

static int install(const osbc_slots_device *device)
{
    uint32_t bytes = taken();
    uint8_t *release = room(bytes > OSBC_SLOTS_HEAD_BYTES ? bytes : OSBC_SLOTS_HEAD_BYTES);
    osbc_slots_install now;
    int32_t result;
    take(release, bytes);
    result = osbc_slots_begin(device, &now, release);
    if (result == OSBC_SLOTS_OK) {
        result = osbc_slots_append(device, &now, release, bytes);
    }
    if (result == OSBC_SLOTS_OK) {
        result = osbc_slots_finish(device, &now);
    }
    free(release);
    give("i", 1);
    give(&result, sizeof result);
    return result == OSBC_SLOTS_OK;
}

int main(int argc, char **argv)
{
    static uint8_t keys[1][OSBC_SLOTS_KEY_BYTES];
    osbc_slots_device device = {NULL, read_flash, write_flash, erase_flash, sync_flash, verify,
                                digest, 0, 0, NULL, (const uint8_t(*)[32])keys, 1u};
    osbc_slots_choice boot;
    uint32_t i, version;
    int trial, restart = 0;
    if (argc != 7 || (flash = fopen(argv[1], "r+b")) == NULL) {
        return 2;
    }
    device.sector = (uint32_t)strtoul(argv[2], NULL, 10);
    device.slot = (uint32_t)strtoul(argv[3], NULL, 10);
    device.target = argv[4];
    for (i = 0; i < OSBC_SLOTS_KEY_BYTES; i++) {
        unsigned byte;
        if (sscanf(argv[5] + 2u * i, "%2x", &byte) != 1) {
            return 2;
        }
        keys[0][i] = (uint8_t)byte;
    }
    if (osbc_slots_boot(&device, &boot) != OSBC_SLOTS_OK) {
        return 1;
    }
    trial = boot.slot != OSBC_SLOTS_NOBODY && boot.trial;
    version = boot.slot == OSBC_SLOTS_NOBODY ? 0u : boot.manifest.version;
    give("b", 1);
    give(&version, sizeof version);
    give(trial ? "\1" : "\0", 1);
    if (version != 0u) {
        uint32_t bytes;
        if (start(&boot) != 0) {
            uint8_t reason = OSBC_SLOTS_REASON_SELF_TEST;
            if (!trial || osbc_slots_rollback(&device, reason, 0) != OSBC_SLOTS_OK) {
                return 1;
            }
            give("x", 1);
            give(&reason, 1);
            fflush(stdout);
            return RESTART;
        }
        bytes = osbc_telemetry_size(&network);
        if (osbc_telemetry_start(&network, room(bytes), bytes,
                                 (uint16_t)strtoul(argv[6], NULL, 10)) != OSBC_OK) {
            return 1;
        }
    }
    while (!restart) {
        char command;
        give(".", 1);
        fflush(stdout);
        take(&command, 1);
        restart = command == 'S' ? see(&device, &trial) : install(&device);
    }
    fflush(stdout);
    fclose(flash);
    return RESTART;
}
