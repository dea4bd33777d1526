"""How neurons step, with what has arrived at them (numba; machine code is cached between runs).

See :mod:`.kernels` for how samples, steps and sums lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.fixedpoint.kernels import find_events
from osbc_deploy.fixedpoint.neuron_lanes import step_neurons
from osbc_deploy.jit import compiled

__all__ = ["BROUGHT_BACK", "TOGETHER", "combine", "neurons", "wide_neurons"]

TOGETHER = 1024
"""Neurons whose states stay in the nearest cache for all steps."""


BROUGHT_BACK = 3
"""Largest current that one wrap brings back, in halves of a register's range."""


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
    events: Any,
) -> bool:
    """Run neurons whose registers hold 32 bits; see the conditions in :mod:`.cells`.

    All stop where a current is beyond what one wrap brings back.

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
    registers : tuple of ndarrays
        Shares of u and v kept (float64, whose products are exact), bias, threshold and drop
        (int32, aligned with the state). Each (n,), or shorter where all neurons have the same.
    state : tuple of two ndarrays of int32 (S, n)
        u and v; changed.
    seen : ndarray of int64 (S, 4)
        Peaks of u and v before wrapping and saturation, wraps, saturations; changed.
    counts : ndarray of int32 (n,)
        Spikes; changed.
    limit : int
        Half the range of a state.
    resets : tuple of int
        Whether a spike subtracts the drop, interval and offset of timed resets.
    spikes : ndarray of uint8 (S, steps, n)
        Written.
    kept : tuple of two ndarrays of int32 (S, steps, n)
        u and v of every step, where they have that shape; otherwise empty.
    events : tuple
        `ptr` and `index` of :func:`.kernels.find_events`; empty if the neurons feed nothing.

    Returns
    -------
    bool
        Whether they stopped.
    """
    samples, steps, held, pitch, begin = where
    count, length, step, start = lines
    subtract, interval, offset = resets
    keeps_u, keeps_v = kept[0].size > 0, kept[1].size > 0
    fires = spikes.reshape(-1)
    # Currents of which nothing is kept are not written down unless somebody wants them.
    stays = keeps_u or bool(registers[0].any())
    for s in range(samples):
        for line in range(count):
            for low in range(line * length, (line + 1) * length, TOGETHER):
                n = min(TOGETHER, (line + 1) * length - low)
                here = slice(low, low + n)
                u, v = state[0][s, here], state[1][s, here]
                some = _registers(registers, low, n, count * length)
                total = counts[here]
                for t in range(steps):
                    if interval and (clock + t) % interval == offset % interval:
                        for j in range(n):
                            u[j] = 0
                            v[j] = 0
                    at = (s * held + t + begin) * pitch + start + line * (step - length) + low
                    to = (s * steps + t) * count * length + low
                    # Numbers that are written out choose the instructions.
                    if stays and subtract:
                        found = step_neurons(
                            1, 1, sums, at, exponent, some, u, v, fires, to, total, n, limit
                        )
                    elif stays:
                        found = step_neurons(
                            1, 0, sums, at, exponent, some, u, v, fires, to, total, n, limit
                        )
                    elif subtract:
                        found = step_neurons(
                            0, 1, sums, at, exponent, some, u, v, fires, to, total, n, limit
                        )
                    else:
                        found = step_neurons(
                            0, 0, sums, at, exponent, some, u, v, fires, to, total, n, limit
                        )
                    seen[s, 0] = max(seen[s, 0], found[0])
                    seen[s, 1] = max(seen[s, 1], found[1])
                    seen[s, 2] += found[2]
                    seen[s, 3] += found[3]
                    if found[0] > BROUGHT_BACK * limit:
                        return True
                    if keeps_u:
                        for j in range(n):
                            kept[0][s, t, low + j] = u[j]
                    if keeps_v:
                        for j in range(n):
                            kept[1][s, t, low + j] = v[j]
    if len(events[0]):
        find_events(spikes, 0, steps, events[0], events[1])
    return False


@compiled
def _registers(registers: Any, low: int, n: int, size: int) -> Any:
    """Return the registers of some neurons of a population."""
    share_u, share_v, bias, threshold, drop = registers
    return (
        _some(share_u, low, n, size),
        _some(share_v, low, n, size),
        _some(bias, low, n, size),
        _some(threshold, low, n, size),
        _some(drop, low, n, size),
    )


@compiled
def _some(values: Any, low: int, n: int, size: int) -> Any:
    return values[low : low + n] if len(values) == size else values[:n]


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
    events: Any,
) -> bool:
    """Run any neurons, in 64 bits; see :func:`neurons`.

    Parameters
    ----------
    a : ndarray of int64 (S, steps, n)
        Activations.
    clock : int
    widths : tuple of int
        Bits of a decay, left shift of an activation, half the range of a state.
    registers, state, seen, counts, resets, spikes, kept, events
        As for :func:`neurons`, registers and states in int64.

    Returns
    -------
    bool
        Whether a current is beyond what one wrap brings back.
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
    if len(events[0]):
        find_events(spikes, 0, steps, events[0], events[1])
    return bool(seen[:, 0].max() > BROUGHT_BACK * limit)
