"""Compress one population's weights in several ways and keep what serves the output best.

The layers before are compressed already, so other spikes arrive than the weights were trained for.
What can make up for that is tried on four fifths of the calibration samples and judged on the
rest by the error of the network's output, the layers behind still being the float network's:

cross term
    approximate the weights that bring the float potential back from the spikes that arrive now,
    held to the original weights as much as leaves the least loss on the held-out samples;
free bias
    where there is a bias, let it take what the weights leave on average;
full range
    at 2 and 3 bits, take the code that two's complement has below zero and not above;
threshold
    match the float population's mean rate (pruned weights carry less variance, so neurons fire
    too little).

A variant replaces a simpler one only when its error is smaller by more than the standard error of
the difference. The winner is solved again on all samples. Labels are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.guard import target_loss
from osbc_deploy.compress.hessian import groups_of, membrane_moments, rows_of
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.problem import LayerProblem, pose
from osbc_deploy.compress.result import CompressedProjection, adapted
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import rows_wanted
from osbc_deploy.model.delivery import delivered, lateness
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.raster import Raster, part_of
from osbc_deploy.model.simulate import simulate

__all__ = ["ACTIVITY", "HELD_OUT", "MIN_HELD_OUT", "Scene", "Trial", "tune", "tune_threshold"]

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

_PULLS = (1.0, 3.0, 10.0, 30.0)
"""Multiples of the damping that may hold the cross term's target to the weights as they were."""

_FEW_BITS = 3
"""Where one code more is a third or a seventh of all; of four bits, 7 % of the codes."""

Layer = tuple[CompressedProjection, ...]
Solve = Callable[[LayerProblem], Layer]


class Trial(Protocol):
    """Weights between what is compressed before them and the float network behind."""

    @property
    def method(self) -> str:
        """The method of compression."""

    @property
    def changed(self) -> bool:
        """Whether other values arrive than in the float network."""

    @property
    def has_bias(self) -> bool:
        """Whether a bias can take what the weights leave."""

    @property
    def can_shift(self) -> bool:
        """Whether thresholds may be moved."""

    def moments(self, *, cross: bool, part: slice) -> Moments:
        """Return the moments of some samples; with a cross term, of what arrives now."""

    def problem(self, moments: Moments, *, free_bias: bool, pull: float = 1.0) -> LayerProblem:
        """State the problem of the weights."""

    def judge(self) -> Callable[[Layer], FloatArray]:
        """Return what gives the error of the output for each sample that judges."""

    def matched(self, layer: Layer) -> Layer:
        """Return the layer with the threshold at which the float network's rate is met."""


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
            None if self.method == "obc" else self.population.neuron.dynamics(),
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


@dataclass(frozen=True)
class _Variant:
    cross: bool = False
    free_bias: bool = False
    threshold: bool = False
    pull: float = 1.0
    full: bool = False

    def __str__(self) -> str:
        parts = [
            name
            for name, on in (
                (f"cross term (pull {self.pull:g})", self.cross),
                ("free bias", self.free_bias),
                ("threshold", self.threshold),
                ("full range", self.full),
            )
            if on
        ]
        return " + ".join(parts) or "plain"


def tune(scene: Trial, solve: Solve) -> tuple[Layer, LayerProblem]:
    """Try the variants of one population and return the best, solved on all samples.

    Parameters
    ----------
    scene : Trial
        With at least ``HELD_OUT * MIN_HELD_OUT`` samples.
    solve : callable
        Prunes and quantizes a problem.

    Returns
    -------
    projections : tuple of CompressedProjection
        With what was tried, the errors relative to the output's mean square.
    problem : LayerProblem
        What they solve.
    """
    errors_of = scene.judge()
    moments: dict[bool, tuple[Moments, Moments]] = {}
    scores: dict[_Variant, FloatArray] = {}
    for asked in _solved_variants(scene):
        if asked.cross not in moments:
            moments[asked.cross] = (
                _sum(scene, cross=asked.cross, starts=range(HELD_OUT - 1)),
                scene.moments(cross=asked.cross, part=slice(HELD_OUT - 1, None, HELD_OUT)),
            )
        problem = _posed(scene, asked, *moments[asked.cross])
        variant = replace(asked, pull=problem.pull)
        layer = solve(problem)
        scores[variant] = errors_of(layer)
        if scene.can_shift:
            scores[replace(variant, threshold=True)] = errors_of(scene.matched(layer))
    best = _best(scores)
    fitted, held = moments[best.cross]
    if 1 < layer[0].bits <= _FEW_BITS and scene.method != "magnitude":
        best = replace(best, full=True)
        scores[best] = errors_of(_solved(scene, solve, best, fitted)[0])
        best = _best(scores)
    layer, problem = _solved(scene, solve, best, fitted + held)
    return _told(layer, scores, best), problem


