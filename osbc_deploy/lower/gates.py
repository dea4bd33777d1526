r"""Gates in the chip's registers, exact whatever arrives.

No register forgets a potential in one step: with the strongest decay, one part in
:math:`2^{decay\_bits}` of it stays. So a weight of 1 becomes two units of the activation or more,
and the threshold lies half a weight below the sum that fires: what is left over is less than that
half as long as thresholds and inhibition stay within what :func:`gate` refuses. A relay, which
repeats its one input, is the simplest of them. Gates that fire on silence (NOR), or from different
sums, are the same with biases, which move the sums to a threshold of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConnection,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.model.graph import Shape

__all__ = ["Way", "gate"]


@dataclass(frozen=True, eq=False)
class Way:
    """What leads to gates: whole weights, not yet where the chip stores them."""

    name: str
    source: str
    connection: FixedConnection


def gate(
    name: str,
    shape: Shape,
    threshold: FloatArray | int,
    ways: Sequence[Way],
    formats: NumberFormats,
) -> tuple[tuple[FixedProjection, ...], FixedPopulation]:
    """Return gates and what projects to them.

    Parameters
    ----------
    name, shape
        Of the population.
    threshold : int or ndarray
        The least sum that fires; broadcasts to `shape`.
    ways : sequence of Way
    formats : NumberFormats

    Raises
    ------
    UnsupportedModelError
        Where these registers do not make an exact gate of it.
    """
    weights = [way.connection.weight.astype(np.int64) for way in ways]
    largest = max(int(np.abs(w).max(initial=1)) for w in weights)
    width = 1 + largest.bit_length() if largest > 1 else 1
    size = int(np.prod(shape))
    least = np.broadcast_to(np.asarray(threshold, np.int64), shape).reshape(-1)
    lifted = np.zeros_like(least)
    if least.min() < 1 or least.min() < least.max():
        # Cores hold few thresholds, but a bias for each neuron.
        least, lifted = np.ones_like(least), 1 - least
    offenders = _too_wide(name, width, largest, formats)
    if not offenders:
        stored = formats.stored_bits(width)
        shift = formats.weight_shift(stored)
        exponent = max(formats.weight_exp_min, 1 - shift)
        unit = 1 << (shift + exponent)
        whole = unit << formats.state_shift
        bias_exp = min(formats.bias_exp_max, whole.bit_length() - 1)
        offenders = _inexact(name, weights, least, lifted, unit, formats)
        top = (formats.bias_mant_max << bias_exp) // whole
        if (most := int(np.abs(lifted).max())) > top:
            offenders.append(f"{name}: is biased by {most} inputs, the bias holds {top}")
    if offenders:
        raise ChipLimitError(
            "network: gates that the chip's registers do not hold exactly",
            offenders,
            "Pool or mask fewer inputs at a time, in two steps.",
        )
    zero = np.zeros(size, np.int64)
    population = FixedPopulation(
        name,
        shape,
        du=zero + min(formats.decay_max, formats.decay_unity - formats.decay_u_offset),
        dv=zero + formats.decay_max,
        vth=unit * least - unit // 2,
        bias_mant=lifted * whole >> bias_exp,
        bias_exp=np.where(lifted != 0, bias_exp, formats.bias_exp_min),
        u_init=zero,
        v_init=zero,
        spiking=True,
        v_scale=np.full(size, 1.0 / (unit << formats.state_shift)),
        v_offset=np.zeros(size),
    )
    projections = tuple(
        FixedProjection(
            way.name,
            way.source,
            name,
            replace(way.connection, weight=weight << shift),
            stored,
            exponent,
        )
        for way, weight in zip(ways, weights, strict=True)
    )
    return projections, population


def _too_wide(name: str, width: int, largest: int, formats: NumberFormats) -> list[str]:
    widest = formats.weight_bits[-1]
    if width <= widest:
        return []
    return [f"{name}: weights to {largest} need {width} bits, the chip stores {widest}"]


def _inexact(
    name: str,
    weights: Sequence[IntArray],
    least: IntArray,
    lifted: IntArray,
    unit: int,
    formats: NumberFormats,
) -> list[str]:
    """Return why what stays of a step could decide the next one, or a register run over."""
    fan_in = [sum(_most(sign * w) for w in weights) for sign in (1, -1)]
    fan_in[0] += max(0, int(lifted.max()))
    fan_in[1] += max(0, -int(lifted.min()))
    whole = unit << formats.state_shift
    excited, inhibited = (whole * count for count in fan_in)
    # A register that counts from 0 keeps a part of the current, too.
    keeps_current = formats.decay_u_offset == 0
    left = [keeps_current * peak >> formats.decay_bits for peak in (excited, inhibited)]
    highest = int(least.max()) * whole - whole // 2
    above = left[0] + (highest >> formats.decay_bits)
    below = left[1] + (inhibited + left[1] + 1 >> formats.decay_bits)
    lines = []
    if excited + left[0] >= formats.state_limit or inhibited + left[1] >= formats.state_limit:
        top = (formats.state_limit - 1) // whole
        lines.append(f"{name}: sums {max(fan_in)} inputs, the registers hold {top}")
    if above > whole // 2:
        most = (_largest(formats, left[0], whole) + whole // 2) // whole
        lines.append(f"{name}: fires from {int(least.max())} inputs, at most {most} is exact")
    elif highest >> formats.state_shift > formats.vth_max:
        most = (formats.vth_max + unit // 2) // unit
        lines.append(f"{name}: fires from {int(least.max())} inputs, the threshold holds {most}")
    if below >= whole // 2:
        most = (((whole // 2 - left[1]) << formats.decay_bits) - 1) // whole
        lines.append(f"{name}: {fan_in[1]} inputs inhibit, at most {most} is exact")
    return lines


def _largest(formats: NumberFormats, left: int, whole: int) -> int:
    """Return the highest threshold of which no more than half a weight stays."""
    return ((whole // 2 - left + 1) << formats.decay_bits) - 1


def _most(weight: IntArray) -> int:
    """Return the largest sum of a neuron's positive weights."""
    positive = np.maximum(weight, 0).reshape(len(weight), -1)
    return int(positive.sum(axis=1).max(initial=0))
