"""The inner loop of placement: swaps that may cost something, less and less (compiled).

Threshold accepting (Dueck and Scheuer 1990, J. Comput. Phys. 90, 161): as simulated annealing, but
a swap is taken if it costs less than a threshold that falls to 0. Costs, thresholds and random
numbers are integers, so every machine takes the same swaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.jit import compiled

__all__ = ["anneal"]

_PROBED = 1000
"""Swaps whose mean size is the first threshold."""


@compiled
def _random(state: Any) -> int:
    """Return the next number of xorshift64* (Vigna 2016), 31 bits."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    drawn: int = np.int64((x * np.uint64(2685821657736338717)) >> np.uint64(33))
    return drawn


@compiled
def _change(
    indptr: Any, indices: Any, spikes: Any, at: Any, order: Any, core: int, other: int,
    place: int,
) -> int:  # fmt: skip
    """Return what moving `core` to `place` adds, on whose place `other` goes where it was."""
    added = 0
    here = order[core]
    for turn in range(2):
        moved, skipped = (core, other) if turn == 0 else (other, core)
        if moved < 0:
            continue
        source, target = (here, place) if turn == 0 else (place, here)
        for k in range(indptr[moved], indptr[moved + 1]):
            near = indices[k]
            if near != skipped:
                spot = order[near]
                hops = 0
                for axis in range(len(at)):
                    hops += abs(at[axis, target] - at[axis, spot])
                    hops -= abs(at[axis, source] - at[axis, spot])
                added += spikes[k] * hops
    return added


@compiled
def anneal(
    indptr: Any, indices: Any, spikes: Any, at: Any, nearby: Any, order: Any, holder: Any,
    stages: int, swaps: int, seed: int,
) -> None:  # fmt: skip
    """Swap cores in place.

    Parameters
    ----------
    indptr, indices, spikes : ndarray of int64
        Symmetric spikes between cores, without a diagonal, as CSR.
    at : ndarray of int64 (axes, places)
        Coordinates; the sum of their differences is the hops.
    nearby : ndarray of int64 (places, k)
        Places near each place.
    order : ndarray of int64 (cores,)
        Place of each core, changed to the best found.
    holder : ndarray of int64 (places,)
        Core on each place, or -1; changed.
    stages : int
        Thresholds, each a thirty-second below the one before.
    swaps : int
        Tried at each of them.
    seed : int
        From 1 up.
    """
    count, size = len(order), len(holder)
    state = np.full(1, seed * 2654435769 + 1, np.uint64)
    probed = 0
    for _ in range(_PROBED):
        core, place = _random(state) % count, _random(state) % size
        other = holder[place]
        if other != core:
            change = _change(indptr, indices, spikes, at, order, core, other, place)
            probed += abs(change) // _PROBED
    threshold = probed
    cost = least = 0
    best = order.copy()
    for _ in range(stages):
        for _ in range(swaps):
            core = _random(state) % count
            first, last = indptr[core], indptr[core + 1]
            if first == last:
                continue
            draw = _random(state)
            if draw & 1:
                # Beside one of those it talks to.
                friend = indices[first + (draw >> 1) % (last - first)]
                place = nearby[order[friend], _random(state) % nearby.shape[1]]
            else:
                place = (draw >> 1) % size
            other = holder[place]
            if other == core:
                continue
            change = _change(indptr, indices, spikes, at, order, core, other, place)
            if change < threshold or change <= 0:
                here = order[core]
                holder[place], holder[here] = core, other
                order[core] = place
                if other >= 0:
                    order[other] = here
                cost += change
        if cost < least:
            least = cost
            best[:] = order
        threshold -= threshold // 32
        if threshold < 32:
            threshold = 0
    order[:] = best
