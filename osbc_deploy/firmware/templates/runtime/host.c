/* Run the network of a blob on a computer.
 *
 *     osbc_host NETWORK                            check the blob and say what it takes
 *     osbc_host NETWORK RASTERS OUTPUTS [STATES]   RASTERS: uint32 samples, uint32 steps, then the
 *                                                  inputs of every step of every sample, as in
 *                                                  memory here; OUTPUTS: int32, outputs of every
 *                                                  step; STATES: the state buffer after every step
 *
 * Exit code 0: done; 1: the blob is refused, or the input left the chip's range; 2: wrong usage, or
 * files that cannot be read or written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../@P@_runtime.h"

static int fault(const char *what, const char *wrong)
{
    fprintf(stderr, "%s: %s\n", what, wrong);
    return 2;
}

/* A whole file in memory, or NULL. */
static void *contents(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t room = 0, got = 1;
    *bytes = 0;
    while (file != NULL && got > 0u) {
        if (*bytes == room) {
            uint8_t *more = (uint8_t *)realloc(data, room = 2u * room + 4096u);
            if (more == NULL) {
                break;
            }
            data = more;
        }
        got = fread(data + *bytes, 1, room - *bytes, file);
        *bytes += got;
    }
    if (file != NULL) {
        fclose(file);
    }
    return data;
}

static int run(const @P@_network *network, FILE *from, FILE *to, FILE *states, const char **names)
{
    int format = @P@_input_format(network);
    size_t width = (size_t)(format < 0 ? -format : format), bytes = @P@_state_size(network);
    size_t inputs = @P@_inputs(network), outputs = @P@_outputs(network);
    void *state = malloc(bytes), *input = malloc(inputs * width);
    int32_t *output = (int32_t *)malloc(outputs * sizeof *output);
    uint32_t sizes[2], sample, t;
    int code = 0;
    if (state == NULL || input == NULL || output == NULL) {
        code = fault(names[0], "does not fit into memory");
    } else if (fread(sizes, sizeof sizes[0], 2, from) != 2) {
        code = fault(names[1], "is shorter than its two sizes");
    }
    for (sample = 0; code == 0 && sample < sizes[0]; sample++) {
        int result = @P@_reset(network, state, bytes);
        for (t = 0; code == 0 && t < sizes[1]; t++) {
            if (fread(input, width, inputs, from) != inputs) {
                code = fault(names[1], "ends before the last step");
                break;
            }
            result = @P@_step(network, state, input, output);
            if (fwrite(output, sizeof output[0], outputs, to) != outputs) {
                code = fault(names[2], "cannot be written");
            } else if (states != NULL && fwrite(state, 1, bytes, states) != bytes) {
                code = fault(names[3], "cannot be written");
            } else if (result != @U@_OK) {
                fprintf(stderr, "sample %lu, step %lu: a current left the chip's range (%d)\n",
                        (unsigned long)sample, (unsigned long)t, result);
                code = 1;
            }
        }
    }
    if (code == 0 && fgetc(from) != EOF) {
        code = fault(names[1], "goes on after the last step");
    }
    free(state);
    free(input);
    free(output);
    return code;
}

static int open_and_run(const @P@_network *network, const char **names)
{
    FILE *from = fopen(names[1], "rb"), *to, *states = NULL;
    int code;
    if (from == NULL) {
        return fault(names[1], "cannot be opened");
    }
    to = fopen(names[2], "wb");
    if (names[3] != NULL) {
        states = fopen(names[3], "wb");
    }
    if (to == NULL || (names[3] != NULL && states == NULL)) {
        code = fault(names[to == NULL ? 2 : 3], "cannot be written");
    } else {
        code = run(network, from, to, states, names);
    }
    fclose(from);
    if (to != NULL && fclose(to) != 0) {
        code = fault(names[2], "cannot be written");
    }
    if (states != NULL && fclose(states) != 0) {
        code = fault(names[3], "cannot be written");
    }
    return code;
}

int main(int argc, char **argv)
{
    const char *names[4] = {NULL, NULL, NULL, NULL};
    @P@_network network;
    size_t bytes;
    void *blob;
    int i, code;
    if (argc != 2 && argc != 4 && argc != 5) {
        return fault("usage", "osbc_host NETWORK [RASTERS OUTPUTS [STATES]]");
    }
    for (i = 1; i < argc; i++) {
        names[i - 1] = argv[i];
    }
    blob = contents(names[0], &bytes);
    if (blob == NULL) {
        return fault(names[0], "cannot be read");
    }
    code = @P@_load(&network, blob, bytes);
    if (code != @U@_OK) {
        fprintf(stderr, "%s: is refused (%d)\n", names[0], code);
        code = 1;
    } else if (argc == 2) {
        printf("%s: %lu inputs, %lu outputs, %lu B of flash, %lu B of state\n", names[0],
               (unsigned long)@P@_inputs(&network), (unsigned long)@P@_outputs(&network),
               (unsigned long)@P@_blob_size(&network), (unsigned long)@P@_state_size(&network));
    } else {
        code = open_and_run(&network, names);
    }
    free(blob);
    return code;
}
