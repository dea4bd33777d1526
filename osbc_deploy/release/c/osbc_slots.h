/* Signed network images in two slots of flash, with a way back to the last good one.
 *
 * C99, no memory allocation, no library calls. The specification is docs/releases.md of
 * osbc-deploy, which keeps the same store in a file, byte by byte.
 *
 *     at boot:   osbc_slots_boot(&device, &boot);
 *                run the image at boot.image; if boot.trial, first osbc_slots_selftest:
 *                where it fails, osbc_slots_rollback(&device, OSBC_SLOTS_REASON_SELF_TEST, 0) and
 *                restart
 *     on trial:  osbc_slots_judge(&device, samples, silent, clipped, &state) now and then;
 *                restart when state is OSBC_SLOTS_REVERTED
 *     update:    osbc_slots_begin, osbc_slots_append for each piece, osbc_slots_finish; restart
 */
#ifndef OSBC_SLOTS_H
#define OSBC_SLOTS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OSBC_SLOTS_HEAD_BYTES 256u
#define OSBC_SLOTS_SIGNED_BYTES 160u
#define OSBC_SLOTS_KEY_BYTES 32u
#define OSBC_SLOTS_TARGET_BYTES 32u
#define OSBC_SLOTS_ALIGNMENT 32u /* of every write, in place and size */
#define OSBC_SLOTS_TRIAL_BOOTS 3u
#define OSBC_SLOTS_NOBODY 255u

enum {
    OSBC_SLOTS_OK = 0,
    OSBC_SLOTS_SAME = 1, /* begin: this very release is staged already, nothing is left to do */
    OSBC_SLOTS_NOT_A_RELEASE = -1,
    OSBC_SLOTS_TARGET = -2,
    OSBC_SLOTS_KEY = -3,
    OSBC_SLOTS_SIGNATURE = -4,
    OSBC_SLOTS_VERSION = -5,
    OSBC_SLOTS_SIZE = -6,
    OSBC_SLOTS_BUSY = -7,     /* an image is on trial */
    OSBC_SLOTS_DAMAGED = -8,  /* what is in the slot is not what was signed */
    OSBC_SLOTS_STATE = -9,    /* nothing to confirm, or to go back to */
    OSBC_SLOTS_OTHER = -10,   /* another version is there */
    OSBC_SLOTS_JOURNAL = -11, /* both records are damaged, which no power cut does */
    OSBC_SLOTS_STORAGE = -12, /* a callback failed */
    OSBC_SLOTS_MISMATCH = -13 /* self-test: another answer than the engine's */
};

enum {
    OSBC_SLOTS_EMPTY,
    OSBC_SLOTS_STAGED,
    OSBC_SLOTS_TRIAL,
    OSBC_SLOTS_CONFIRMED,
    OSBC_SLOTS_REVERTED
};

enum {
    OSBC_SLOTS_REASON_NONE,
    OSBC_SLOTS_REASON_SELF_TEST,
    OSBC_SLOTS_REASON_BOOTS,
    OSBC_SLOTS_REASON_SILENT,
    OSBC_SLOTS_REASON_CLIPPED,
    OSBC_SLOTS_REASON_HOST,
    OSBC_SLOTS_REASON_DAMAGED
};

/* Storage and checks are the firmware's. Every function returns 0 when all is well. Offsets count
 * from the start of the store. */
typedef struct {
    void *context;
    int (*read)(void *context, uint32_t offset, uint8_t *bytes, uint32_t count);
    int (*write)(void *context, uint32_t offset, const uint8_t *bytes, uint32_t count);
    int (*erase)(void *context, uint32_t offset, uint32_t count); /* one sector, to 0xFF */
    int (*sync)(void *context); /* returns when all that was written survives a power cut */
    /* Ed25519 (RFC 8032) of a message, by a library or the chip. */
    int (*verify)(void *context, const uint8_t key[OSBC_SLOTS_KEY_BYTES], const uint8_t *message,
                  uint32_t count, const uint8_t signature[64]);
    /* SHA-256 of a stretch of the store. */
    int (*digest)(void *context, uint32_t offset, uint32_t count, uint8_t found[32]);
    uint32_t sector;    /* bytes that are erased at once */
    uint32_t slot;      /* bytes of a slot, a whole number of sectors */
    const char *target; /* the kind of device, 31 characters at most */
    const uint8_t (*keys)[OSBC_SLOTS_KEY_BYTES]; /* public keys whose signatures count */
    uint32_t key_count;
} osbc_slots_device;

typedef struct {
    uint32_t version;
    uint32_t image_bytes, selftest_bytes;
    uint32_t trial_samples, silent_most, clipped_most;
    uint8_t image_id[8]; /* what telemetry records name it by */
} osbc_slots_manifest;

typedef struct {
    uint32_t slot;            /* OSBC_SLOTS_NOBODY when nothing may run */
    int trial;                /* the self-test must run */
    uint32_t image, selftest; /* where they begin in the store */
    osbc_slots_manifest manifest;
} osbc_slots_choice;

typedef struct {
    uint32_t sequence, floor, candidate;
    uint8_t state, good, fallback, boots, reason;
} osbc_slots_record;

typedef struct {
    uint8_t head[OSBC_SLOTS_HEAD_BYTES];
    uint8_t piece[OSBC_SLOTS_ALIGNMENT];
    uint32_t done, total, begin;
} osbc_slots_install;

/* What the journal says. */
int osbc_slots_status(const osbc_slots_device *device, osbc_slots_record *record);

/* Say what is to run, and count the boot of an image on trial. OSBC_SLOTS_OK with boot->slot
 * OSBC_SLOTS_NOBODY: no image may run. */
int osbc_slots_boot(const osbc_slots_device *device, osbc_slots_choice *boot);

/* Take a release: its first 256 bytes, then all of its bytes in pieces of any size (the head
 * once more among them). Nothing counts before osbc_slots_finish. */
int osbc_slots_begin(const osbc_slots_device *device, osbc_slots_install *install,
                     const uint8_t head[OSBC_SLOTS_HEAD_BYTES]);
int osbc_slots_append(const osbc_slots_device *device, osbc_slots_install *install,
                      const uint8_t *bytes, uint32_t count);
int osbc_slots_finish(const osbc_slots_device *device, osbc_slots_install *install);

/* Make the image on trial the good one. */
int osbc_slots_confirm(const osbc_slots_device *device);

/* Give up the image that is staged or on trial, or go back from the confirmed one. `version`: only
 * if it is this one; 0 for whichever it is. */
int osbc_slots_rollback(const osbc_slots_device *device, uint8_t reason, uint32_t version);

/* Hold what an image on trial did since its boot against its limits: confirmed, reverted, or
 * still on trial, as `state` says. */
int osbc_slots_judge(const osbc_slots_device *device, uint32_t samples, uint32_t silent,
                     uint32_t clipped, uint8_t *state);

/* Run a self-test that lies in memory, at osbc_slots_choice.selftest and of its size: all samples,
 * each step by `step`, which resets the network when `first`, runs one step and returns 0. `input`
 * holds a step (a byte for each spike; otherwise integers of 1, 2 or 4 bytes, on a little-endian
 * machine), `output` the outputs of a step. */
int osbc_slots_selftest(const uint8_t *vectors, uint32_t bytes, void *input, uint32_t input_bytes,
                        int32_t *output, uint32_t outputs, void *context,
                        int (*step)(void *context, int first, const void *input,
                                    int32_t *output));

#ifdef __cplusplus
}
#endif

#endif
