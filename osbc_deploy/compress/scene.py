"""A population between compressed layers before it and float layers behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.activity import active
from osbc_deploy.compress.hessian import groups_of, membrane_moments, rows_of
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem, pose
from osbc_deploy.compress.result import CompressedProjection, adapted
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import rows_wanted
from osbc_deploy.model.delivery import delivered, lateness
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster, part_of

__all__ = ["ACTIVITY", "HELD_OUT", "MIN_HELD_OUT", "Layer", "Scene", "rated_samples"]

ACTIVITY = 4
"""A quarter of the solver's memory is for the activity of samples simulated side by side."""

HELD_OUT = 5
"""Every fifth calibration sample judges."""

MIN_HELD_OUT = 8
"""Fewer samples cannot tell two variants apart."""

_RATE_SAMPLES = 128
_RATE_EVENTS = 1e8
"""Neurons times steps that tell a mean rate; of large populations, a few samples are as many."""

_RATE_STEPS = 6
_FACTORS = (0.4, 1.25)
"""Thresholds are searched between these multiples, to 1 %."""

_DECIMALS = 6
"""Of a threshold's multiple."""

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
        return _matched(self, layer)

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


def _matched(
    scene: Scene, layer: tuple[CompressedProjection, ...]
) -> tuple[CompressedProjection, ...]:
    """Return the layer with the threshold at which the float population's mean rate is met."""
    name = scene.population.name
    few, wanted = _rated(scene)
    given = {n: part_of(r, few) for n, r in scene.arriving.items()}
    low, high = (math.log(factor) for factor in _FACTORS)

    def at(exponent: float) -> tuple[CompressedProjection, ...]:
        # Libraries differ in the last bit of an exponential.
        return tuple(replace(p, threshold=round(math.exp(exponent), _DECIMALS)) for p in layer)

    for _ in range(_RATE_STEPS):
        middle = (low + high) / 2
        run = active(
            scene.with_layer(at(middle)),
            scene.calibration[few],
            scene.space,
            given=given,
            until=name,
            output=False,
            memory=scene.space.memory // ACTIVITY,
        )
        # A higher threshold fires less.
        low, high = (middle, high) if run.rates[name] > wanted else (low, middle)
    return at((low + high) / 2)


def _rated(scene: Scene) -> tuple[slice, float]:
    """Return the samples on which a rate is met, and the float population's rate there."""
    samples, steps = scene.calibration.shape[:2]
    most = rated_samples(samples, steps, scene.population)
    spikes = scene.before.get(scene.population.name)
    if spikes is None or most >= min(samples, _RATE_SAMPLES):
        return slice(0, _RATE_SAMPLES), scene.rate
    # Every so many: samples may come class by class.
    few = slice(0, None, -(-samples // most))
    numbers = range(*few.indices(samples))
    fired = sum(int(np.count_nonzero(spikes[n])) for n in numbers)
    return few, fired / (len(numbers) * steps * scene.population.size)


def rated_samples(samples: int, steps: int, population: Population) -> int:
    """Return how many samples a population's rate is met on."""
    enough = max(MIN_HELD_OUT, int(_RATE_EVENTS / (steps * population.size)))
    return min(samples, _RATE_SAMPLES, enough)
