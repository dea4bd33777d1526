r"""Lower a compressed network to the chip's integers.

With a weight :math:`w = s_j q` (code q, scale :math:`s_j` of output j) and an exponent m, the
chip's current is :math:`2^{m+6} \sum q = K_j u` with :math:`K_j = 2^{m+6} / s_j`. Measuring the
potential from the reset value, the whole membrane equation is multiplied by
:math:`K_j / g` (g the neuron's gain), so

.. math::

    vth_j = \frac{2^m}{g\, s_j} (v_{threshold} - v_{reset}), \qquad
    bias_j = K_j \left(b_j + \frac{drive - \alpha_v v_{reset}}{g}\right)

and the spikes stay what they were, up to the rounding of thresholds, biases and decays. Larger m
means finer rounding; the largest is taken that keeps every register in range, with headroom over
the peaks that the calibration samples reach.

A bias `b` of the current of a CUBA neuron (decay d) builds up as ``b (1 - d^t) / (1 - d)``. The
chip adds its bias to the membrane, so the neuron gets the end value ``b / (1 - d)`` as bias and
starts with the current ``-b / (1 - d)``, which decays away: the sum is the same at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.network import CompressedNetwork, CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import Activity, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.merge import expand, shifted
from osbc_deploy.fixedpoint.network import (
    FixedConnection,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.registers import (
    RealRegisters,
    largest_exponent,
    quantized,
    real_registers,
)
from osbc_deploy.network.graph import INPUT, Network, Population, Projection, Readout, Shape
from osbc_deploy.network.neurons import LIF
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Lowered", "check_features", "lower", "unmeasured"]

HEADROOM = 1.5
"""Registers must hold this many times the largest value that calibration reaches."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """The result of lowering.

    Attributes
    ----------
    network : FixedPointNetwork
    deviations : tuple of Deviation
        Everything that was clipped, saturated or stored wider than asked.
    activity : dict of Activity
        Of every population on the calibration samples.
    """

    network: FixedPointNetwork
    deviations: tuple[Deviation, ...]
    activity: dict[str, Activity]


def lower(
    compressed: CompressedNetwork,
    calibration: SpikeArray,
    formats: NumberFormats,
    *,
    readout: Readout = "sum",
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> Lowered:
    """Turn a compressed network into integers.

    Parameters
    ----------
    compressed : CompressedNetwork
    calibration : ndarray of uint8 (n, T, *input_shape)
        Samples whose peaks must fit the registers with headroom.
    formats : NumberFormats
        The chip's registers.
    readout : {"sum", "last", "max"}
        How the output's activity over time becomes a class.

    Raises
    ------
    UnsupportedModelError
        When neurons need a feature the chip lacks, all of them listed.
    """
    network = compressed.network
    check_features(network)
    deviations: list[Deviation] = []
    populations, projections = [], []
    activity = {}
    signal, shape = calibration, network.input_shape
    with task(progress, "lower", len(network.populations)):
        for population in network.populations:
            projection = network.incoming(population.name)
            weights = compressed.projections[projection.name]
            fixed_projection, fixed, signal, seen = _lower_population(
                projection, population, weights, signal, shape, formats, batch_size, deviations
            )
            shape = population.shape
            populations.append(fixed)
            projections.append(fixed_projection)
            activity[population.name] = seen
            progress.advance()
    fixed_network = FixedPointNetwork(
        network.input_shape, tuple(populations), tuple(projections), formats, readout
    )
    return Lowered(fixed_network, tuple(deviations), activity)


def check_features(network: Network) -> None:
    """Make sure the chip has what the network's neurons need.

    Raises
    ------
    UnsupportedModelError
        With every offender.
    """
    offenders = []
    for population in network.populations:
        afferents = network.afferents(population.name)
        if len(afferents) > 1:
            names = ", ".join(p.name for p in afferents)
            offenders.append(f"{population.name}: is fed by several projections ({names})")
        neuron = population.neuron
        if isinstance(neuron, LIF) and neuron.reset != "zero":
            offenders.append(
                f"{population.name}: reset by subtraction; the chip's LIF resets to a value"
            )
        if neuron.spiking:
            p = neuron.parameters
            if (p["v_threshold"] < p["v_reset"]).any():
                offenders.append(
                    f"{population.name}: v_threshold lies below v_reset; the chip's "
                    "threshold is not negative"
                )
        dynamics = neuron.dynamics()
        for name, value in (("membrane", dynamics.decay_v), ("synaptic", dynamics.decay_u)):
            if value is not None and ((value < 0) | (value > 1)).any():
                offenders.append(
                    f"{population.name}: the {name} decay per step is outside 0 to 1; "
                    "dt is longer than the time constant"
                )
        biased = any(p.connection.bias is not None for p in afferents)
        if dynamics.decay_u is not None and (dynamics.decay_u == 1).any() and biased:
            offenders.append(
                f"{population.name}: a bias into a synaptic current that never decays "
                "grows without limit"
            )
        if (dynamics.gain <= 0).any():
            offenders.append(f"{population.name}: the membrane takes no input (alpha_v is 0)")
    if offenders:
        raise UnsupportedModelError(
            "network: neurons the chip cannot run",
            offenders,
            "Change the neurons' parameters and train again.",
        )


def unmeasured(
    projection: Projection,
    population: Population,
    weights: CompressedProjection,
    shape: Shape,
    formats: NumberFormats,
) -> tuple[FixedProjection, FixedPopulation]:
    """Return the integers of a layer as they are before calibration looks for headroom.

    Its memory is that of the lowered layer: only the common exponent may still change.
    """
    start = _start(projection, population, weights, shape, formats, [])
    return start.at(start.ceiling)


@dataclass(frozen=True, eq=False)
class _Start:
    """A layer whose exponent is still open."""

    projection: Projection
    population: Population
    connection: FixedConnection
    targets: RealRegisters
    formats: NumberFormats
    stored: int
    shift: int
    ceiling: int

    def at(self, exponent: int) -> tuple[FixedProjection, FixedPopulation]:
        """Return the layer's integers at an exponent."""
        projection = FixedProjection(
            self.projection.name,
            self.projection.pre,
            self.projection.post,
            self.connection,
            self.stored,
            exponent - self.shift,
        )
        return projection, quantized(self.population, self.targets, exponent, self.formats)


