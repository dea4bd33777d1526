"""The inner loops of the compiled engine (numba; machine code is cached between runs).

They compute what :mod:`osbc_deploy.fixedpoint.plain` states, driven by events: only spikes cost
anything on their way through a projection. All arithmetic is exact. The interpreter's lock is not
held, so samples run on several threads.

Some samples go side by side for some steps: `S` samples, `steps` steps. What has arrived at a
population lies in one flat array of sums, sample after sample, step after step; a step takes
`pitch` places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.fixedpoint.lanes import LANES, add_lanes, put_places
from osbc_deploy.jit import compiled

__all__ = [
    "LANES",
    "combine",
    "cover",
    "find_events",
    "find_values",
    "neurons",
    "push_blocks",
    "push_rows",
    "push_synapses",
    "wide_neurons",
]

_ROWS = 8
_STRETCH = 256
"""Sums that rows of weights are added to at a time: what is read of them stays in the cache."""

_TOGETHER = 512
"""Neurons whose states stay in the nearest cache for all steps."""

_GATHER = np.uint64(0x0102040810204080)
"""Brings the lowest bits of eight bytes together in the highest byte of a product."""

_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1
_COUNTS = _BITS.sum(axis=1)
_PLACES = np.argsort(1 - _BITS, axis=1, kind="stable").astype(np.uint8).ravel()
"""Where the bits of a byte are set, those first."""


@compiled
def find_events(spikes: Any, begin: int, end: int, ptr: Any, index: Any) -> None:
    """List the active neurons of every sample and step.

    Parameters
    ----------
    spikes : ndarray of uint8 (S, T, n)
        0 or 1.
    begin, end : int
        Steps.
    ptr : ndarray of int64 (S * steps + 1,)
        Filled in: where the events of each step start.
    index : ndarray of int32 (S * steps * n + 8,)
        Filled in: active neurons, rising within a step.
    """
    samples, _, n = spikes.shape
    whole = n // 8 * 8
    count = 0
    k = 0
    ptr[0] = 0
    for s in range(samples):
        for t in range(begin, end):
            row = spikes[s, t]
            words = row[:whole].view(np.uint64)
            for w in range(len(words)):
                # All eight are written, and counted only where they hold: no branch to guess.
                mask = np.int64((words[w] * _GATHER) >> np.uint64(56))
                put_places(index, count, _PLACES, 8 * mask, np.int32(8 * w))
                count += _COUNTS[mask]
            for j in range(whole, n):
                index[count] = j
                count += row[j] != 0
            k += 1
            ptr[k] = count


@compiled
def find_values(values: Any, begin: int, end: int, ptr: Any, index: Any) -> None:
    """List where graded input, `values` (S, T, n) of int32, is not 0; see :func:`find_events`."""
    samples, _, n = values.shape
    count = 0
    k = 0
    ptr[0] = 0
    for s in range(samples):
        for t in range(begin, end):
            for j in range(n):
                index[count] = j
                count += values[s, t, j] != 0
            k += 1
            ptr[k] = count


@compiled
def push_blocks(
    ptr: Any, index: Any, value: Any, begin: int, where: Any, source: Any, lists: Any, out: Any
) -> None:
    """Add the weights of active neurons, :data:`LANES` side by side, to the sums they reach.

    Parameters
    ----------
    ptr, index
        Events of the steps from `begin` on.
    value : ndarray of int32 (S, T, n_pre) or None
        What graded spikes carry.
    begin : int
    where : tuple of int
        S, steps, steps that `out` holds of each sample, pitch, steps after which spikes arrive.
    source : tuple
        Channels and places of the source, whether its channels are last; for each place the
        first list of its kind, and where it begins in a step of `out`.
    lists : tuple of ndarrays
        For each list its first block and its end; for each block how far behind the place's
        beginning it lies, and its weights.
    out : ndarray
        Added to; longer by :data:`LANES` than what is read of it.
    """
    samples, steps, held, pitch, late = where
    channels, places, last, kinds, starts = source
    first, stop, offset, weight = lists
    for k in range(samples * steps):
        row = (k // steps * held + k % steps + late) * pitch
        for e in range(ptr[k], ptr[k + 1]):
            pre = np.uint32(index[e])
            place, channel = _split(pre, channels, places, last)
            to = row + starts[place]
            which = kinds[place] + channel
            if value is None:
                # Unsigned indices spare the test for negative ones, which count from the end.
                for b in range(np.uint64(first[which]), np.uint64(stop[which])):
                    add_lanes(out, to + offset[b], weight, np.uint64(LANES) * b)
            else:
                factor = value[k // steps, begin + k % steps, pre]
                for b in range(first[which], stop[which]):
                    o, w = to + offset[b], LANES * b
                    for q in range(LANES):
                        out[np.uint64(o + q)] += weight[np.uint64(w + q)] * factor


@compiled
def push_synapses(
    ptr: Any, index: Any, value: Any, begin: int, where: Any, source: Any, lists: Any, out: Any
) -> None:
    """Add single weights, where few lie side by side; see :func:`push_blocks`."""
    samples, steps, held, pitch, late = where
    channels, places, last, kinds, starts = source
    first, stop, offset, weight = lists
    for k in range(samples * steps):
        row = (k // steps * held + k % steps + late) * pitch
        for e in range(ptr[k], ptr[k + 1]):
            pre = np.uint32(index[e])
            place, channel = _split(pre, channels, places, last)
            to = row + starts[place]
            which = kinds[place] + channel
            if value is None:
                for b in range(np.uint64(first[which]), np.uint64(stop[which])):
                    out[np.uint64(to + offset[b])] += weight[b]
            else:
                factor = value[k // steps, begin + k % steps, pre]
                for b in range(first[which], stop[which]):
                    out[np.uint64(to + offset[b])] += weight[np.uint64(b)] * factor


@compiled
def push_rows(
    ptr: Any, index: Any, value: Any, begin: int, where: Any, row_of: Any, weight: Any, eight: Any,
    out: Any,
) -> None:  # fmt: skip
    """Add whole rows of weights, `weight` (rows, pitch); see :func:`push_blocks`.

    Parameters
    ----------
    row_of : ndarray of int32 (n_pre,)
        The row of each neuron of the source.
    eight : ndarray
        Of the type that holds sums of eight weights.
    """
    samples, steps, held, pitch, late = where
    flat = weight.reshape(-1)
    kind = eight.dtype.type
    for low in range(0, pitch, _STRETCH):
        high = min(low + _STRETCH, pitch)
        for k in range(samples * steps):
            to = (k // steps * held + k % steps + late) * pitch
            e, end = ptr[k], ptr[k + 1]
            while value is None and e + _ROWS <= end:
                # Eight at a time: the sums are read and written less often.
                r0, r1, r2, r3 = (
                    pitch * row_of[index[e]],
                    pitch * row_of[index[e + 1]],
                    pitch * row_of[index[e + 2]],
                    pitch * row_of[index[e + 3]],
                )
                r4, r5, r6, r7 = (
                    pitch * row_of[index[e + 4]],
                    pitch * row_of[index[e + 5]],
                    pitch * row_of[index[e + 6]],
                    pitch * row_of[index[e + 7]],
                )
                for j in range(low, high):
                    out[np.uint64(to + j)] += kind(
                        flat[np.uint64(r0 + j)]
                        + flat[np.uint64(r1 + j)]
                        + flat[np.uint64(r2 + j)]
                        + flat[np.uint64(r3 + j)]
                        + flat[np.uint64(r4 + j)]
                        + flat[np.uint64(r5 + j)]
                        + flat[np.uint64(r6 + j)]
                        + flat[np.uint64(r7 + j)]
                    )
                e += _ROWS
            while e < end:
                pre = index[e]
                at = pitch * row_of[pre]
                if value is None:
                    for j in range(low, high):
                        out[np.uint64(to + j)] += flat[np.uint64(at + j)]
                else:
                    factor = value[k // steps, begin + k % steps, pre]
                    for j in range(low, high):
                        out[np.uint64(to + j)] += flat[np.uint64(at + j)] * factor
                e += 1


@compiled
def combine(
    sums: Any, where: Any, lines: Any, exponent: int, wrap: int, first: bool, out: Any
) -> None:
    """Shift sums, wrap them, bring them to `out` and set them to 0.

    Parameters
    ----------
    sums : ndarray
    where : tuple of int
        S, steps, steps that `sums` holds of each sample, pitch, the first step.
    lines : tuple of int
        Lines that are read of a step, their lengths, from one to the next, and where the first
        begins.
    exponent : int
        Places to shift left, or right where it is negative.
    wrap : int
        Half the range of a wrapping sum; 0 for one that does not wrap.
    first : bool
        Write rather than add.
    out : ndarray (S * steps, lines * length)
    """
    samples, steps, held, pitch, begin = where
    count, length, step, start = lines
    left, right = max(exponent, 0), max(-exponent, 0)
    for k in range(samples * steps):
        for line in range(count):
            row = (k // steps * held + k % steps + begin) * pitch + start + line * step
            to = line * length
            for j in range(length):
                total = np.int64(sums[np.uint64(row + j)]) >> right << left
                if wrap:
                    total = ((total + wrap) & (2 * wrap - 1)) - wrap
                if first:
                    out[k, to + j] = total
                else:
                    out[k, to + j] += total
            sums[row : row + length] = 0


@compiled
def _wrap(u: Any, limit: int) -> int:
    """Wrap currents into ``(-limit, limit]`` once; return how many were beyond."""
    count = 0
    for j in range(len(u)):
        if u[j] > limit or u[j] <= -limit:
            u[j] += -2 * limit if u[j] > 0 else 2 * limit
            count += 1
    return count


@compiled
def _saturate(v: Any, limit: int) -> int:
    """Clip potentials to less than `limit`; return how many were beyond."""
    count = 0
    for j in range(len(v)):
        if abs(v[j]) >= limit:
            v[j] = limit - 1 if v[j] > 0 else 1 - limit
            count += 1
    return count


@compiled
def neurons(
    sums: Any,
    where: Any,
    lines: Any,
    exponent: int,
    clock: int,
    registers: Any,
    state: Any,
    seen: Any,
    counts: Any,
    limit: int,
    resets: Any,
    spikes: Any,
    kept: Any,
) -> None:
    """Run neurons whose registers hold 32 bits; see the conditions in :mod:`.compiled`.

    A sample stops where a current is beyond what one wrap brings back.

    Parameters
    ----------
    sums : ndarray
        Activations; set to 0.
    where, lines
        As for :func:`combine`.
    exponent : int
        Places to shift activations left, so that they are aligned with the state.
    clock : int
        Steps since the sample began.
    registers : tuple of ndarrays (n,)
        Shares of u and v kept (float64, whose products are exact), bias, threshold and drop
        (int32, aligned with the state).
    state : tuple of two ndarrays of int32 (S, n)
        u and v; changed.
    seen : ndarray of int64 (S, 4)
        Peaks of u and v before wrapping and saturation, wraps, saturations; changed.
    counts : ndarray of int64 (n,)
        Spikes; changed.
    limit : int
        Half the range of a state.
    resets : tuple of int
        Whether a spike subtracts the drop, interval and offset of timed resets.
    spikes : ndarray of uint8 (S, steps, n)
        Written.
    kept : tuple of two ndarrays of int32 (S, steps, n)
        u and v of every step, where they have that shape; otherwise empty.
    """
    samples, steps, held, pitch, begin = where
    count, length, step, start = lines
    share_u, share_v, bias, threshold, drop = registers
    subtract, interval, offset = resets
    keeps_u, keeps_v = kept[0].size > 0, kept[1].size > 0
    kind = np.int32
    places = exponent & 31
    for s in range(samples):
        for line in range(count):
            for low in range(line * length, (line + 1) * length, _TOGETHER):
                n = min(_TOGETHER, (line + 1) * length - low)
                here = slice(low, low + n)
                u, v = state[0][s, here], state[1][s, here]
                ku, kv, b = share_u[here], share_v[here], bias[here]
                top, less = threshold[here], drop[here]
                total = counts[here]
                for t in range(steps):
                    if interval and (clock + t) % interval == offset % interval:
                        u[:] = 0
                        v[:] = 0
                    at = (s * held + t + begin) * pitch + start + line * (step - length) + low
                    row = sums[at : at + n]
                    fires = spikes[s, t, here]
                    # One loop for all would not be vectorized: too many arrays may overlap.
                    peak = kind(0)
                    for j in range(n):
                        # The share is a multiple of a power of two, so the product is exact; it
                        # is rounded towards zero.
                        raw = kind(kind(u[j] * ku[j]) + kind(kind(row[j]) << places))
                        u[j] = raw
                        peak = max(peak, kind(abs(raw)))
                    row[:] = 0
                    seen[s, 0] = max(seen[s, 0], peak)
                    if peak >= limit:
                        if peak > 3 * limit:
                            return
                        seen[s, 2] += _wrap(u, limit)
                    peak = kind(0)
                    for j in range(n):
                        raw = kind(kind(kind(v[j] * kv[j]) + u[j]) + b[j])
                        v[j] = raw
                        peak = max(peak, kind(abs(raw)))
                    seen[s, 1] = max(seen[s, 1], peak)
                    if peak >= limit:
                        seen[s, 3] += _saturate(v, limit)
                    if subtract:
                        for j in range(n):
                            fired = v[j] > top[j]
                            fires[j] = fired
                            v[j] = kind(v[j] - less[j]) if fired else v[j]
                    else:
                        for j in range(n):
                            fired = v[j] > top[j]
                            fires[j] = fired
                            v[j] = kind(0) if fired else v[j]
                    for j in range(n):
                        total[j] += fires[j]
                    if keeps_u:
                        kept[0][s, t, here] = u
                    if keeps_v:
                        kept[1][s, t, here] = v


@compiled
def wide_neurons(
    a: Any,
    clock: int,
    widths: Any,
    registers: Any,
    state: Any,
    seen: Any,
    counts: Any,
    resets: Any,
    spikes: Any,
    kept: Any,
) -> None:
    """Run any neurons, in 64 bits; see :func:`neurons`.

    Parameters
    ----------
    a : ndarray of int64 (S, steps, n)
        Activations.
    clock : int
    widths : tuple of int
        Bits of a decay, left shift of an activation, half the range of a state.
    registers, state, seen, counts, resets, spikes, kept
        As for :func:`neurons`, registers and states in int64.
    """
    decay_bits, shift, limit = widths
    subtract, interval, offset = resets
    rounding = (1 << decay_bits) - 1
    kept_u, kept_v, bias, threshold, drop = registers
    keeps_u, keeps_v = kept[0].size > 0, kept[1].size > 0
    samples, steps, n = a.shape
    for s in range(samples):
        u, v = state[0][s], state[1][s]
        for t in range(steps):
            if interval and (clock + t) % interval == offset % interval:
                u[:] = 0
                v[:] = 0
            for j in range(n):
                decayed = u[j] * kept_u[j]
                raw_u = (decayed + (rounding & (decayed >> 63)) >> decay_bits) + (
                    a[s, t, j] << shift
                )
                seen[s, 0] = max(seen[s, 0], abs(raw_u))
                new_u = raw_u
                if raw_u > limit:
                    new_u = raw_u - 2 * limit
                elif raw_u <= -limit:
                    new_u = raw_u + 2 * limit
                seen[s, 2] += raw_u != new_u
                decayed = v[j] * kept_v[j]
                raw_v = (decayed + (rounding & (decayed >> 63)) >> decay_bits) + new_u + bias[j]
                seen[s, 1] = max(seen[s, 1], abs(raw_v))
                new_v = min(max(raw_v, 1 - limit), limit - 1)
                seen[s, 3] += raw_v != new_v
                fired = new_v > threshold[j]
                spikes[s, t, j] = fired
                counts[j] += fired
                u[j] = new_u
                v[j] = (new_v - drop[j] if subtract else 0) if fired else new_v
                if keeps_u:
                    kept[0][s, t, j] = u[j]
                if keeps_v:
                    kept[1][s, t, j] = v[j]


@compiled
def _split(pre: Any, channels: int, places: int, last: bool) -> tuple[Any, Any]:
    """Return the place and the channel of a neuron."""
    if places == 1:
        return np.int64(0), np.int64(pre)
    if last:
        return np.int64(pre // np.uint32(channels)), np.int64(pre % np.uint32(channels))
    return np.int64(pre % np.uint32(places)), np.int64(pre // np.uint32(places))


@compiled
def cover(start: Any, offset: Any, weight: Any, first: Any, place: Any, blocks: Any) -> int:
    """Cover lists of weights with as few blocks of :data:`LANES` as there can be.

    Parameters
    ----------
    start : ndarray of int64 (lists + 1,)
        Where each list starts.
    offset, weight : ndarray
        Weights that are not 0, by rising offset in a list.
    first : ndarray of int64 (lists + 1,)
        Filled in: first block of each list.
    place : ndarray of int32
        Filled in: offset of each block; as many as weights at most.
    blocks : ndarray (.., LANES)
        Filled in: their weights; zero before. Empty to count only.

    Returns
    -------
    int
        Number of blocks.
    """
    count = 0
    for k in range(len(start) - 1):
        first[k] = count
        begin = np.int64(0)
        for e in range(start[k], start[k + 1]):
            if e == start[k] or offset[e] >= begin + LANES:
                begin = np.int64(offset[e])
                if len(place):
                    place[count] = begin
                count += 1
            if len(place):
                blocks[count - 1, offset[e] - begin] = weight[e]
    first[len(start) - 1] = count
    return count
