/* Run @name@ on a computer.
 *
 *     @name@_host                     the self-test
 *     @name@_host RASTERS OUTPUTS     RASTERS: uint32 samples, uint32 steps, then the inputs of
 *                                     every step of every sample, as in memory here;
 *                                     OUTPUTS: int32, outputs of every step, as in memory here
 *
 * Exit code 0: done, or passed; 1: the self-test failed, or the input left the chip's range;
 * 2: wrong usage, or files that cannot be read or written.
 */
#include <stdio.h>

#include "../@name@.h"

static int32_t state[@NAME@_STATE_BYTES / 4];
static @name@_input input[@NAME@_INPUTS];

static int selftest(void)
{
    int result = @name@_selftest(state, sizeof state);
    printf("@name@ self-test: %s (%d)\n", result == @NAME@_OK ? "passed" : "FAILED", result);
    return result == @NAME@_OK ? 0 : 1;
}

static int fault(const char *what, const char *wrong)
{
    fprintf(stderr, "%s: %s\n", what, wrong);
    return 2;
}

static int run(FILE *from, const char *rasters, FILE *to, const char *outputs)
{
    uint32_t sizes[2], sample, t;
    int32_t output[@NAME@_OUTPUTS];
    if (fread(sizes, sizeof sizes[0], 2, from) != 2) {
        return fault(rasters, "is shorter than its two sizes");
    }
    for (sample = 0; sample < sizes[0]; sample++) {
        int result = @name@_reset(state, sizeof state);
        for (t = 0; t < sizes[1] && result == @NAME@_OK; t++) {
            if (fread(input, sizeof input[0], @NAME@_INPUTS, from) != @NAME@_INPUTS) {
                return fault(rasters, "ends before the last step");
            }
            result = @name@_step(state, input, output);
            if (fwrite(output, sizeof output[0], @NAME@_OUTPUTS, to) != @NAME@_OUTPUTS) {
                return fault(outputs, "cannot be written");
            }
        }
        if (result != @NAME@_OK) {
            fprintf(stderr, "sample %lu, step %lu: a current left the chip's range (%d)\n",
                    (unsigned long)sample, (unsigned long)(t - 1u), result);
            return 1;
        }
    }
    return fgetc(from) == EOF ? 0 : fault(rasters, "goes on after the last step");
}

int main(int argc, char **argv)
{
    FILE *from, *to;
    int code;
    if (argc == 1) {
        return selftest();
    }
    if (argc != 3) {
        return fault("usage", "@name@_host [RASTERS OUTPUTS]; without both, the self-test");
    }
    from = fopen(argv[1], "rb");
    if (from == NULL) {
        return fault(argv[1], "cannot be opened");
    }
    to = fopen(argv[2], "wb");
    if (to == NULL) {
        fclose(from);
        return fault(argv[2], "cannot be written");
    }
    code = run(from, argv[1], to, argv[2]);
    fclose(from);
    if (fclose(to) != 0) {
        return fault(argv[2], "cannot be written");
    }
    return code;
}
