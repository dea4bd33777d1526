"""The inner loops of the compiled engine (numba; machine code is cached between runs).

They compute what :mod:`osbc_deploy.fixedpoint.plain` states, one sample at a time and driven by
events: only spikes cost anything on their way through a projection. All arithmetic is in integers.
The interpreter's lock is not held, so samples run on several threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.jit import compiled

__all__ = [
    "combine",
    "find_events",
    "find_row_events",
    "neurons",
    "push_conv",
    "push_delayed",
    "push_dense",
    "push_sparse",
]


@compiled
def find_events(flat: Any, words: Any, n: int, ptr: Any, index: Any) -> None:
    """List the active neurons of every step.

    Parameters
    ----------
    flat : ndarray of uint8 (T * n,)
        Spikes, step after step.
    words : ndarray of uint64 (T * n // 8,)
        The same memory, so that eight silent neurons are passed over at once.
    n : int
        Neurons.
    ptr : ndarray of int64 (T + 1,)
        Filled in: where the events of each step start.
    index : ndarray of int64 (T * n + 1,)
        Filled in: active neurons, rising within a step.
    """
    count = 0
    step = 0
    end = n
    ptr[0] = 0
    for k in range(len(words)):
        if words[k] == 0:
            continue
        base = 8 * k
        while base >= end:
            step += 1
            ptr[step] = count
            end += n
        for place in range(base, base + 8):
            if place == end:
                step += 1
                ptr[step] = count
                end += n
            # Written always and counted only where it holds: cheaper than a branch.
            index[count] = place - end + n
            count += flat[place] != 0
    for place in range(8 * len(words), len(flat)):
        while place >= end:
            step += 1
            ptr[step] = count
            end += n
        index[count] = place - end + n
        count += flat[place] != 0
    ptr[step + 1 :] = count


@compiled
def find_row_events(row: Any, ptr: Any, index: Any) -> None:
    """List the active neurons of one step, ``row`` (n,); see :func:`find_events`."""
    count = 0
    for j in range(len(row)):
        if row[j] != 0:
            index[count] = j
            count += 1
    ptr[0] = 0
    ptr[1] = count


@compiled
def push_sparse(
    ptr: Any,
    index: Any,
    value: Any,
    first: int,
    latency: int,
    start: Any,
    post: Any,
    weight: Any,
    out: Any,
) -> None:
    """Add the synapses of active neurons to the sums of the neurons they reach.

    Parameters
    ----------
    ptr, index
        Events of the steps from `first` on.
    value : ndarray of int32 (n_pre,) of one step, or (T, n_pre), or None
        What graded spikes carry.
    first, latency : int
        Events of step ``first + k`` arrive at step ``first + k + latency``.
    start : ndarray of int64 (n_pre + 1,)
    post, weight : ndarray (synapses,)
        Synapses by presynaptic neuron.
    out : ndarray (T, n_post)
        Added to.
    """
    for k in range(len(ptr) - 1):
        t = first + k + latency
        if t >= len(out):
            break
        row = out[t]
        for e in range(ptr[k], ptr[k + 1]):
            pre = index[e]
            if value is None:
                for s in range(start[pre], start[pre + 1]):
                    # Unsigned indices spare the test for negative ones, which count from the end.
                    row[np.uint64(post[np.uint64(s)])] += weight[np.uint64(s)]
            else:
                factor = value[first + k, pre]
                for s in range(start[pre], start[pre + 1]):
                    row[np.uint64(post[np.uint64(s)])] += weight[np.uint64(s)] * factor


@compiled
def push_delayed(
    ptr: Any,
    index: Any,
    value: Any,
    first: int,
    latency: int,
    start: Any,
    post: Any,
    weight: Any,
    delay: Any,
    out: Any,
) -> None:
    """Add synapses with a delay each, `delay` (synapses,); see :func:`push_sparse`."""
    for k in range(len(ptr) - 1):
        for e in range(ptr[k], ptr[k + 1]):
            pre = index[e]
            for s in range(start[pre], start[pre + 1]):
                t = first + k + latency + delay[s]
                if t < len(out):
                    if value is None:
                        out[t, post[s]] += weight[s]
                    else:
                        out[t, post[s]] += weight[s] * value[first + k, pre]


@compiled
def push_dense(
    ptr: Any, index: Any, value: Any, first: int, latency: int, rows: Any, out: Any
) -> None:
    """Add whole rows of weights, `rows` (n_pre, n_post); see :func:`push_sparse`."""
    n = rows.shape[1]
    for k in range(len(ptr) - 1):
        t = first + k + latency
        if t >= len(out):
            break
        total = out[t]
        e = ptr[k]
        # Eight at a time: the sums are read and written less often.
        while value is None and e + 8 <= ptr[k + 1]:
            w0, w1, w2, w3 = (
                rows[index[e]],
                rows[index[e + 1]],
                rows[index[e + 2]],
                rows[index[e + 3]],
            )
            w4, w5, w6, w7 = (
                rows[index[e + 4]],
                rows[index[e + 5]],
                rows[index[e + 6]],
                rows[index[e + 7]],
            )
            for j in range(n):
                total[j] += w0[j] + w1[j] + w2[j] + w3[j] + w4[j] + w5[j] + w6[j] + w7[j]
            e += 8
        while e < ptr[k + 1]:
            row = rows[index[e]]
            factor = 1 if value is None else value[first + k, index[e]]
            for j in range(n):
                total[j] += row[j] * factor
            e += 1


@compiled
def push_conv(
    ptr: Any,
    index: Any,
    value: Any,
    first: int,
    latency: int,
    kernel: Any,
    down: Any,
    across: Any,
    sizes: Any,
    out: Any,
) -> None:
    """Add the kernels around active neurons; see :func:`push_sparse`.

    Parameters
    ----------
    kernel : ndarray (c_in, kh, kw * c_out / groups)
        The taps of a row from the last to the first, so that they lie like what they reach.
    down : tuple of ndarrays of int64
        By row of the source: where its entries start; the entries' rows of the result and of the
        kernel.
    across : tuple of ndarrays of int64
        By column of the source: where its entries start; the entries' first places in a row of the
        result (columns and channels), first places in a row of the kernel, and lengths.
    sizes : tuple of int
        Rows and columns of the source, length of a row of the result, and channels of source and
        result in a group.
    out : ndarray (T, rows * columns * c_out)
        Channels last.
    """
    height, width, line, per_group, share = sizes
    row_start, row_out, row_tap = down
    run_start, run_out, run_tap, run_length = across
    for k in range(len(ptr) - 1):
        t = first + k + latency
        if t >= len(out):
            break
        total = out[t]
        for e in range(ptr[k], ptr[k + 1]):
            place = index[e]
            c, y, x = place // (height * width), place // width % height, place % width
            base = c // per_group * share
            factor = 1 if value is None else value[first + k, place]
            for r in range(row_start[y], row_start[y + 1]):
                taps = kernel[c, row_tap[r]]
                start = row_out[r] * line + base
                for q in range(run_start[x], run_start[x + 1]):
                    to, tap = start + run_out[q], run_tap[q]
                    for o in range(run_length[q]):
                        total[np.uint64(to + o)] += taps[np.uint64(tap + o)] * factor


@compiled
def combine(
    partial: Any, begin: int, end: int, exponent: int, wrap: int, channels: int, out: Any
) -> None:
    """Shift sums right, wrap them, bring channels to the front, and add them to `out`.

    Parameters
    ----------
    partial : ndarray (T, n)
        Sums, channels last.
    begin, end : int
        Steps.
    exponent : int
        Places to shift right, 0 or more.
    wrap : int
        Half the range of a wrapping sum; 0 for one that does not wrap.
    channels : int
        1 where the order is the same.
    out : ndarray (T, n)
    """
    places = partial.shape[1] // channels
    for t in range(begin, end):
        for p in range(places):
            for c in range(channels):
                total = np.int64(partial[t, p * channels + c]) >> exponent
                if wrap:
                    total = ((total + wrap) & (2 * wrap - 1)) - wrap
                out[t, c * places + p] += total


@compiled
def neurons(
    a: Any,
    begin: int,
    end: int,
    registers: Any,
    state: Any,
    seen: Any,
    widths: Any,
    resets: Any,
    spikes: Any,
    currents: Any,
    potentials: Any,
) -> None:
    """Run the neurons of a population for the steps from `begin` to `end`.

    Parameters
    ----------
    a : ndarray (T, n)
        Activations.
    begin, end : int
    registers : tuple of five ndarrays of int64 (n,)
        Share of u kept, share of v kept, bias, threshold and drop (aligned with the state).
    state : tuple of two ndarrays of int64 (n,)
        u and v; changed.
    seen : tuple of five ndarrays of int64 (n,)
        Peaks of u and v before wrapping and saturation, wraps, saturations, spikes; changed.
    widths : tuple of int
        Bits of a decay, left shift of an activation, half the range of a state.
    resets : tuple of int
        Whether a spike subtracts the drop, interval and offset of timed resets.
    spikes : ndarray of uint8 (T, n)
        Written.
    currents, potentials : ndarray of int32 (T, n) or None
        Written unless None.
    """
    decay_bits, shift, limit = widths
    subtract, interval, offset = resets
    rounding = (1 << decay_bits) - 1
    kept_u, kept_v, bias, threshold, drop = registers
    u, v = state
    u_peak, v_peak, wraps, saturations, counts = seen
    n = len(u)
    for t in range(begin, end):
        if interval and t % interval == offset % interval:
            u[:] = 0
            v[:] = 0
        row = a[t]
        fires = spikes[t]
        for j in range(n):
            decayed = u[j] * kept_u[j]
            raw_u = (decayed + (rounding & (decayed >> 63)) >> decay_bits) + (
                np.int64(row[j]) << shift
            )
            u_peak[j] = max(u_peak[j], abs(raw_u))
            new_u = raw_u
            if raw_u > limit:
                new_u = raw_u - 2 * limit
            elif raw_u <= -limit:
                new_u = raw_u + 2 * limit
            wraps[j] += raw_u != new_u
            decayed = v[j] * kept_v[j]
            raw_v = (decayed + (rounding & (decayed >> 63)) >> decay_bits) + new_u + bias[j]
            v_peak[j] = max(v_peak[j], abs(raw_v))
            new_v = min(max(raw_v, 1 - limit), limit - 1)
            saturations[j] += raw_v != new_v
            fired = new_v > threshold[j]
            fires[j] = fired
            counts[j] += fired
            u[j] = new_u
            v[j] = (new_v - drop[j] if subtract else 0) if fired else new_v
        if currents is not None:
            for j in range(n):
                currents[t, j] = u[j]
        if potentials is not None:
            for j in range(n):
                potentials[t, j] = v[j]
