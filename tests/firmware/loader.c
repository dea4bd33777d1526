/* Load blobs that may be hostile: each lies in read-only memory that ends right before a page that
 * cannot be touched, at a multiple of four. Each that is accepted runs a few steps.
 *
 * Standard input: for each blob uint32 bytes, then these. Standard output: int32 of what the loader
 * says, for each. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "osbc_runtime.h"

#define MOST 1000000u

static void run(const osbc_network *network)
{
    uint32_t bytes = osbc_state_size(network), inputs = osbc_inputs(network), t, i;
    int32_t *state, *output;
    int64_t *evidence;
    uint8_t *input;
    if (bytes > MOST || inputs > MOST) {
        return;
    }
    state = malloc(bytes);
    output = malloc(osbc_outputs(network) * sizeof *output);
    evidence = malloc(osbc_classes(network) * sizeof *evidence);
    input = calloc(inputs, 4);
    if (osbc_reset(network, state, bytes) != OSBC_OK) {
        abort();
    }
    for (t = 0; t < 4u; t++) {
        for (i = 0; i < 4u * inputs; i++) {
            input[i] = osbc_input_format(network) == OSBC_UINT8 ? i % 3u == t % 3u : 0;
        }
        osbc_step(network, state, input, output);
        osbc_gather(network, state, t, evidence);
    }
    /* Bits that fall over in RAM lead nowhere either. */
    for (i = 0; i < bytes / 4u; i++) {
        state[i] = (int32_t)(i * 2654435761u);
    }
    osbc_step(network, state, input, output);
    osbc_gather(network, state, t, evidence);
    osbc_decide(network, t, evidence);
    free(state);
    free(output);
    free(evidence);
    free(input);
}

int main(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t bytes;
    while (fread(&bytes, sizeof bytes, 1, stdin) == 1) {
        size_t room = ((size_t)bytes + page - 1u) / page * page;
        uint8_t *memory = mmap(NULL, room + page, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uint8_t *blob = memory + room - bytes;
        osbc_network network;
        int32_t said;
        if (memory == MAP_FAILED || fread(blob, 1, bytes, stdin) != bytes ||
            mprotect(memory, room, PROT_READ) != 0 ||
            mprotect(memory + room, page, PROT_NONE) != 0) {
            return 9;
        }
        said = osbc_load(&network, blob, bytes);
        fwrite(&said, sizeof said, 1, stdout);
        if (said == OSBC_OK) {
            run(&network);
        }
        munmap(memory, room + page);
    }
    return 0;
}
