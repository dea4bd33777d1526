"""The forms a network takes on its way to the chip, run side by side.

Every stage is run whole, and one population at a time on the spikes of another stage: the first
shows the error that arrives, the second the error that is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray, IntArray
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.fixedpoint.coding import SPIKES, InputFormat
from osbc_deploy.fixedpoint.engine import Activity, EngineRun, run
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.model.simulate import FloatRun, simulate

__all__ = ["FixedStage", "FloatStage", "Record", "Stage", "float_stages"]


@dataclass(frozen=True, eq=False)
class Record:
    """What a stage did on some samples, all neurons flattened.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of every spiking population, and the input as it was given.
    v : dict of ndarray (n, T, size)
        Membrane potential after each step in the float network's unit, of every population.
    output : ndarray (n, T, size)
        Spikes or potentials of the output.
    activity : dict of Activity
        What the registers went through; empty for a float stage.
    """

    spikes: Mapping[str, InputArray]
    v: Mapping[str, FloatArray]
    output: FloatArray | IntArray
    activity: Mapping[str, Activity] = field(default_factory=dict)

    def sample(self, number: int) -> Record:
        """Return the record of one sample."""
        one = slice(number, number + 1)
        return Record(
            {name: raster[one] for name, raster in self.spikes.items()},
            {name: v[one] for name, v in self.v.items()},
            self.output[one],
        )


class Stage(Protocol):
    """A network that can be run."""

    @property
    def name(self) -> str:
        """Short name, such as "float"."""

    def run(self, spikes: InputArray) -> Record:
        """Run samples (n, T, *input_shape)."""

    def alone(self, population: str, heard: Record) -> Record:
        """Run one population on what it would have heard from another stage."""


@dataclass(frozen=True, eq=False)
class FloatStage:
    """A network in floating point."""

    name: str
    network: Network
    coding: InputFormat = SPIKES
    """Of real values, which are then rounded as the chip is given them."""

    def run(self, spikes: InputArray) -> Record:
        """Run samples; see :class:`Stage`."""
        names = [p.name for p in self.network.populations]
        done = simulate(
            self.network,
            self._heard(spikes),
            record=names,
            states=names,
            batch_size=max(1, len(spikes)),
        )
        return _record(done, spikes)

    def _heard(self, spikes: InputArray) -> InputArray:
        rounded = self.coding.kind == "values"
        return self.coding.decoded(self.coding.codes(spikes)) if rounded else spikes

    def alone(self, population: str, heard: Record) -> Record:
        """Run one population; see :class:`Stage`."""
        given = {
            name: raster.reshape(*raster.shape[:2], *self.network.shape_of(name))
            for name, raster in heard.spikes.items()
            if name != population
        }
        spikes = given.pop(INPUT)
        done = simulate(
            self.network,
            self._heard(spikes),
            record=[population],
            states=[population],
            given=given,
            until=population,
            batch_size=max(1, len(spikes)),
        )
        return _record(done, spikes)


@dataclass(frozen=True, eq=False)
class FixedStage:
    """A network in the chip's integers, on the engine."""

    name: str
    network: FixedPointNetwork

    def run(self, spikes: InputArray) -> Record:
        """Run samples; see :class:`Stage`."""
        names = [p.name for p in self.network.populations]
        sent = self.network.input.codes(spikes)
        done = run(self.network, sent, record=names, states=names)
        return self._record(done, spikes)

    def alone(self, population: str, heard: Record) -> Record:
        """Run one population; see :class:`Stage`."""
        given = {k: raster for k, raster in heard.spikes.items() if k not in (INPUT, population)}
        raster = heard.spikes[INPUT]
        spikes = raster.reshape(*raster.shape[:2], *self.network.input_shape)
        # The spikes of another stage may drive it where its own never would.
        one = [population]
        sent = self.network.input.codes(spikes)
        done = run(self.network, sent, record=one, states=one, given=given, strict=False)
        return self._record(done, spikes)

    def _record(self, done: EngineRun, spikes: InputArray) -> Record:
        populations = {p.name: p for p in self.network.populations}
        potentials = {name: _in_float(populations[name], v) for name, v in done.v.items()}
        return Record({INPUT: _flat(spikes), **done.spikes}, potentials, done.output, done.activity)


def float_stages(
    compressed: CompressedNetwork, coding: InputFormat = SPIKES
) -> tuple[FloatStage, ...]:
    """Return the float network, the pruned one where it was kept, and the compressed one.

    The pruned network has the biases and thresholds that were chosen for the quantized weights.
    Where the input's real values are rounded, the compressed network follows once more with these.
    """
    pruned = pruned_network(compressed)
    middle = () if pruned is None else (FloatStage("pruned", pruned),)
    last = FloatStage("rounded input", compressed.network, coding)
    return (
        FloatStage("float", compressed.original),
        *middle,
        FloatStage("compressed", compressed.network),
        *([last] if coding.kind == "values" else []),
    )


def pruned_network(compressed: CompressedNetwork) -> Network | None:
    """Return the compressed network with the weights as they were before quantization."""
    weights = {name: p.pruned for name, p in compressed.projections.items()}
    known = {name: w for name, w in weights.items() if w is not None}
    return compressed.network.with_weights(known) if len(known) == len(weights) else None


def _record(done: FloatRun, spikes: InputArray) -> Record:
    return Record(
        {INPUT: _flat(spikes), **{name: _flat(raster) for name, raster in done.spikes.items()}},
        {name: v.reshape(*v.shape[:2], -1) for name, v in done.v.items()},
        done.output.reshape(*done.output.shape[:2], -1),
    )


def _flat(raster: InputArray) -> InputArray:
    return raster.reshape(*raster.shape[:2], -1)


def _in_float(population: FixedPopulation, v: IntArray) -> FloatArray:
    return np.asarray(population.v_scale * v + population.v_offset)
