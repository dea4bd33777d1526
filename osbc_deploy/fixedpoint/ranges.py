"""Whether the integers of a network are ones that the chip's registers hold."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Sign,
)

__all__ = ["MAX_DELAY", "faults", "on_grid", "weight_range"]

MAX_DELAY = 62
"""Longest extra delay of a synapse: 6-bit delays count from 1 and 63 is reserved (Davies et al.,
2018, "Loihi: a neuromorphic manycore processor", IEEE Micro 38(1): programmable delays to 62)."""


def weight_range(bits: int, sign: Sign, formats: NumberFormats) -> tuple[int, int, int]:
    """Return the smallest and the largest mantissa that `bits` bits hold, and their distance.

    Mixed signs spend a bit on the sign, so their mantissas lie twice as far apart.
    """
    step = 1 << (formats.weight_mantissa_bits - bits + (sign == "mixed"))
    top = 1 << formats.weight_mantissa_bits
    low = {"mixed": -top, "excitatory": 0, "inhibitory": step - top}[sign]
    high = {"mixed": top - step, "excitatory": top - step, "inhibitory": 0}[sign]
    return low, high, step


def on_grid(weight: IntArray, bits: int, sign: Sign, formats: NumberFormats) -> IntArray:
    """Clip mantissas to their range and truncate them to the grid, as the chip's memory does.

    Truncation is towards minus infinity for mixed signs and towards 0 for one sign (lava-nc 0.10,
    ``weightutils.truncate_weights``).
    """
    _, _, step = weight_range(bits, sign, formats)
    top = 1 << formats.weight_mantissa_bits
    wide = np.asarray(weight, np.int64)
    if sign == "inhibitory":
        return -(np.clip(-wide, 0, top - 1) // step * step)
    return np.clip(wide, -top if sign == "mixed" else 0, top - 1) // step * step


def faults(network: FixedPointNetwork) -> list[str]:
    """Return one line for everything that the chip's registers cannot hold.

    Parameters
    ----------
    network : FixedPointNetwork

    Returns
    -------
    list of str
        Empty when every integer is in its range.
    """
    formats = network.formats
    lines = [line for p in network.populations for line in _population(p, formats)]
    for projection in network.projections:
        lines += _projection(projection, formats)
        if projection.graded and projection.pre != "input":
            lines.append(f"{projection.name}: graded spikes come from the input only")
        elif projection.graded:
            lines += _overflow(projection, network.input.peak)
    return lines


def _overflow(projection: FixedProjection, peak: int) -> list[str]:
    """Return a line where the sum of weights times payloads leaves 32 bits before it is shifted."""
    largest, held = widest_sum(projection.connection.weight) * peak, 2**31 - 1
    if largest <= held:
        return []
    return [
        f"{projection.name}: payloads to {peak:,} times its weights sum up to {largest:,}, allowed "
        f"{held:,}"
    ]


def _population(p: FixedPopulation, formats: NumberFormats) -> list[str]:
    state = formats.state_limit - 1
    bias = 1 << (formats.bias_mant_bits - 1)
    limits = {
        "du": (-formats.decay_u_offset, formats.decay_max),
        # Nothing is added to dv, so a register cannot make it forget everything in one step.
        "dv": (0, formats.decay_max),
        "vth": (0, formats.vth_max),
        "bias_mant": (-bias, bias - 1),
        "bias_exp": (formats.bias_exp_min, formats.bias_exp_max),
        "u_init": (-state, state),
        "v_init": (-state, state),
    }
    if p.drop is not None:
        limits["drop"] = (0, formats.vth_max)
    lines = []
    for name, (low, high) in limits.items():
        values = getattr(p, name)
        if values.shape != (p.size,):
            lines.append(f"{p.name}.{name}: {values.size} values for {p.size} neurons")
        elif values.min(initial=low) < low or values.max(initial=high) > high:
            lines.append(
                f"{p.name}.{name}: {values.min()} to {values.max()}, allowed {low} to {high}"
            )
    if p.reset_interval < 0 or p.reset_offset < 0:
        lines.append(f"{p.name}: reset interval and offset must be 0 or more")
    return lines


def _projection(p: FixedProjection, formats: NumberFormats) -> list[str]:
    lines = []
    if p.weight_bits not in formats.weight_bits:
        allowed = ", ".join(str(b) for b in formats.weight_bits)
        return [f"{p.name}: weights of {p.weight_bits} bits, the chip stores {allowed}"]
    low, high, step = weight_range(p.weight_bits, p.sign, formats)
    weight = p.connection.weight
    if weight.min(initial=0) < low or weight.max(initial=0) > high or (weight % step).any():
        lines.append(
            f"{p.name}: weights {weight.min()} to {weight.max()}, allowed {low} to {high} in "
            f"steps of {step}"
        )
    if not formats.weight_exp_min <= p.weight_exp <= formats.weight_exp_max:
        lines.append(
            f"{p.name}: weight exponent {p.weight_exp}, allowed {formats.weight_exp_min} to "
            f"{formats.weight_exp_max}"
        )
    if p.connection.longest_delay > MAX_DELAY:
        lines.append(f"{p.name}: delay {p.connection.longest_delay}, allowed 0 to {MAX_DELAY}")
    return lines
