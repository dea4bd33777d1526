/* Count samples with the runtime's telemetry: counter NETWORK RASTERS RECORDS [WINDOW]; a window
 * has so many samples, all by default. Rasters are those of the host program. */
#include <stdio.h>
#include <stdlib.h>

#include "osbc_runtime.h"

static uint8_t *contents(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    data = malloc(*bytes);
    if (fread(data, 1, *bytes, file) != *bytes) {
        exit(9);
    }
    fclose(file);
    return data;
}

int main(int argc, char **argv)
{
    size_t bytes;
    uint8_t *blob = contents(argv[1], &bytes), *rasters, *buffer, *state;
    uint32_t samples, steps, sample, class_number, every;
    osbc_network network;
    int64_t *evidence;
    FILE *to = fopen(argv[3], "wb");
    if (osbc_load(&network, blob, bytes) != OSBC_OK) {
        return 1;
    }
    rasters = contents(argv[2], &bytes);
    samples = ((uint32_t *)(void *)rasters)[0];
    steps = ((uint32_t *)(void *)rasters)[1];
    every = argc > 4 ? (uint32_t)atoi(argv[4]) : samples;
    state = malloc(osbc_state_size(&network));
    evidence = malloc(osbc_classes(&network) * sizeof *evidence);
    buffer = malloc(osbc_telemetry_size(&network));
    if (osbc_telemetry_start(&network, buffer, osbc_telemetry_size(&network) - 1u, 3) == OSBC_OK ||
        osbc_telemetry_start(&network, buffer, osbc_telemetry_size(&network), 3) != OSBC_OK) {
        return 2;
    }
    for (sample = 0; sample < samples; sample++) {
        size_t each = (bytes - 8u) / samples;
        osbc_run(&network, state, osbc_state_size(&network), rasters + 8u + sample * each, steps,
                 evidence, &class_number);
        if ((sample + 1u) % every == 0u) {
            fwrite(osbc_telemetry_record(&network), 1, osbc_record_size(&network), to);
            osbc_telemetry_next(&network);
        }
    }
    fclose(to);
    free(blob);
    free(rasters);
    free(state);
    free(evidence);
    free(buffer);
    return 0;
}
