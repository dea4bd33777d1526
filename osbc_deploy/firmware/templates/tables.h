/* How the tables of @name@ are described; for @name@.c and @name@_weights.c only. */
#ifndef @NAME@_TABLES_H
#define @NAME@_TABLES_H

#include "@name@.h"

/* Numbers of one to four bytes, each for `repeat` neurons that follow each other (a channel);
 * `bytes` 0 stands for one value for all, which is `value`. */
typedef struct {
    const void *data;
    uint32_t count;
    int32_t value;
    uint32_t repeat;
    uint8_t bytes;
} @name@_table;

enum { @NAME@_SPARSE, @NAME@_DENSE, @NAME@_CONV };

/* Synapses by presynaptic neuron. Codes are signed, of 16, 8, 4 or 2 bits, low bits
 * first.
 *   sparse: `start[pre]` to `start[pre + 1]` number the synapses of a neuron, `post` says where
 *           each leads, `delay` how many steps late;
 *   dense:  the synapses of neuron pre are pre * n_post to (pre + 1) * n_post - 1;
 *   conv:   codes (c_in, kh, kw, c_out / groups).
 * What they add up to is multiplied by 2^shift, then shifted right by `right`, towards minus
 * infinity. `ring` is the number of steps that sums are kept for. */
typedef struct {
    uint8_t kind, code_bits, shift, right, wraps, graded;
    uint32_t pre, post, latency, ring, sums; /* pre: 0 is the input; sums: where in the state */
    @name@_table start, target, delay, code;
    uint32_t height, width, rows, columns, c_in, c_out, kh, kw, groups;
    uint32_t stride[2], padding[2], dilation[2];
} @name@_projection;

typedef struct {
    uint32_t size, state; /* neurons, and where u, v and spikes start */
    uint8_t keeps_u, subtract; /* without a decay to remember, u has no place in the state;
                                  a spike subtracts the threshold and `drop`, or sets v to 0 */
    uint32_t reset_interval, reset_offset;
    @name@_table kept_u, kept_v, bias, threshold, drop, u_init, v_init;
} @name@_population;

extern const @name@_projection @name@_projections[];
extern const @name@_population @name@_populations[];
extern const uint32_t @name@_sizes[]; /* neurons of input and populations */

#endif
