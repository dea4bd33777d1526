/* Run @name@ on a computer.
 *
 *     @name@_host                     the self-test; exit code 0 when it passes
 *     @name@_host RASTERS OUTPUTS     RASTERS: uint32 samples, uint32 steps, then the inputs of
 *                                     every step of every sample, as in memory here;
 *                                     OUTPUTS: int32, outputs of every step, as in memory here
 */
#include <stdio.h>

#include "@name@.h"

static int32_t state[@NAME@_STATE_BYTES / 4];
static @name@_input input[@NAME@_INPUTS];

int main(int argc, char **argv)
{
    uint32_t sizes[2], sample, t;
    int32_t output[@NAME@_OUTPUTS];
    FILE *from, *to;
    int result = @NAME@_OK;
    if (argc != 3) {
        result = @name@_selftest(state, sizeof state);
        printf("@name@ self-test: %s (%d)\n", result == @NAME@_OK ? "passed" : "FAILED", result);
        return result == @NAME@_OK ? 0 : 1;
    }
    from = fopen(argv[1], "rb");
    to = fopen(argv[2], "wb");
    if (from == NULL || to == NULL || fread(sizes, sizeof sizes[0], 2, from) != 2) {
        fprintf(stderr, "cannot open the files\n");
        return 2;
    }
    for (sample = 0; sample < sizes[0] && result == @NAME@_OK; sample++) {
        result = @name@_reset(state, sizeof state);
        for (t = 0; t < sizes[1] && result == @NAME@_OK; t++) {
            if (fread(input, sizeof input[0], @NAME@_INPUTS, from) != @NAME@_INPUTS) {
                fprintf(stderr, "the rasters end early\n");
                return 2;
            }
            result = @name@_step(state, input, output);
            if (fwrite(output, sizeof output[0], @NAME@_OUTPUTS, to) != @NAME@_OUTPUTS) {
                fprintf(stderr, "cannot write the outputs\n");
                return 2;
            }
        }
    }
    fclose(from);
    if (fclose(to) != 0) {
        return 2;
    }
    return result == @NAME@_OK ? 0 : 1;
}
