"""A population between compressed layers before it and float layers behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.hessian import groups_of, membrane_moments, rows_of
from osbc_deploy.compress.matching import matched
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem, pose
from osbc_deploy.compress.result import CompressedProjection, adapted
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import rows_wanted
from osbc_deploy.model.delivery import delivered, lateness
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster, part_of

__all__ = ["HELD_OUT", "MIN_HELD_OUT", "Layer", "Scene"]

HELD_OUT = 5
"""Every fifth calibration sample judges."""

MIN_HELD_OUT = 8
"""Fewer samples cannot tell two variants apart."""

Layer = tuple[CompressedProjection, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A population between compressed layers before it and float layers behind.

    Attributes
    ----------
    network : Network
        The float network.
    population : Population
    calibration : ndarray of uint8 (n, T, *input_shape)
    before : dict of ndarray or PackedSpikes
        Spikes of the input and of populations before, of the float network.
    arriving : dict of ndarray or PackedSpikes
        The same with compressed weights, of the input and the populations before this one.
    rate : float
        Mean spikes per neuron and step of this population in the float network.
    wanted : ndarray (n, outputs)
        The float network's answer, summed over time.
    method : str
    damping : float
    space : Workspace
        Told the number of samples whose moments are added.
    rows_per_input : int
        Of a convolution's Hessian, where there are more.
    dynamics : LinearDynamics or None
        Whose kernel the weights are compressed for; None for the inputs as they are.
    """

    network: Network
    population: Population
    calibration: SpikeArray
    before: Mapping[str, Raster]
    arriving: Mapping[str, Raster]
    rate: float
    wanted: FloatArray
    method: str
    damping: float
    space: Workspace
    rows_per_input: int
    dynamics: LinearDynamics | None

    @property
    def afferents(self) -> tuple[Projection, ...]:
        """The projections into the population."""
        return self.network.afferents(self.population.name)

    @property
    def changed(self) -> bool:
        """Whether other spikes arrive than in the float network."""
        return any(
            self.arriving[p.pre] is not self.before[p.pre]
            for p in self.afferents
            if p.pre in self.arriving
        )

    def moments(self, *, cross: bool, part: slice) -> Moments:
        """Return the moments of some samples; with a cross term, of the spikes that arrive now."""
        # What is not compressed yet, the population itself above all, is taken as it was.
        seen = {**self.before, **self.arriving} if cross else self.before
        samples = len(self.calibration)
        fan_in = sum(p.connection.fan_in for p in self.afferents)
        rows = max(rows_of(p, self.before[p.pre].shape) for p in self.afferents)
        wanted = rows_wanted(groups_of(self.afferents), fan_in, rows, self.rows_per_input)
        if wanted is not None:
            wanted = -(-wanted * len(range(*part.indices(samples))) // samples)
        return membrane_moments(
            self.afferents,
            self.dynamics,
            [self._heard(p, seen, part) for p in self.afferents],
            [self._heard(p, self.before, part) for p in self.afferents] if cross else None,
            wanted=wanted,
            space=self.space,
        )

    def _heard(self, projection: Projection, spikes: Mapping[str, Raster], part: slice) -> Raster:
        """Return the spikes a projection delivers, when it delivers them."""
        found = part_of(spikes[projection.pre], part)
        late = lateness(self.network, projection)
        if isinstance(late, int) and late == 0:
            return found
        return delivered(self.network, projection, found[:])

    def problem(self, moments: Moments, *, free_bias: bool, pull: float = 1.0) -> LayerProblem:
        """State the problem of the population's weights."""
        return pose(
            self.afferents,
            self.population,
            moments,
            method=self.method,
            damping=self.damping,
            free_bias=free_bias,
            pull=pull,
            space=Workspace(self.space.memory, self.space.threads, crew=self.space.crew),
        )

    @property
    def has_bias(self) -> bool:
        """Whether a bias can take what the weights leave."""
        return any(p.connection.bias is not None for p in self.afferents)

    @property
    def can_shift(self) -> bool:
        """Whether thresholds may be moved."""
        neuron = self.population.neuron
        # Subtraction of the threshold would subtract another value too.
        return neuron.spiking and self.rate > 0 and neuron.reset_rule().kind == "zero"

    def judge(self) -> Callable[[Layer], FloatArray]:
        """Return what gives the error of the output for each sample that judges."""
        return _Judge(self).errors

    def matched(self, layer: Layer) -> Layer:
        """Return the layer with the threshold at which the float population's rate is met."""
        return matched(self, layer)

    def with_layer(self, layer: Sequence[CompressedProjection]) -> Network:
        """Return the float network with this population's weights, biases and thresholds."""
        return adapted(self.network, {p.name: p for p in layer})


class _Judge:
    """Holds what the errors of all variants are measured against."""

    def __init__(self, scene: Scene) -> None:
        part = slice(HELD_OUT - 1, None, HELD_OUT)
        self._scene = scene
        self._input = scene.calibration[part]
        self._given = {name: part_of(raster, part) for name, raster in scene.arriving.items()}
        self._memory = scene.space.memory // ACTIVITY
        self._wanted = scene.wanted[part]
        square = float((self._wanted**2).sum(axis=1).mean())
        self._unit = square if square > 0 else 1.0

    def errors(self, layer: Sequence[CompressedProjection]) -> FloatArray:
        """Return the squared error of each held-out sample's output, summed over time."""
        run = active(
            self._scene.with_layer(layer),
            self._input,
            self._scene.space,
            given=self._given,
            memory=self._memory,
        )
        got = run.output.sum(axis=1, dtype=np.float64).reshape(len(run.output), -1)
        return np.asarray(((got - self._wanted) ** 2).sum(axis=1) / self._unit)
