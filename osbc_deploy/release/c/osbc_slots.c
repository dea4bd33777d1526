/* See osbc_slots.h. */
#include "osbc_slots.h"

#define RECORD_BYTES 32u
#define LAYOUT 1u

typedef struct {
    osbc_slots_record record;
    uint32_t place;
} journal;

static void fill(uint8_t *to, uint8_t value, uint32_t count)
{
    while (count-- > 0u) {
        *to++ = value;
    }
}

static void copy(uint8_t *to, const uint8_t *from, uint32_t count)
{
    while (count-- > 0u) {
        *to++ = *from++;
    }
}

static int same(const uint8_t *one, const uint8_t *other, uint32_t count)
{
    while (count-- > 0u) {
        if (*one++ != *other++) {
            return 0;
        }
    }
    return 1;
}

static int all(const uint8_t *bytes, uint8_t value, uint32_t count)
{
    while (count-- > 0u) {
        if (*bytes++ != value) {
            return 0;
        }
    }
    return 1;
}

static uint32_t number(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16
           | (uint32_t)bytes[3] << 24;
}

static void put(uint8_t *bytes, uint32_t value)
{
    uint32_t i;
    for (i = 0; i < 4u; i++) {
        bytes[i] = (uint8_t)(value >> (8u * i) & 0xFFu);
    }
}

