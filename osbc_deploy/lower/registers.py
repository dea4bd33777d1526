"""What the registers of a population should hold, and what they can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.loihi import effective_bias
from osbc_deploy.fixedpoint.network import FixedConnection, FixedPopulation
from osbc_deploy.model.graph import Population, Projection
from osbc_deploy.plain_text import many

__all__ = [
    "RealRegisters",
    "coarse",
    "doublings",
    "excess",
    "largest_exponent",
    "quantized",
    "real_registers",
    "rounded_away",
    "shares",
]

_ROUNDING = 1e-9
"""Relative; more than what arithmetic in double precision makes of a whole number."""

_COARSE = 0.05
"""Relative rounding of a register from which it is reported."""
_FEW = 3
"""Levels that are listed one by one."""

_MOST = 2.0**64
"""More than any register is exceeded by."""

_INT32_LIMIT = 2**31 - 1
"""Simulators hold activations in 32 bits; no input at all may drive a sum beyond."""


@dataclass(frozen=True, eq=False)
class RealRegisters:
    """What the registers of one population should hold at exponent m = 0, as real numbers."""

    vth: FloatArray
    drop: FloatArray
    subtract: bool
    bias: FloatArray
    u_init: FloatArray
    v_init: FloatArray
    v_scale: FloatArray
    v_offset: FloatArray
    du: IntArray
    dv: IntArray


def real_registers(
    afferents: Sequence[Projection],
    population: Population,
    scale: FloatArray,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> RealRegisters:
    """Return the registers that make a population compute what the float neurons do.

    Parameters
    ----------
    afferents, population
        Of the float network.
    scale : ndarray (n_post or c_out,)
        What a code of 1 stands for.
    formats : NumberFormats
    deviations : list of Deviation
        Appends to this every decay that had to be clipped.
    """
    neuron, dynamics = population.neuron, population.neuron.dynamics()
    per_neuron = _per_neuron(scale, population)
    gain = population.spread(dynamics.gain)
    parameters = neuron.parameters
    rule = neuron.reset_rule()
    subtract = neuron.spiking and rule.kind == "subtract"
    # Potentials count from where a spike leaves them.
    zero = np.zeros(())
    reset = population.spread(zero if subtract else parameters.get("v_reset", zero))
    current = np.zeros(population.size)
    for projection in afferents:
        if projection.connection.bias is not None:
            current = current + _per_neuron(projection.connection.bias, population)
    drive = population.spread(dynamics.drive)
    leak = 1.0 - population.spread(dynamics.decay_v)
    unit = 2.0**formats.state_shift / per_neuron
    if neuron.spiking:
        threshold = population.spread(parameters["v_threshold"])
        vth = (threshold - reset) / (gain * per_neuron)
    else:
        vth = np.full(population.size, np.nan)
    drop = np.zeros(population.size)
    if subtract and rule.amount is not None:
        drop = population.spread(rule.amount) / (gain * per_neuron)
    unity = formats.decay_unity
    du = np.full(population.size, unity - formats.decay_u_offset)
    builds_up = np.zeros(population.size)
    if dynamics.decay_u is not None:
        forgotten = 1.0 - population.spread(dynamics.decay_u)
        builds_up = current = current / np.where(forgotten > 0, forgotten, 1.0)
        du = _register(
            unity * forgotten, formats.decay_u_offset, "du", population, formats, deviations
        )
    dv = _register(unity * leak, 0, "dv", population, formats, deviations)
    return RealRegisters(
        vth=vth,
        drop=drop,
        subtract=subtract,
        bias=unit * (current + (drive - leak * reset) / gain),
        u_init=-unit * builds_up,
        v_init=unit / gain * (population.spread(neuron.v_init) - reset),
        v_scale=gain / unit,
        v_offset=reset,
        du=du,
        dv=dv,
    )


def coarse(wanted: FloatArray) -> BoolArray:
    """Tell which values a register of whole numbers rounds too much to say nothing of it."""
    wanted = np.where(np.isinf(wanted), 0.0, wanted)
    return np.asarray(np.abs(np.rint(wanted) - wanted) > _COARSE * np.abs(wanted))


def rounded_away(
    targets: RealRegisters, population: FixedPopulation, exponent: int, formats: NumberFormats
) -> list[str]:
    """Return a line for each register that lost much of its values to rounding.

    One value is rounded much where others are far larger, and then it hardly matters; so a
    register's values are judged together, by the root mean square of what is lost. What all biases
    of a readout have in common decides no class and does not count.

    Parameters
    ----------
    targets : RealRegisters
    population : FixedPopulation
        With the registers as they are at `exponent`.
    exponent : int
    formats : NumberFormats
    """
    factor = 2.0**exponent
    state, step = formats.state_limit - 1, 1 << formats.bias_exp_min
    lines = []
    for name, target, held, unit, top in (
        (
            "bias",
            targets.bias,
            effective_bias(population.bias_mant, population.bias_exp),
            step,
            formats.bias_mant_max << formats.bias_exp_max,
        ),
        ("reset amount", targets.drop, population.reset_amount, 1, formats.vth_max),
        ("initial current", targets.u_init, population.u_init, 1, state),
        ("initial potential", targets.v_init, population.v_init, 1, state),
    ):
        if not target.any():
            continue
        # Clipping is reported on its own.
        wanted = np.clip(target * factor, -top, top)
        error, values = held - wanted, wanted
        if not population.spiking and population.size > 1:
            error, values = error - error.mean(), values - values.mean()
        size, lost = _root_mean_square(values), _root_mean_square(error)
        if lost <= _COARSE * size or size <= _ROUNDING * np.abs(wanted).max():
            continue
        levels = np.unique(held // unit)
        few = ", ".join(map(str, levels)) if len(levels) <= _FEW else f"{len(levels)} levels"
        what = "" if values is wanted else " of what tells them apart"
        lines.append(
            f"{name} is coarse: {wanted.min() / unit:.3g} to {wanted.max() / unit:.3g} steps of "
            f"{unit} are wanted, the registers hold {few}; {min(lost / size, 1.0):.0%}{what} is "
            "lost to rounding"
        )
    return lines


def _root_mean_square(values: FloatArray) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _register(
    wanted: FloatArray,
    offset: int,
    name: str,
    population: Population,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> IntArray:
    """Round the part of a state that goes in a step, of `decay_unity`, less what the chip adds."""
    value = np.rint(wanted) - offset
    rough = coarse(wanted)
    if rough.any():
        worst = wanted[rough].min()
        deviations.append(
            Deviation(
                "lower",
                population.name,
                f"{name} is coarse in {many(int(rough.sum()), 'neuron')}: {worst:.3g} of "
                f"{formats.decay_unity} parts go in a step, the register holds {np.rint(worst):g}",
            )
        )
    clipped = np.clip(value, 0, formats.decay_max)
    count = int(np.count_nonzero(clipped != value))
    if count:
        deviations.append(
            Deviation(
                "lower",
                population.name,
                f"{name} clipped to 0..{formats.decay_max} in {many(count, 'neuron')} (wanted "
                f"{value.min():g} to {value.max():g})",
            )
        )
    return np.asarray(clipped, np.int64)


def largest_exponent(
    connections: Sequence[tuple[FixedConnection, int, int]],
    targets: RealRegisters,
    population: Population,
    formats: NumberFormats,
    highest: int,
    lowest: int = 0,
) -> int:
    """Return the largest m that thresholds, biases, exponent and 32-bit sums allow.

    Parameters
    ----------
    connections : sequence of (FixedConnection, int, int)
        Plain codes, not yet shifted to where the chip stores them, the exponent of each, and the
        largest that arrives: a payload, or 1.
    targets : RealRegisters
    population : Population
    formats : NumberFormats
    highest : int
        The m that the weight exponents reach.
    lowest : int
        The m that is taken when these allow none.
    """
    bounds = [highest]
    high = 0.0
    if population.neuron.spiking:
        high = max(_finite(targets.vth).max(), _finite(targets.drop).max())
    if high > 0:
        bounds.append(_floor_log2((formats.vth_max + 0.49) / high))
    strongest = np.abs(targets.bias).max()
    if strongest > 0:
        bounds.append(_floor_log2((formats.bias_mant_max << formats.bias_exp_max) / strongest))
    widest = sum(widest_sum(c.weight) * peak << exponent for c, exponent, peak in connections)
    if widest:
        room = (_INT32_LIMIT - formats.state_limit) >> formats.state_shift
        bounds.append(_floor_log2(room / widest))
    return max(lowest, min(bounds))


def excess(targets: RealRegisters, population: Population, formats: NumberFormats) -> IntArray:
    """Return the powers of two by which outputs exceed their registers at m = 0.

    Returns
    -------
    ndarray of int64 (n_post or c_out,)
        0 where they fit; see :func:`shares`.
    """
    return doublings(shares(targets, population, formats).clip(1.0, _MOST))


def doublings(factors: FloatArray) -> IntArray:
    """Return the exponents of the least powers of two that are not below positive factors."""
    mantissa, exponent = np.frexp(factors)
    return np.asarray(exponent - (mantissa == 0.5), np.int64)


def shares(targets: RealRegisters, population: Population, formats: NumberFormats) -> FloatArray:
    """Return how much of its fullest register each output takes at m = 0.

    Potentials that do not fire are compared with each other, so they have one share for all.

    Parameters
    ----------
    targets : RealRegisters
    population : Population
    formats : NumberFormats

    Returns
    -------
    ndarray of float64 (n_post or c_out,)
        Above 1 where it does not fit.
    """
    limits: list[tuple[FloatArray, float]] = [
        (np.abs(targets.bias), formats.bias_mant_max << formats.bias_exp_max),
        (np.abs(targets.u_init), formats.state_limit - 1),
        (np.abs(targets.v_init), formats.state_limit - 1),
    ]
    if population.neuron.spiking:
        top = formats.vth_max + 0.49
        limits += [(_finite(targets.vth), top), (_finite(targets.drop), top)]
    most = np.max([wanted / limit for wanted, limit in limits], axis=0)
    largest: FloatArray = most.reshape(population.shape[0], -1).max(axis=1)
    return largest if population.neuron.spiking else np.full_like(largest, largest.max())


def _finite(wanted: FloatArray) -> FloatArray:
    """Return values with 0 for those that are infinite, which no unit brings into a register."""
    return np.where(np.isfinite(wanted), wanted, 0.0)


def _floor_log2(value: float) -> int:
    """Return the exponent of the largest power of two that is not above a positive number."""
    return math.frexp(value)[1] - 1


def quantized(
    population: Population, targets: RealRegisters, exponent: int, formats: NumberFormats
) -> FixedPopulation:
    """Round the registers at exponent m, into the ranges they have."""
    factor = 2.0**exponent
    if population.neuron.spiking:
        wanted = np.minimum(targets.vth * factor, formats.vth_max + 1.0)
        vth = np.rint(wanted)
        if population.neuron.fires_at_threshold:
            # The chip fires above its threshold only, which matters where potentials can be it: a
            # spike that an identity passes on lands right on a whole number of codes.
            vth -= np.abs(wanted - vth) <= _ROUNDING * vth
        vth = np.clip(vth, 0, formats.vth_max)
    else:
        vth = np.full(population.size, formats.vth_max)
    mantissa, bias_exp = _bias_registers(targets.bias * factor, formats)
    limit = formats.state_limit - 1
    return FixedPopulation(
        name=population.name,
        shape=population.shape,
        du=targets.du,
        dv=targets.dv,
        vth=vth.astype(np.int64),
        bias_mant=mantissa,
        bias_exp=bias_exp,
        u_init=np.clip(np.rint(targets.u_init * factor), -limit, limit).astype(np.int64),
        v_init=np.clip(np.rint(targets.v_init * factor), -limit, limit).astype(np.int64),
        spiking=population.neuron.spiking,
        v_scale=targets.v_scale / factor,
        v_offset=targets.v_offset,
        reset="subtract" if targets.subtract else "zero",
        drop=np.clip(np.rint(targets.drop * factor), 0, formats.vth_max).astype(np.int64),
    )


def _bias_registers(bias: FloatArray, formats: NumberFormats) -> tuple[IntArray, IntArray]:
    """Return mantissa and the smallest exponent that holds each bias."""
    top = formats.bias_mant_max
    least = formats.bias_exp_min
    exponent = np.full(bias.shape, least, np.int64)
    for candidate in range(least + 1, formats.bias_exp_max + 1):
        exponent[np.abs(np.rint(bias / 2.0 ** (candidate - 1))) > top] = candidate
    mantissa = np.clip(np.rint(bias / 2.0**exponent), -top, top).astype(np.int64)
    return mantissa, np.where(mantissa == 0, least, exponent)


def _per_neuron(value: FloatArray, population: Population) -> FloatArray:
    """Repeat a value per output (channel or neuron) to one number per neuron."""
    wide = value.astype(np.float64).reshape((-1,) + (1,) * (len(population.shape) - 1))
    return np.broadcast_to(wide, population.shape).reshape(-1)
