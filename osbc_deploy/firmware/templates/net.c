
/* @name@ itself: the runtime above with the blob of @name@_weights.c; see @name@.h. */
#include "@name@.h"

extern const uint8_t @name@_blob[];

#ifdef OSBC_TELEMETRY
static @name@_rt_network network = {@name@_blob, NULL};

@name@_rt_network *@name@_network(void)
{
    return &network;
}
#else
static const @name@_rt_network network = {@name@_blob};
#endif

int @name@_reset(void *state, size_t bytes)
{
    return @name@_rt_reset(&network, state, bytes);
}

int @name@_step(void *state, const @name@_input *input, int32_t *output)
{
    return @name@_rt_step(&network, state, input, output);
}

int @name@_run(void *state, size_t bytes, const @name@_input *input, uint32_t steps,
               int64_t *evidence, uint32_t *class_number)
{
    return @name@_rt_run(&network, state, bytes, input, steps, evidence, class_number);
}

int @name@_check(void)
{
    @name@_rt_network found;
    return @name@_rt_load(&found, @name@_blob, @NAME@_TABLE_BYTES) == @NAME@_OK ? @NAME@_OK
                                                                 : @NAME@_BAD_TABLES;
}

uint32_t @name@_state_crc(const void *state)
{
    return @name@_rt_state_crc(&network, state);
}