/* CRC-32/ISO-HDLC, as in zlib. */
static uint32_t crc32(uint32_t crc, const uint8_t *bytes, uint32_t count)
{
    uint32_t bit;
    crc = ~crc;
    while (count-- > 0u) {
        crc ^= *bytes++;
        for (bit = 0; bit < 8u; bit++) {
            crc = crc >> 1 ^ (UINT32_C(0xEDB88320) & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

static uint32_t padded(uint32_t size)
{
    return (size + OSBC_SLOTS_ALIGNMENT - 1u) / OSBC_SLOTS_ALIGNMENT * OSBC_SLOTS_ALIGNMENT;
}

static uint32_t slot_at(const osbc_slots_device *device, uint32_t slot)
{
    return 2u * device->sector + slot * device->slot;
}

static uint32_t other(const osbc_slots_record *record)
{
    return record->good == OSBC_SLOTS_NOBODY ? 0u : 1u - record->good;
}

/* The journal: two records, of which the newer one counts. */

static int unpack(const uint8_t *bytes, osbc_slots_record *record)
{
    if (!same(bytes, (const uint8_t *)"OSBJ", 4u) || bytes[8] != LAYOUT
        || number(bytes + 28) != crc32(0u, bytes, 28u) || bytes[14] != 0u || bytes[15] != 0u
        || number(bytes + 24) != 0u || bytes[9] > OSBC_SLOTS_REVERTED
        || bytes[13] > OSBC_SLOTS_REASON_DAMAGED
        || (bytes[10] > 1u && bytes[10] != OSBC_SLOTS_NOBODY)) {
        return 0;
    }
    record->sequence = number(bytes + 4);
    record->state = bytes[9];
    record->good = bytes[10];
    record->fallback = (uint8_t)(bytes[11] != 0u);
    record->boots = bytes[12];
    record->reason = bytes[13];
    record->floor = number(bytes + 16);
    record->candidate = number(bytes + 20);
    return 1;
}

static int load(const osbc_slots_device *device, journal *found)
{
    uint8_t bytes[2][RECORD_BYTES];
    osbc_slots_record records[2];
    uint32_t i, there[2], later;
    for (i = 0; i < 2u; i++) {
        /* What cannot be read is no record. */
        if (device->read(device->context, i * device->sector, bytes[i], RECORD_BYTES) != 0) {
            fill(bytes[i], 0u, RECORD_BYTES);
        }
        there[i] = (uint32_t)unpack(bytes[i], &records[i]);
    }
    if (!there[0] && !there[1]) {
        found->record.sequence = found->record.floor = found->record.candidate = 0u;
        found->record.state = OSBC_SLOTS_EMPTY;
        found->record.good = OSBC_SLOTS_NOBODY;
        found->record.fallback = found->record.boots = 0u;
        found->record.reason = OSBC_SLOTS_REASON_NONE;
        found->place = 1u;
        return all(bytes[1], 0xFFu, RECORD_BYTES) ? OSBC_SLOTS_OK : OSBC_SLOTS_JOURNAL;
    }
    if (there[0] && there[1]) {
        /* Numbers go round: the newer one is less than half of the way ahead. */
        uint32_t ahead = records[1].sequence - records[0].sequence;
        later = ahead != 0u && ahead < UINT32_C(0x80000000) ? 1u : 0u;
    } else {
        later = there[1];
    }
    found->record = records[later];
    found->place = later;
    return OSBC_SLOTS_OK;
}

static int save(const osbc_slots_device *device, journal *now)
{
    uint8_t bytes[RECORD_BYTES];
    const osbc_slots_record *record = &now->record;
    uint32_t place = 1u - now->place, at = place * device->sector;
    now->record.sequence++;
    fill(bytes, 0u, RECORD_BYTES);
    copy(bytes, (const uint8_t *)"OSBJ", 4u);
    put(bytes + 4, record->sequence);
    bytes[8] = LAYOUT;
    bytes[9] = record->state;
    bytes[10] = record->good;
    bytes[11] = record->fallback;
    bytes[12] = record->boots;
    bytes[13] = record->reason;
    put(bytes + 16, record->floor);
    put(bytes + 20, record->candidate);
    put(bytes + 28, crc32(0u, bytes, 28u));
    if (device->erase(device->context, at, device->sector) != 0
        || device->write(device->context, at, bytes, RECORD_BYTES) != 0
        || device->sync(device->context) != 0) {
        return OSBC_SLOTS_STORAGE;
    }
    now->place = place;
    return OSBC_SLOTS_OK;
}

/* The candidate is given up; its version is barred if it was judged. */
static void revert(osbc_slots_record *record, uint8_t reason)
{
    if (reason != OSBC_SLOTS_REASON_DAMAGED && record->candidate > record->floor) {
        record->floor = record->candidate;
    }
    record->state = OSBC_SLOTS_REVERTED;
    record->fallback = record->boots = 0u;
    record->reason = reason;
    record->candidate = 0u;
}

/* The confirmed image is left for the one before it. */
static void go_back(osbc_slots_record *record, uint8_t reason)
{
    record->good = (uint8_t)other(record);
    record->candidate = 0u;
    revert(record, reason);
}

/* Releases. */

static int fault(const osbc_slots_device *device, const uint8_t *head, osbc_slots_manifest *found)
{
    uint32_t i, length = 0u, room = device->slot - OSBC_SLOTS_HEAD_BYTES;
    const uint8_t *target = head + 96;
    if (!same(head, (const uint8_t *)"OSBR", 4u) || head[4] != LAYOUT || head[5] != 0u
        || head[6] != 0u || head[7] != 1u || !all(head + 144, 0u, 16u)
        || !all(head + 224, 0u, 32u)) {
        return OSBC_SLOTS_NOT_A_RELEASE;
    }
    found->version = number(head + 8);
    found->image_bytes = number(head + 12);
    found->selftest_bytes = number(head + 16);
    found->trial_samples = number(head + 20);
    found->silent_most = number(head + 24);
    found->clipped_most = number(head + 28);
    copy(found->image_id, head + 136, 8u);
    if (found->version == 0u || found->image_bytes == 0u || target[0] == 0u) {
        return OSBC_SLOTS_NOT_A_RELEASE;
    }
    while (length < OSBC_SLOTS_TARGET_BYTES - 1u && device->target[length] != '\0') {
        if (target[length] != (uint8_t)device->target[length]) {
            return OSBC_SLOTS_TARGET;
        }
        length++;
    }
    if (!all(target + length, 0u, OSBC_SLOTS_TARGET_BYTES - length)) {
        return OSBC_SLOTS_TARGET;
    }
    if (device->slot < OSBC_SLOTS_HEAD_BYTES || found->image_bytes > room
        || found->selftest_bytes > room
        || padded(found->selftest_bytes) > room - found->image_bytes
        || padded(found->image_bytes) > room - padded(found->selftest_bytes)) {
        return OSBC_SLOTS_SIZE;
    }
    for (i = 0; i < device->key_count; i++) {
        if (same(device->keys[i], head + 128, 8u)) {
            return device->verify(device->context, device->keys[i], head, OSBC_SLOTS_SIGNED_BYTES,
                                  head + OSBC_SLOTS_SIGNED_BYTES) == 0
                       ? OSBC_SLOTS_OK
                       : OSBC_SLOTS_SIGNATURE;
        }
    }
    return OSBC_SLOTS_KEY;
}

static int matches(const osbc_slots_device *device, uint32_t at, uint32_t count,
                   const uint8_t *digest)
{
    uint8_t found[32];
    return device->digest(device->context, at, count, found) == 0 && same(found, digest, 32u);
}

/* Whether the image in a slot may run: signed, for this target, whole. */
static int intact(const osbc_slots_device *device, uint32_t slot, osbc_slots_choice *boot)
{
    uint8_t head[OSBC_SLOTS_HEAD_BYTES];
    uint32_t at = slot_at(device, slot);
    if (device->read(device->context, at, head, OSBC_SLOTS_HEAD_BYTES) != 0
        || fault(device, head, &boot->manifest) != OSBC_SLOTS_OK) {
        return 0;
    }
    boot->image = at + OSBC_SLOTS_HEAD_BYTES;
    boot->selftest = boot->image + padded(boot->manifest.image_bytes);
    return matches(device, boot->image, boot->manifest.image_bytes, head + 32)
           && matches(device, boot->selftest, boot->manifest.selftest_bytes, head + 64);
}

int osbc_slots_status(const osbc_slots_device *device, osbc_slots_record *record)
{
    journal now;
    int result = load(device, &now);
    *record = now.record;
    return result;
}

int osbc_slots_boot(const osbc_slots_device *device, osbc_slots_choice *boot)
{
    journal now;
    osbc_slots_record *record = &now.record;
    int result = load(device, &now);
    boot->slot = OSBC_SLOTS_NOBODY;
    boot->trial = 0;
    if (result != OSBC_SLOTS_OK) {
        return result;
    }
    if (record->state == OSBC_SLOTS_STAGED || record->state == OSBC_SLOTS_TRIAL) {
        uint8_t boots = record->state == OSBC_SLOTS_TRIAL ? record->boots : 0u;
        int whole = intact(device, other(record), boot);
        if (boots >= OSBC_SLOTS_TRIAL_BOOTS) {
            revert(record, OSBC_SLOTS_REASON_BOOTS);
        } else if (!whole || boot->manifest.version != record->candidate) {
            revert(record, OSBC_SLOTS_REASON_DAMAGED);
        } else {
            uint32_t slot = other(record);
            record->state = OSBC_SLOTS_TRIAL;
            record->boots = (uint8_t)(boots + 1u);
            result = save(device, &now);
            if (result == OSBC_SLOTS_OK) {
                boot->slot = slot;
                boot->trial = 1;
            }
            /* A boot that cannot be counted does not happen: storage is failing, and the good
             * image below is the one to run. */
        }
        if (record->state == OSBC_SLOTS_REVERTED) {
            result = save(device, &now);
        }
    }
    if (boot->slot == OSBC_SLOTS_NOBODY && record->good != OSBC_SLOTS_NOBODY) {
        if (intact(device, record->good, boot)) {
            boot->slot = record->good;
        } else if (record->fallback != 0u && intact(device, other(record), boot)) {
            boot->slot = other(record);
            go_back(record, OSBC_SLOTS_REASON_DAMAGED);
            result = save(device, &now);
        }
    }
    return result;
}

int osbc_slots_begin(const osbc_slots_device *device, osbc_slots_install *install,
                     const uint8_t head[OSBC_SLOTS_HEAD_BYTES])
{
    journal now;
    osbc_slots_record *record = &now.record;
    osbc_slots_choice there;
    uint8_t stored[OSBC_SLOTS_HEAD_BYTES];
    uint32_t at, end;
    int result = load(device, &now);
    install->total = 0u;
    if (result == OSBC_SLOTS_OK) {
        result = fault(device, head, &there.manifest);
    }
    if (result != OSBC_SLOTS_OK) {
        return result;
    }
    if (record->state == OSBC_SLOTS_TRIAL) {
        return OSBC_SLOTS_BUSY;
    }
    if (there.manifest.version <= record->floor) {
        return OSBC_SLOTS_VERSION;
    }
    install->total = OSBC_SLOTS_HEAD_BYTES + padded(there.manifest.image_bytes)
                     + padded(there.manifest.selftest_bytes);
    install->done = 0u;
    install->begin = at = slot_at(device, other(record));
    copy(install->head, head, OSBC_SLOTS_HEAD_BYTES);
    if (record->state == OSBC_SLOTS_STAGED
        && device->read(device->context, at, stored, OSBC_SLOTS_HEAD_BYTES) == 0
        && same(stored, head, OSBC_SLOTS_HEAD_BYTES) && intact(device, other(record), &there)) {
        install->total = 0u;
        return OSBC_SLOTS_SAME;
    }
    if (record->state == OSBC_SLOTS_STAGED || record->fallback != 0u) {
        /* What is in the slot stops counting before it stops being whole. */
        if (record->state == OSBC_SLOTS_STAGED) {
            record->state =
                record->good == OSBC_SLOTS_NOBODY ? OSBC_SLOTS_EMPTY : OSBC_SLOTS_CONFIRMED;
        }
        record->fallback = 0u;
        record->candidate = 0u;
        result = save(device, &now);
    }
    for (end = at + device->slot; at < end && result == OSBC_SLOTS_OK; at += device->sector) {
        if (device->erase(device->context, at, device->sector) != 0) {
            result = OSBC_SLOTS_STORAGE;
        }
    }
    if (result != OSBC_SLOTS_OK) {
        install->total = 0u;
    }
    return result;
}

int osbc_slots_append(const osbc_slots_device *device, osbc_slots_install *install,
                      const uint8_t *bytes, uint32_t count)
{
    if (count > install->total - install->done) {
        return install->total == 0u ? OSBC_SLOTS_STATE : OSBC_SLOTS_SIZE;
    }
    while (count-- > 0u) {
        install->piece[install->done % OSBC_SLOTS_ALIGNMENT] = *bytes++;
        install->done++;
        if (install->done % OSBC_SLOTS_ALIGNMENT == 0u
            && device->write(device->context, install->begin + install->done - OSBC_SLOTS_ALIGNMENT,
                             install->piece, OSBC_SLOTS_ALIGNMENT) != 0) {
            install->total = install->done = 0u;
            return OSBC_SLOTS_STORAGE;
        }
    }
    return OSBC_SLOTS_OK;
}

int osbc_slots_finish(const osbc_slots_device *device, osbc_slots_install *install)
{
    journal now;
    osbc_slots_record *record = &now.record;
    osbc_slots_choice found;
    uint8_t stored[OSBC_SLOTS_HEAD_BYTES];
    int result;
    if (install->total == 0u || install->done != install->total) {
        return OSBC_SLOTS_STATE;
    }
    install->total = install->done = 0u;
    result = load(device, &now);
    if (result != OSBC_SLOTS_OK) {
        return result;
    }
    if (record->state == OSBC_SLOTS_STAGED || record->state == OSBC_SLOTS_TRIAL
        || record->fallback != 0u || install->begin != slot_at(device, other(record))) {
        return OSBC_SLOTS_STATE;
    }
    if (device->sync(device->context) != 0) {
        return OSBC_SLOTS_STORAGE;
    }
    if (device->read(device->context, install->begin, stored, OSBC_SLOTS_HEAD_BYTES) != 0
        || !same(stored, install->head, OSBC_SLOTS_HEAD_BYTES)
        || !intact(device, other(record), &found)) {
        return OSBC_SLOTS_DAMAGED;
    }
    record->state = OSBC_SLOTS_STAGED;
    record->boots = 0u;
    record->reason = OSBC_SLOTS_REASON_NONE;
    record->candidate = found.manifest.version;
    return save(device, &now);
}

int osbc_slots_confirm(const osbc_slots_device *device)
{
    journal now;
    osbc_slots_record *record = &now.record;
    int result = load(device, &now);
    if (result != OSBC_SLOTS_OK || record->state == OSBC_SLOTS_CONFIRMED) {
        return result;
    }
    if (record->state != OSBC_SLOTS_TRIAL) {
        return OSBC_SLOTS_STATE;
    }
    record->fallback = (uint8_t)(record->good != OSBC_SLOTS_NOBODY);
    record->good = (uint8_t)other(record);
    record->state = OSBC_SLOTS_CONFIRMED;
    record->boots = 0u;
    record->reason = OSBC_SLOTS_REASON_NONE;
    if (record->candidate > record->floor) {
        record->floor = record->candidate;
    }
    record->candidate = 0u;
    return save(device, &now);
}

int osbc_slots_rollback(const osbc_slots_device *device, uint8_t reason, uint32_t version)
{
    journal now;
    osbc_slots_record *record = &now.record;
    osbc_slots_choice found;
    int result = load(device, &now), trying;
    if (result != OSBC_SLOTS_OK) {
        return result;
    }
    trying = record->state == OSBC_SLOTS_STAGED || record->state == OSBC_SLOTS_TRIAL;
    if (!trying && !(record->state == OSBC_SLOTS_CONFIRMED && record->fallback != 0u)) {
        return OSBC_SLOTS_STATE;
    }
    if (version != 0u) {
        uint32_t running = record->candidate;
        if (!trying) {
            running = intact(device, record->good, &found) ? found.manifest.version : 0u;
        }
        if (running != version) {
            return OSBC_SLOTS_OTHER;
        }
    }
    if (trying) {
        revert(record, reason);
    } else if (intact(device, other(record), &found)) {
        go_back(record, reason);
    } else {
        return OSBC_SLOTS_DAMAGED;
    }
    return save(device, &now);
}

int osbc_slots_judge(const osbc_slots_device *device, uint32_t samples, uint32_t silent,
                     uint32_t clipped, uint8_t *state)
{
    journal now;
    osbc_slots_choice found;
    int result = load(device, &now);
    if (result == OSBC_SLOTS_OK && now.record.state == OSBC_SLOTS_TRIAL) {
        if (!intact(device, other(&now.record), &found)) {
            result = osbc_slots_rollback(device, OSBC_SLOTS_REASON_DAMAGED, 0u);
        } else if (silent > found.manifest.silent_most) {
            result = osbc_slots_rollback(device, OSBC_SLOTS_REASON_SILENT, 0u);
        } else if (clipped > found.manifest.clipped_most) {
            result = osbc_slots_rollback(device, OSBC_SLOTS_REASON_CLIPPED, 0u);
        } else if (samples >= found.manifest.trial_samples) {
            result = osbc_slots_confirm(device);
        }
        if (result == OSBC_SLOTS_OK) {
            result = load(device, &now);
        }
    }
    *state = now.record.state;
    return result;
}

int osbc_slots_selftest(const uint8_t *vectors, uint32_t bytes, void *input, uint32_t input_bytes,
                        int32_t *output, uint32_t outputs, void *context,
                        int (*step)(void *context, int first, const void *input, int32_t *output))
{
    uint32_t samples, steps, inputs, bits, row, size, s, t, i;
    uint8_t *to = (uint8_t *)input;
    if (bytes < 32u || !same(vectors, (const uint8_t *)"OSBV", 4u) || vectors[4] != LAYOUT
        || vectors[5] != 0u || !all(vectors + 22, 0u, 10u)) {
        return OSBC_SLOTS_DAMAGED;
    }
    samples = (uint32_t)vectors[6] | (uint32_t)vectors[7] << 8;
    steps = number(vectors + 8);
    inputs = number(vectors + 12);
    bits = vectors[20];
    if ((bits != 1u && bits != 8u && bits != 16u && bits != 32u) || samples == 0u || steps == 0u
        || inputs == 0u || inputs > UINT32_MAX / 32u || number(vectors + 16) != outputs) {
        return OSBC_SLOTS_DAMAGED;
    }
    row = (inputs * bits + 7u) / 8u;
    if (steps > (UINT32_MAX - 8u) / row) {
        return OSBC_SLOTS_DAMAGED;
    }
    size = 4u + (steps * row + 3u) / 4u * 4u;
    if ((bytes - 32u) / size != samples || (bytes - 32u) % size != 0u) {
        return OSBC_SLOTS_DAMAGED;
    }
    if (input_bytes < (bits == 1u ? inputs : row)) {
        return OSBC_SLOTS_SIZE;
    }
    for (s = 0; s < samples; s++) {
        const uint8_t *sample = vectors + 32u + s * size, *from = sample + 4;
        uint32_t crc = 0u;
        for (t = 0; t < steps; t++, from += row) {
            if (bits == 1u) {
                for (i = 0; i < inputs; i++) {
                    to[i] = (uint8_t)((uint32_t)from[i / 8u] >> i % 8u & 1u);
                }
            } else {
                copy(to, from, row);
            }
            if (step(context, t == 0u, input, output) != 0) {
                return OSBC_SLOTS_MISMATCH;
            }
            for (i = 0; i < outputs; i++) {
                uint8_t answer[4];
                put(answer, (uint32_t)output[i]);
                crc = crc32(crc, answer, 4u);
            }
        }
        if (crc != number(sample)) {
            return OSBC_SLOTS_MISMATCH;
        }
    }
    return OSBC_SLOTS_OK;
}