def _start(
    projection: Projection,
    population: Population,
    weights: CompressedProjection,
    shape: Shape,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> _Start:
    stored = formats.stored_bits(weights.bits)
    shift = formats.weight_shift(stored)
    plain, divisor = expand(projection, weights.codes, shape)
    connection = shifted(plain, shift)
    targets = real_registers(projection, population, weights.scale / divisor, formats, deviations)
    ceiling = largest_exponent(plain, targets, population, formats, stored)
    return _Start(projection, population, connection, targets, formats, stored, shift, ceiling)


def _lower_population(
    projection: Projection,
    population: Population,
    weights: CompressedProjection,
    signal: SpikeArray,
    shape: Shape,
    formats: NumberFormats,
    batch_size: int,
    deviations: list[Deviation],
) -> tuple[FixedProjection, FixedPopulation, SpikeArray, Activity]:
    start = _start(projection, population, weights, shape, formats, deviations)
    if start.stored != weights.bits:
        deviations.append(
            Deviation(
                "lower",
                projection.name,
                f"{weights.bits}-bit weights are stored in {start.stored} bits on this chip",
            )
        )
    if projection.pool is not None:
        deviations.append(
            Deviation(
                "lower",
                projection.name,
                f"the pooling before it is merged into its weights: {weights.codes.size} weights "
                f"become {start.connection.weight.size}",
            )
        )
    targets = start.targets
    exponent = start.ceiling
    while True:
        fixed_projection, fixed = start.at(exponent)
        spikes, seen = _measure(fixed_projection, fixed, signal, shape, formats, batch_size)
        # The readout's potential must also stay under the largest threshold there is.
        limit = formats.state_limit - (0 if fixed.spiking else 2**formats.state_shift)
        over = max(seen.u_peak, seen.v_peak) * HEADROOM / limit
        floor = max(0, formats.weight_exp_min + start.shift)
        if over <= 1.0 or exponent == floor:
            break
        exponent = max(floor, exponent - max(1, math.ceil(math.log2(over))))
    _note_clipping(population, targets, exponent, over, seen, formats, deviations)
    return fixed_projection, fixed, spikes, seen


def _measure(
    projection: FixedProjection,
    population: FixedPopulation,
    signal: SpikeArray,
    shape: Shape,
    formats: NumberFormats,
    batch_size: int,
) -> tuple[SpikeArray, Activity]:
    """Run one layer on the spikes before it, whatever its registers make of them."""
    alone = FixedPointNetwork(
        shape, (population,), (replace(projection, pre=INPUT),), formats, "sum"
    )
    done = run(
        alone,
        signal.reshape(*signal.shape[:2], *shape),
        record=[population.name],
        batch_size=batch_size,
        strict=False,
    )
    return done.spikes.get(population.name, signal[:0]), done.activity[population.name]


def _note_clipping(
    population: Population,
    targets: RealRegisters,
    exponent: int,
    over: float,
    seen: Activity,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> None:
    factor = 2.0**exponent
    bias_top = formats.bias_mant_max << formats.bias_exp_max
    over_vth = int(np.count_nonzero(targets.vth * factor > formats.vth_max + 0.5))
    over_bias = int(np.count_nonzero(np.abs(targets.bias * factor) > bias_top))
    starts = np.maximum(np.abs(targets.u_init), np.abs(targets.v_init)) * factor
    over_init = int(np.count_nonzero(starts >= formats.state_limit))
    notes = [
        (
            over_vth,
            f"vth clipped to {formats.vth_max} in {over_vth} neurons (wanted up to "
            f"{np.nanmax(targets.vth) * factor:.0f})"
            if over_vth
            else "",
        ),
        (
            over_bias,
            f"bias clipped to {bias_top} in {over_bias} neurons (wanted up to "
            f"{np.abs(targets.bias).max() * factor:.0f})",
        ),
        (over_init, f"initial state clipped in {over_init} neurons"),
        (
            over > 1.0,
            f"the registers hold {HEADROOM / max(over, 1.0):.2f} times the peak of calibration, "
            f"{HEADROOM:g} times is wanted; unusual input may saturate",
        ),
        (seen.wraps, f"the current wrapped {seen.wraps} times in calibration"),
        (seen.saturations, f"the potential saturated {seen.saturations} times in calibration"),
    ]
    deviations.extend(Deviation("lower", population.name, text) for count, text in notes if count)
    if population.neuron.spiking and seen.spikes == 0:
        deviations.append(
            Deviation(
                "lower",
                population.name,
                "no neuron fires in fixed point on the calibration samples",
            )
        )
