r"""Lower a compressed network to the integers of Xylo's arithmetic.

With weights :math:`w = s_j q` (code q, scale :math:`s_j` of neuron j) and an exponent m, the core's
weights are :math:`2^m q`, so its potential is that of the float neuron times
:math:`K_j = 2^m / (s_j g_j)`, with g the gain of its shift decays (:mod:`.shifts`). Thresholds and
biases are multiplied by the same. Each of the core's three weight memories shifts all that it holds
by one number, which takes what the codes' own 8 bits leave of m; so all hidden neurons share m, and
where it is below 0, codes lose bits. The largest m is taken that keeps the 16-bit states in range,
with headroom over what the calibration samples reach.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import InputArray
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.data.samples import kind_of
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.connections import FixedDense
from osbc_deploy.fixedpoint.engine import EngineRun, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation, FixedProjection
from osbc_deploy.fixedpoint.xylo import faults
from osbc_deploy.lower.coding import payload
from osbc_deploy.lower.lowering import HEADROOM, Lowered
from osbc_deploy.lower.scaling import LoweredLayer
from osbc_deploy.lower.xylo.features import check_features, check_input
from osbc_deploy.lower.xylo.neurons import LOWEST, Neurons, neurons_of
from osbc_deploy.lower.xylo.notes import notes_of
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.options.notation import Readout
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["lower"]


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
    network = compressed.network
    check_features(network)
    coding = input or payload(kind_of(calibration), calibration.min(), calibration.max())
    check_input(coding)
    building = _Building(network, coding, formats, readout, batch_size)
    found = [neurons_of(network, p, compressed.projections, formats) for p in network.populations]
    notes: list[Deviation] = []
    layers: list[LoweredLayer] = []
    signal = coding.codes(calibration)
    done: EngineRun | None = None
    with task(progress, "lower", 2):
        # All hidden neurons share an exponent, the outputs have their own.
        for group in (found[:-1], found[-1:]):
            if not group:
                continue
            m = min(n.ceiling for n in group)
            while True:
                more = building.layers(group, m)
                done = building.run([*layers, *more], signal, more)
                over = _over(more, done, formats)
                if over <= 1.0 or m <= LOWEST:
                    break
                m = max(LOWEST, m - max(1, math.ceil(math.log2(over))))
            layers += more
            for neurons, (_, population) in zip(group, more, strict=True):
                notes += notes_of(neurons, population, m, over, done)
            progress.advance()
    whole = building.network_of(layers)
    if wrong := faults(whole):
        raise ChipLimitError("network: integers the chip's registers cannot hold", wrong)
    final = building.run(layers, signal, layers)
    return Lowered(whole, tuple(notes), dict(final.activity))


@dataclass(frozen=True, eq=False)
class _Building:
    """The network while exponents are looked for."""

    source: Network
    coding: InputFormat
    formats: NumberFormats
    readout: Readout
    batch_size: int

    def layers(self, group: Sequence[Neurons], m: int) -> list[LoweredLayer]:
        """Return the integers of populations that share an exponent."""
        room: dict[bool, int] = {}
        for neurons in group:
            for p in self.source.afferents(neurons.population.name):
                first = p.pre == INPUT
                room[first] = min(room.get(first, neurons.room), neurons.room)
        shift = {first: max(0, m - free) for first, free in room.items()}
        found = [neurons.at(m, shift) for neurons in group]
        if not self.coding.graded:
            return found
        return [
            (tuple(replace(p, graded=p.pre == INPUT) for p in projections), population)
            for projections, population in found
        ]

    def network_of(self, layers: Sequence[LoweredLayer]) -> FixedPointNetwork:
        """Return the network of some layers."""
        return FixedPointNetwork(
            self.source.input_shape,
            tuple(population for _, population in layers),
            tuple(p for projections, _ in layers for p in projections),
            self.formats,
            self.readout,
            self.coding,
        )

    def run(
        self, layers: Sequence[LoweredLayer], signal: InputArray, newest: Sequence[LoweredLayer]
    ) -> EngineRun:
        """Run calibration samples; hidden neurons without outputs yet are given a silent one."""
        names = [population.name for _, population in newest]
        if layers[-1][1].name != self.source.output.name:
            layers = [*layers, _stand_in(layers[-1][1], self.formats)]
        return run(
            self.network_of(layers), signal, record=names, batch_size=self.batch_size, strict=False
        )


def _stand_in(hidden: FixedPopulation, formats: NumberFormats) -> LoweredLayer:
    """Return an output that never fires, so that the core takes all else for hidden."""
    one = np.ones(1, np.int64)
    population = replace(
        hidden,
        name=f"{hidden.name} out",
        shape=(1,),
        du=one,
        dv=one,
        vth=one,
        bias_mant=0 * one,
        bias_exp=0 * one,
        u_init=0 * one,
        v_init=0 * one,
        v_scale=np.ones(1),
        v_offset=np.zeros(1),
    )
    connection = FixedDense(np.zeros((1, hidden.size), np.int64))
    projection = FixedProjection(
        population.name, hidden.name, population.name, connection, formats.weight_bits[-1], 0
    )
    return (projection,), population


def _over(layers: Sequence[LoweredLayer], done: EngineRun, formats: NumberFormats) -> float:
    """Return the peaks with headroom over what the registers hold."""
    seen = [done.activity[population.name] for _, population in layers]
    return max(max(s.u_peak, s.v_peak) for s in seen) * HEADROOM / (formats.state_limit - 1)
