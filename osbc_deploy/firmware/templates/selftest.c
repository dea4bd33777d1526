/* Golden vectors of @name@, computed by osbc-deploy's engine, and the test that runs them. */
#include "@name@.h"

#define VECTORS @vectors@u
#define STEPS @steps@u

/* Active inputs: how many in each step of each vector, then which@and_values@. */
static const uint32_t counts[] = { @counts@ };
static const uint32_t active[] = { @active@ };
@values@static const int32_t expected[] = { @expected@ };
static const uint32_t states[] = { @states@ };

int @name@_selftest(void *state, size_t bytes)
{
    static @name@_input input[@NAME@_INPUTS];
    int32_t output[@NAME@_OUTPUTS];
    uint32_t vector, t, i, event = 0, place = 0;
    int result = @name@_check();
    for (vector = 0; vector < VECTORS && result == @NAME@_OK; vector++) {
        result = @name@_reset(state, bytes);
        for (t = 0; t < STEPS && result == @NAME@_OK; t++) {
            uint32_t until = event + counts[vector * STEPS + t], first = event;
            for (; event < until; event++) {
                input[active[event]] = @one@;
            }
            result = @name@_step(state, input, output);
            for (event = first; event < until; event++) {
                input[active[event]] = 0;
            }
            for (i = 0; i < @NAME@_OUTPUTS && result == @NAME@_OK; i++, place++) {
                result = output[i] == expected[place] ? @NAME@_OK : @NAME@_MISMATCH;
            }
        }
        if (result == @NAME@_OK && @name@_state_crc(state) != states[vector]) {
            result = @NAME@_MISMATCH;
        }
    }
    return result;
}
