r"""Lower a compressed network to the integers of Loihi's arithmetic.

With a weight :math:`w = s_j q` (code q, scale :math:`s_j` of output j) and an exponent m, the
chip's current is :math:`2^{m+6} \sum q = K_j u` with :math:`K_j = 2^{m+6} / s_j`. Measuring the
potential from the reset value, the whole membrane equation is multiplied by
:math:`K_j / g` (g the neuron's gain), so

.. math::

    vth_j = \frac{2^m}{g\, s_j} (v_{threshold} - v_{reset}), \qquad
    bias_j = K_j \left(b_j + \frac{drive - \alpha_v v_{reset}}{g}\right)

and the spikes stay what they were, up to the rounding of thresholds, biases and decays. Larger m
means finer rounding; the largest is taken that keeps every register in range, with headroom over
the peaks that the calibration samples reach. Where an output's :math:`s_j` is so small that its
registers exceed their range at m = 0, its codes are rounded to a larger one.

A bias `b` of the current of a CUBA neuron (decay d) builds up as ``b (1 - d^t) / (1 - d)``. The
chip adds its bias to the membrane, so the neuron gets the end value ``b / (1 - d)`` as bias and
starts with the current ``-b / (1 - d)``, which decays away: the sum is the same at every step.

Several projections into one population share the scale of its potential. Where poolings before
them divide by different numbers, the codes take up the difference, as an exponent if it is a power
of two. A reset by subtraction measures the potential from 0 and takes its amount in the unit of
the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, SpikeArray
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.data.samples import kind_of
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.arithmetics import Lowering
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import Activity, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation, FixedProjection
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.lower.coding import (
    check_graded,
    input_format,
    payload,
)
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.features import check_features
from osbc_deploy.lower.lowering import HEADROOM, Lowered
from osbc_deploy.lower.registers import RealRegisters, coarse, rounded_away
from osbc_deploy.lower.scaling import LoweredLayer, gates, scaling
from osbc_deploy.lower.sharing import Sharing
from osbc_deploy.lower.timing import Timing, relays, timing
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.options.notation import Readout
from osbc_deploy.plain_text import many
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["LOWERING", "lower", "unmeasured"]

_WIDEST = 31
"""Bits of a state that the engine computes with, at most."""
_MARGIN = 1.0 + 2.0**-6
"""Beyond what is needed, as rounding moves peaks."""


def lower(
    compressed: CompressedNetwork,
    calibration: InputArray,
    formats: NumberFormats,
    *,
    input: InputFormat | None = None,  # noqa: A002 - as a network calls it
    counted: Collection[str] = (),
    readout: Readout = "sum",
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> Lowered:
    """Turn a compressed network into integers; see :func:`.lowering.lower`."""
    apart = kept_apart(compressed.network, counted)
    network, weights = apart.network, apart.weights(compressed.projections)
    check_features(network)
    coding, notes = _coding(network, calibration, input)
    times = timing(network)
    sharing = Sharing(network, weights, calibration, coding, formats)
    while True:
        growing = _Growing(network, times, calibration, sharing, formats, readout, batch_size)
        growing.deviations += [Deviation("lower", INPUT, note) for note in notes]
        growing.deviations += sharing.notes()
        growing.deviations += [Deviation("lower", *said) for said in apart.notes()]
        growing.deviations += [
            Deviation(
                "lower",
                name,
                f"the host shows it the input {many(late, 'step')} later, as it skips populations",
            )
            for name, late in times.shown.items()
        ]
        try:
            with task(progress, "lower", len(network.populations)):
                for block in network.blocks():
                    growing.add(block, sharing.weights)
                    progress.advance(len(block))
        except _TooFineError as error:
            sharing.more(*error.args)
        else:
            return growing.finished()


def unmeasured(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    times: Timing,
    formats: NumberFormats,
) -> LoweredLayer:
    """Return a layer before calibration; see :func:`.lowering.unmeasured`.

    Only the common exponent may still change.
    """
    start = scaling(network, population, weights, times, formats, [])
    return start.at(start.ceiling)


def _coding(
    network: Network, calibration: InputArray, asked: InputFormat | None
) -> tuple[InputFormat, list[str]]:
    """Return what the input carries, its scale found."""
    if asked is None:
        low, high = calibration.min(initial=0), calibration.max(initial=0)
        asked = payload(kind_of(calibration), low, high)
    if asked.graded:
        check_graded(network)
    return input_format(network, calibration, asked)


class _TooFineError(Exception):
    """The registers of a population are too narrow for an input as fine as this."""


class _Growing:
    """The network lowered so far, and what its populations fire on the calibration samples."""

    def __init__(
        self,
        network: Network,
        times: Timing,
        calibration: InputArray,
        sharing: Sharing,
        formats: NumberFormats,
        readout: Readout,
        batch_size: int,
    ) -> None:
        self.source, self.times, self.formats = network, times, formats
        self.sharing, self.coding = sharing, sharing.coding
        self.calibration = self.coding.codes(calibration)
        self.readout, self.batch_size = readout, batch_size
        self.populations: list[FixedPopulation] = []
        self.projections: list[FixedProjection] = []
        self.spikes: dict[str, SpikeArray] = {}
        self.activity: dict[str, Activity] = {}
        self.deviations: list[Deviation] = []
        # Spikes of a population may reach a convolution later than its neighbors.
        self.relays = times.relays_of(network)

    def add(self, block: Sequence[Population], weights: Mapping[str, CompressedProjection]) -> None:
        """Lower populations that feed back to each other, or one that does not."""
        names = [p.name for p in block]
        if any(self.relays.get(name) for name in names) and len(block) > 1:
            raise ChipLimitError(
                "network: a convolution skips populations within a loop",
                [name for name in names if self.relays.get(name)],
                "Use a linear layer there, which the chip can delay.",
            )
        exact = [gates(self.source, p, self.times, self.formats) for p in block if p.neuron.exact]
        starts = [
            scaling(
                self.source, p, weights, self.times, self.formats, self.deviations, self.coding,
                longer=self.sharing.room(p.name),
            )
            for p in block
            if not p.neuron.exact
        ]  # fmt: skip
        exponents = [start.ceiling for start in starts]
        while True:
            fixed = [s.at(m) for s, m in zip(starts, exponents, strict=True)]
            whole = sorted([*fixed, *exact], key=lambda layer: names.index(layer[1].name))
            spikes, seen = self._measure(whole)
            over = [self._over(population, seen[population.name]) for _, population in fixed]
            lower = [
                max(s.floor, m - max(1, _ceil_log2(o))) if o > 1.0 else m
                for s, m, o in zip(starts, exponents, over, strict=True)
            ]
            if lower == exponents:
                break
            exponents = lower
        for start, m, o in zip(starts, exponents, over, strict=True):
            lacking = max(2.0**start.lacking, o * _MARGIN if m == start.floor and o > 1.0 else 1.0)
            name = start.population.name
            if lacking > 1.0 and self.sharing.room(name):
                each = np.maximum(2.0**start.lacking, self._over_each(name, whole) * _MARGIN)
                raise _TooFineError(name, each if (each > 1.0).any() else lacking + 0.0 * each)
        for start, m, o, (_, lowered) in zip(starts, exponents, over, fixed, strict=True):
            population = start.population
            self.deviations += [
                Deviation("lower", population.name, line)
                for line in rounded_away(start.targets, lowered, m, self.formats)
            ]
            _note_clipping(
                population, start.targets, m, o, seen[population.name], self.formats,
                self.deviations,
            )  # fmt: skip
            if population.neuron.spiking and (differs := population.neuron.reset_rule().differs):
                self.deviations.append(Deviation("lower", population.name, differs))
        for _, gated in exact:
            text = f"{gated.size} gates, exact, whose weights stay as they are"
            self.deviations.append(Deviation("lower", gated.name, text))
        self._keep(whole, spikes, seen)
        for population in block:
            self._repeat(population.name)

    def finished(self) -> Lowered:
        """Return everything, checked."""
        network = self._network([])
        if wrong := faults(network):
            remedy = "Ask for fewer --input-bits, or for fewer bits." if self.coding.graded else ""
            raise ChipLimitError(
                "network: integers the chip's registers cannot hold", wrong, remedy
            )
        return Lowered(network, tuple(self.deviations), self.activity)

    def _network(self, more: Sequence[LoweredLayer]) -> FixedPointNetwork:
        populations = [*self.populations, *(population for _, population in more)]
        projections = [*self.projections, *(p for found, _ in more for p in found)]
        return FixedPointNetwork(
            self.source.input_shape,
            tuple(populations),
            tuple(projections),
            self.formats,
            self.readout,
            self.coding,
        )

    def _measure(
        self, more: Sequence[LoweredLayer]
    ) -> tuple[Mapping[str, SpikeArray], Mapping[str, Activity]]:
        """Run the newest populations on what the others fire, whatever registers make of it."""
        done = run(
            self._network(more),
            self.calibration,
            record=[population.name for _, population in more],
            given=self.spikes,
            batch_size=self.batch_size,
            strict=False,
        )
        return done.spikes, done.activity

    def _over(self, population: FixedPopulation, seen: Activity) -> float:
        """Return the peaks with headroom over what the registers hold."""
        return max(seen.u_peak, seen.v_peak) * HEADROOM / self._most(population)

    def _over_each(self, name: str, more: Sequence[LoweredLayer]) -> FloatArray:
        """Return the same of each output (n_post or c_out,), in registers that cut nothing off."""
        network = self._network(more)
        (population,) = [p for p in network.populations if p.name == name]
        wide = replace(network, formats=replace(self.formats, state_bits=_WIDEST))
        peaks = np.zeros(population.size)
        for start in range(0, len(self.calibration), self.batch_size):
            part = slice(start, start + self.batch_size)
            given = {source: fired[part] for source, fired in self.spikes.items()}
            done = run(wide, self.calibration[part], states=[name], given=given, strict=False)
            for state in (done.u[name], done.v[name]):
                peaks = np.maximum(peaks, np.abs(state.astype(np.int64)).max(axis=(0, 1)))
        outputs = peaks.reshape(population.shape[0], -1).max(axis=1)
        return np.asarray(outputs * HEADROOM / self._most(population))

    def _most(self, population: FixedPopulation) -> int:
        """Return the largest state that a population may reach."""
        # A readout must also stay at or under the largest threshold there is, whatever wider
        # registers hold, or it would fire and be reset.
        threshold = self.formats.vth_max << self.formats.state_shift
        return self.formats.state_limit if population.spiking else threshold

    def _keep(
        self,
        found: Sequence[LoweredLayer],
        spikes: Mapping[str, SpikeArray],
        seen: Mapping[str, Activity],
    ) -> None:
        for projections, population in found:
            self.populations.append(population)
            self.projections.extend(projections)
            self.spikes |= {k: v for k, v in spikes.items() if k == population.name}
            self.activity[population.name] = seen[population.name]

    def _repeat(self, name: str) -> None:
        """Add the relays of a population."""
        count = self.relays.get(name, 0)
        if not count:
            return
        for projection, population in relays(self.source, name, count, self.formats):
            found = [((projection,), population)]
            self._keep(found, *self._measure(found))
        self.deviations.append(
            Deviation(
                "lower",
                name,
                f"its spikes are repeated by {many(count, 'relay population')} of "
                f"{many(population.size, 'neuron')} for convolutions that skip populations",
            )
        )


def _ceil_log2(value: float) -> int:
    """Return the exponent of the least power of two that is not below a positive number."""
    mantissa, exponent = math.frexp(value)
    return exponent - (mantissa == 0.5)


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
    over_drop = int(np.count_nonzero(targets.drop * factor > formats.vth_max + 0.5))
    rough = (targets.vth * factor)[coarse(targets.vth * factor)]
    over_bias = int(np.count_nonzero(np.abs(targets.bias * factor) > bias_top))
    starts = np.maximum(np.abs(targets.u_init), np.abs(targets.v_init)) * factor
    over_init = int(np.count_nonzero(starts >= formats.state_limit))
    notes = [
        (
            over_vth,
            f"vth clipped to {formats.vth_max} in {many(over_vth, 'neuron')} (wanted up to "
            f"{np.nanmax(targets.vth) * factor:.0f})"
            if over_vth
            else "",
        ),
        (
            len(rough),
            f"vth is coarse in {many(len(rough), 'neuron')}: wanted down to "
            f"{rough.min(initial=formats.vth_max):.3g}, whole numbers are held",
        ),
        (
            over_drop,
            f"what a spike subtracts is clipped to {formats.vth_max} in "
            f"{many(over_drop, 'neuron')}",
        ),
        (
            over_bias,
            f"bias clipped to {bias_top} in {many(over_bias, 'neuron')} (wanted up to "
            f"{np.abs(targets.bias).max() * factor:.0f})",
        ),
        (over_init, f"initial state clipped in {many(over_init, 'neuron')}"),
        (
            over > 1.0,
            f"the registers hold {HEADROOM / max(over, 1.0):.2f} times the peak of calibration, "
            f"{HEADROOM:g} times is wanted; unusual input may saturate",
        ),
        (seen.wraps, f"the current wrapped {many(seen.wraps, 'time')} in calibration"),
        (
            seen.saturations,
            f"the potential saturated {many(seen.saturations, 'time')} in calibration",
        ),
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


LOWERING = Lowering(check_features=check_features, lower=lower, unmeasured=unmeasured, gates=True)
