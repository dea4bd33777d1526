/* A self-test in C on a network that is a list of answers.
 *
 *     selftest_driver VECTORS ANSWERS INPUTS INPUT_BYTES OUTPUTS
 *
 * prints what osbc_slots_selftest returns, and writes the inputs that it gave to INPUTS.
 */
#include <stdio.h>
#include <stdlib.h>

#include "osbc_slots.h"

typedef struct {
    FILE *answers, *inputs;
    uint32_t input_bytes, outputs;
} network;

static int step(void *context, int first, const void *input, int32_t *output)
{
    network *now = context;
    if (fputc(first ? 'f' : '-', now->inputs) == EOF
        || fwrite(input, 1, now->input_bytes, now->inputs) != now->input_bytes) {
        return -1;
    }
    return fread(output, 4, now->outputs, now->answers) == now->outputs ? 0 : -1;
}

int main(int argc, char **argv)
{
    network now;
    FILE *file;
    uint8_t *vectors;
    void *input;
    int32_t *output;
    long size;
    int result;
    if (argc != 6 || (file = fopen(argv[1], "rb")) == NULL) {
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    now.answers = fopen(argv[2], "rb");
    now.inputs = fopen(argv[3], "wb");
    now.input_bytes = (uint32_t)strtoul(argv[4], NULL, 10);
    now.outputs = (uint32_t)strtoul(argv[5], NULL, 10);
    /* Of the very size, so that the sanitizer sees a step too far. */
    vectors = malloc((size_t)size + (size == 0));
    input = malloc(now.input_bytes);
    output = malloc(4u * now.outputs);
    if (now.answers == NULL || now.inputs == NULL || vectors == NULL || input == NULL
        || output == NULL || fread(vectors, 1, (size_t)size, file) != (size_t)size) {
        return 2;
    }
    result = osbc_slots_selftest(vectors, (uint32_t)size, input, now.input_bytes, output,
                                 now.outputs, &now, step);
    printf("%d", result);
    free(vectors);
    free(input);
    free(output);
    fclose(file);
    fclose(now.answers);
    fclose(now.inputs);
    return 0;
}
