r"""Lower a compressed network to the integers of Speck's arithmetic.

With weights :math:`w = s q` (code q, scale s) and an exponent m, the core's weights are
:math:`2^m q`, so its potential is that of the float neuron times :math:`2^m / s`; threshold and
biases are multiplied by the same. The largest m is taken that weights and biases of 8 bits and
thresholds of 15 allow; below 0, codes lose bits. A potential is bounded from below alone, and what
is lost there matters little, so m is only lowered for it as long as codes lose none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import InputArray, SpikeArray
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.data.samples import kind_of
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import Activity, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedConnection, FixedPointNetwork, FixedProjection
from osbc_deploy.fixedpoint.speck import faults
from osbc_deploy.lower.coding import payload
from osbc_deploy.lower.lowering import Lowered
from osbc_deploy.lower.merge import expand, pooling_of
from osbc_deploy.lower.notes import (
    said_of_firing,
    said_of_resets,
    said_of_rounding,
    said_of_widths,
)
from osbc_deploy.lower.registers import RealRegisters, quantized, real_registers
from osbc_deploy.lower.scaling import LoweredLayer
from osbc_deploy.lower.speck.features import check_features, check_input
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.options.notation import Readout
from osbc_deploy.plain_text import many
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["lower", "unmeasured"]

_LOWEST = -4
"""Smallest exponent: half of the bits of a weight are left."""
_WHOLE = 1e-9
"""Relative; more than what double precision makes of a whole number."""


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
    del counted
    source = compressed.network
    check_features(source)
    coding = input or payload(kind_of(calibration), calibration.min(), calibration.max())
    check_input(coding)
    signal = coding.codes(calibration)
    layers: list[LoweredLayer] = []
    notes: list[Deviation] = []
    fired: dict[str, SpikeArray] = {}
    seen: dict[str, Activity] = {}

    def whole(more: list[LoweredLayer]) -> FixedPointNetwork:
        found = [
            replace(q, graded=coding.graded and q.pre == INPUT) for ways, _ in more for q in ways
        ]
        populations = tuple(p for _, p in more)
        return FixedPointNetwork(
            source.input_shape, populations, tuple(found), formats, readout, coding
        )

    with task(progress, "lower", len(source.populations)):
        for population in source.populations:
            name = population.name
            neurons = _neurons(source, population, compressed.projections, formats)
            m = neurons.ceiling
            while True:
                layer = neurons.at(m)
                done = run(
                    whole([*layers, layer]), signal, record=[name], given=fired,
                    batch_size=batch_size, strict=False,
                )  # fmt: skip
                if m <= 0 or not done.activity[name].saturations:
                    break
                m -= 1
            layers.append(layer)
            fired[name], seen[name] = done.spikes[name], done.activity[name]
            notes += neurons.notes(layer, m, fired[name], seen[name])
            progress.advance()
    network = whole(layers)
    if wrong := faults(network):
        raise ChipLimitError("network: integers the chip's registers cannot hold", wrong)
    return Lowered(network, tuple(notes), seen)


def unmeasured(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    times: Timing,
    formats: NumberFormats,
) -> LoweredLayer:
    """Return a layer before calibration; see :func:`.lowering.unmeasured`."""
    del times
    neurons = _neurons(network, population, weights, formats)
    return neurons.at(neurons.ceiling)


@dataclass(frozen=True, eq=False)
class _Neurons:
    """A population's registers at m = 0, as real numbers, and its weights as codes."""

    population: Population
    way: Projection
    given: CompressedProjection
    connection: FixedConnection
    targets: RealRegisters
    formats: NumberFormats

    @property
    def ceiling(self) -> int:
        """The largest m that weights, thresholds and biases allow."""
        formats, codes = self.formats, self.connection.weight.astype(np.int64)
        widest = max(int(codes.max(initial=0)), -int(codes.min(initial=0)) - 1, 1)
        strongest = float(np.abs(self.targets.bias).max())
        bounds = [
            self._bits - 1 - widest.bit_length(),
            _floor_log2((formats.vth_max + 0.49) / float(self.targets.vth.max())),
            _floor_log2(formats.bias_mant_max / strongest) if strongest else self._bits,
        ]
        return max(_LOWEST, min(bounds))

    @property
    def _bits(self) -> int:
        return self.formats.weight_bits[-1]

    def at(self, m: int) -> LoweredLayer:
        """Return the integers at an exponent."""
        own = self.formats.weight_shift(self._bits)
        # Below 0, codes lose bits.
        codes = np.rint(self.connection.weight * 2.0 ** min(m, 0)).astype(np.int64)
        projection = FixedProjection(
            self.way.name,
            self.way.pre,
            self.way.post,
            replace(self.connection, weight=codes << max(m, 0) + own),
            self._bits,
            -own,
            pooling=pooling_of(self.way),
        )
        wanted = self.targets.vth * 2.0**m
        vth = np.rint(wanted)
        if not self.population.neuron.fires_at_threshold:
            # The chip fires at its threshold, the float neuron above it.
            vth += np.abs(wanted - vth) <= _WHOLE * wanted
        population = quantized(self.population, self.targets, m, self.formats)
        vth = np.clip(vth, 1, self.formats.vth_max).astype(np.int64)
        return (projection,), replace(population, vth=vth, drop=None)

    def notes(
        self, layer: LoweredLayer, m: int, fired: SpikeArray, seen: Activity
    ) -> list[Deviation]:
        """Return how the layer differs from the float network."""
        (projection,), lowered = layer
        said = [
            *said_of_resets(self.population),
            *said_of_rounding(
                [
                    ("threshold", self.targets.vth * 2.0**m, lowered.vth),
                    ("bias", self.targets.bias * 2.0**m, lowered.bias_mant),
                ]
            ),
            *said_of_firing(fired, seen),
        ]
        if m < 0:
            said.append(
                f"weights lose {-m} of their bits, so that biases fit into "
                f"{self.formats.bias_mant_bits} and thresholds into {self.formats.vth_bits + 1}"
            )
        if seen.saturations:
            said.append(
                f"potentials reached the chip's lower bound {many(seen.saturations, 'time')} in "
                "calibration"
            )
        name = self.population.name
        found = [Deviation("lower", name, text) for text in said]
        if self.way.pool is not None and projection.pooling is None:
            text = "the pooling before it does not tile its input and is merged into its weights"
            found.append(Deviation("lower", self.way.name, text))
        return [*found, *said_of_widths([self.given], self._bits)]


def _neurons(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    formats: NumberFormats,
) -> _Neurons:
    """Return what the registers of a population should hold."""
    (way,) = network.afferents(population.name)
    given = weights[way.name]
    connection, divisor = expand(way, given.codes, network.shape_of(way.pre))
    targets = real_registers([way], population, given.scale / divisor, formats, [])
    return _Neurons(population, way, given, connection, targets, formats)


def _floor_log2(value: float) -> int:
    """Return the exponent of the largest power of two that is not above a positive number."""
    return math.frexp(value)[1] - 1
