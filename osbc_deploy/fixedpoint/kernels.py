"""How spikes reach the sums of neurons (numba; machine code is cached between runs).

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

from osbc_deploy.fixedpoint.lanes import (
    LANES,
    SPAN,
    SPANS,
    WIDE,
    add_lanes,
    add_rows,
    add_span,
    put_places,
    put_taps,
)
from osbc_deploy.jit import compiled

__all__ = [
    "cover",
    "find_events",
    "find_values",
    "push_blocks",
    "push_maps",
    "push_rows",
    "push_synapses",
]

_RUNS = 16
"""Runs of weights whose sums are kept in the nearest cache before they are added."""

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
        Added to; longer by :data:`WIDE` than what is read of it.
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
def push_maps(
    ptr: Any, index: Any, value: Any, begin: int, where: Any, source: Any, lists: Any, grid: Any,
    runs: Any, maps: Any, out: Any,
) -> None:  # fmt: skip
    """Multiply weights with whole maps of spikes; see :func:`push_blocks`.

    In a step with few spikes, single weights are added instead. No spike is graded.

    Parameters
    ----------
    source, lists : tuple
        As for :func:`push_synapses`; channels of `out` are first.
    grid : tuple
        Where in `maps` each neuron of the source is counted (int32); rows and columns of a map of
        `out`, places from one row of `maps` to the next, rows and columns that are summed at
        a time, and how many spikes are too few.
    runs : tuple of ndarrays
        Where in `out` a run of weights adds its map and where in the weights it starts (int64);
        how far into `maps` each weight begins, and the weights. No sum of a run leaves 16 bits.
    maps : ndarray of int16
        Zeros, and left as such.
    """
    samples, steps, held, pitch, late = where
    counted, height, width, line, rows, cols, few = grid
    place, start, offset, weight = runs
    tile = np.empty(_RUNS * SPANS * SPAN, np.int16)
    for k in range(samples * steps):
        row = (k // steps * held + k % steps + late) * pitch
        if ptr[k + 1] - ptr[k] < few:
            only = 1, 1, 1, pitch, row // pitch
            push_synapses(ptr[k : k + 2], index, None, begin, only, source, lists, out)
            continue
        for e in range(ptr[k], ptr[k + 1]):
            maps[np.uint64(counted[np.uint64(index[e])])] += np.int16(1)
        for y in range(0, height, rows):
            for x in range(0, width, cols):
                high, wide = min(rows, height - y), min(cols, width - x)
                spans = ((high - 1) * line + wide + SPAN - 1) // SPAN
                at = y * line + x
                for run in range(0, len(place), _RUNS):
                    end = min(run + _RUNS, len(place))
                    for r in range(run, end):
                        to = (r - run) * spans * SPAN
                        put_taps(spans, maps, at, offset, weight, start[r], start[r + 1], tile, to)
                    # What was just written is not read at once: it would have to be waited for.
                    for r in range(run, end):
                        for j in range(high):
                            first = (r - run) * spans * SPAN + j * line
                            here = row + place[r] + (y + j) * width + x
                            add_span(out, here, tile, first, wide)
        for e in range(ptr[k], ptr[k + 1]):
            maps[np.uint64(counted[np.uint64(index[e])])] = np.int16(0)


@compiled
def push_rows(
    ptr: Any, index: Any, value: Any, begin: int, where: Any, row_of: Any, weight: Any, out: Any
) -> None:
    """Add whole rows of weights; see :func:`push_blocks`.

    Parameters
    ----------
    row_of : ndarray of int32 (n_pre,)
        The row of each neuron of the source.
    weight : ndarray (parts, rows, width)
        Rows cut to parts, whose width is a multiple of :data:`WIDE`; a row of zeros is last.
    """
    samples, steps, held, pitch, late = where
    parts, rows, width = weight.shape
    flat = weight.reshape(-1)
    # A part of all rows stays in the cache for all steps.
    for part in range(parts):
        base = part * rows * width
        # The last part may be longer than what `out` has behind a step.
        wide = min(width, pitch - part * width)
        for k in range(samples * steps):
            to = (k // steps * held + k % steps + late) * pitch + part * width
            if value is None:
                for e in range(ptr[k], ptr[k + 1], 8):
                    # Eight at a time: the sums are read and written less often.
                    at = (
                        base + width * _row(row_of, index, e, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 1, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 2, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 3, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 4, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 5, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 6, ptr[k + 1], rows),
                        base + width * _row(row_of, index, e + 7, ptr[k + 1], rows),
                    )
                    for j in range(0, wide, WIDE):
                        add_rows(out, to + j, flat, at, j)
            else:
                for e in range(ptr[k], ptr[k + 1]):
                    factor = value[k // steps, begin + k % steps, index[e]]
                    at_one = base + width * row_of[index[e]]
                    for j in range(wide):
                        out[np.uint64(to + j)] += flat[np.uint64(at_one + j)] * factor


@compiled
def _row(row_of: Any, index: Any, event: int, end: int, rows: int) -> int:
    """Return the row of an event, the last one where there is none."""
    return np.int64(row_of[index[event]]) if event < end else rows - 1


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