def _solved(
    scene: Trial, solve: Solve, variant: _Variant, moments: Moments
) -> tuple[Layer, LayerProblem]:
    problem = scene.problem(moments, free_bias=variant.free_bias, pull=variant.pull)
    problem = replace(problem, full=variant.full)
    layer = solve(problem)
    return scene.matched(layer) if variant.threshold else layer, problem


def tune_threshold(scene: Trial, layer: Layer) -> Layer:
    """Return a layer that no sample had a part in, with another threshold if that is better."""
    errors_of = scene.judge()
    forms = {_Variant(): layer}
    if scene.can_shift:
        forms[_Variant(threshold=True)] = scene.matched(layer)
    scores = {variant: errors_of(form) for variant, form in forms.items()}
    best = _best(scores)
    return _told(forms[best], scores, best)


def _told(layer: Layer, scores: Mapping[_Variant, FloatArray], best: _Variant) -> Layer:
    tried = {str(variant): float(errors.mean()) for variant, errors in scores.items()}
    return tuple(replace(p, tried=tried, chosen=str(best)) for p in layer)


def _best(scores: Mapping[_Variant, FloatArray]) -> _Variant:
    """Return the last variant that is better than what was best, by more than chance explains."""
    best = next(iter(scores))
    for variant, errors in scores.items():
        gain = scores[best] - errors
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = variant
    return best


def _solved_variants(scene: Trial) -> Iterator[_Variant]:
    """Yield what needs a solution of its own, the simple before the complex."""
    biases = [False]
    if scene.has_bias:
        biases.append(True)
    for cross in (False, True) if scene.changed else (False,):
        for free_bias in biases:
            yield _Variant(cross=cross, free_bias=free_bias)


def _posed(scene: Trial, variant: _Variant, fitted: Moments, held: Moments) -> LayerProblem:
    """State a variant's problem, with the pull whose target loses least on the held-out samples."""
    if not variant.cross:
        return scene.problem(fitted, free_bias=variant.free_bias)
    problems = [scene.problem(fitted, free_bias=variant.free_bias, pull=p) for p in _PULLS]
    return min(problems, key=lambda problem: target_loss(problem, held))


def _sum(scene: Trial, *, cross: bool, starts: Sequence[int]) -> Moments:
    """Return the moments of every sample that does not judge."""
    parts = [scene.moments(cross=cross, part=slice(s, None, HELD_OUT)) for s in starts]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


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
        run = simulate(
            self._scene.with_layer(layer),
            self._input,
            given=self._given,
            exact=True,
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
        run = simulate(
            scene.with_layer(at(middle)),
            scene.calibration[few],
            given=given,
            until=name,
            exact=True,
            output=False,
            memory=scene.space.memory // ACTIVITY,
        )
        # A higher threshold fires less.
        low, high = (middle, high) if run.rates[name] > wanted else (low, middle)
    return at((low + high) / 2)


def _rated(scene: Scene) -> tuple[slice, float]:
    """Return the samples on which a rate is met, and the float population's rate there."""
    samples, steps = scene.calibration.shape[:2]
    each = steps * scene.population.size
    most = max(MIN_HELD_OUT, int(_RATE_EVENTS / each))
    spikes = scene.before.get(scene.population.name)
    if spikes is None or most >= min(samples, _RATE_SAMPLES):
        return slice(0, _RATE_SAMPLES), scene.rate
    # Every so many: samples may come class by class.
    few = slice(0, None, -(-samples // most))
    numbers = range(*few.indices(samples))
    fired = sum(int(np.count_nonzero(spikes[n])) for n in numbers)
    return few, fired / (len(numbers) * each)
