"""The threshold at which a population fires as often as in the float network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.model.answer import Answer
from osbc_deploy.model.firing import count_spikes
from osbc_deploy.model.graph import Population
from osbc_deploy.model.raster import part_of

if TYPE_CHECKING:
    from osbc_deploy.compress.scene import Scene

__all__ = ["matched", "rated_samples"]

_RATE_SAMPLES = 128
_RATE_EVENTS = 3e7
"""Neurons times steps that tell a mean rate; of large populations, a few samples are as many."""

_FEWEST = 8
"""Samples that even the largest population's rate is met on: one alone may be unlike the others."""

_FOR_CURRENTS = 0.5
"""Of the memory for activity."""

_RATE_STEPS = 6
_FACTORS = (0.4, 1.25)
"""Thresholds are searched between these multiples, to 1 %."""

_DECIMALS = 6
"""Of a threshold's multiple."""


def matched(
    scene: Scene, layer: tuple[CompressedProjection, ...]
) -> tuple[CompressedProjection, ...]:
    """Return the layer with the threshold at which the float population's mean rate is met."""
    few, wanted = _rated(scene)
    rate = _rate_of(scene, layer, few)
    low, high = (math.log(factor) for factor in _FACTORS)

    def at(exponent: float) -> tuple[CompressedProjection, ...]:
        # Libraries differ in the last bit of an exponential.
        return tuple(replace(p, threshold=round(math.exp(exponent), _DECIMALS)) for p in layer)

    for _ in range(_RATE_STEPS):
        middle = (low + high) / 2
        # A higher threshold fires less.
        low, high = (middle, high) if rate(at(middle)) > wanted else (low, middle)
    return at((low + high) / 2)


def _rate_of(
    scene: Scene, layer: tuple[CompressedProjection, ...], few: slice
) -> Callable[[tuple[CompressedProjection, ...]], float]:
    """Return what gives the population's rate on some samples, for layers of other thresholds."""
    population, memory = scene.population, scene.space.memory // ACTIVITY
    name, samples = population.name, scene.calibration[few]
    given = {n: part_of(raster, few) for n, raster in scene.arriving.items()}
    size = math.prod(samples.shape[:2]) * population.size
    forward = not any(scene.network.is_feedback(p) for p in scene.network.projections)
    forward &= not population.neuron.feedback_apart
    if not forward or size * np.dtype(scene.network.dtype).itemsize > memory * _FOR_CURRENTS:

        def simulated(layer: tuple[CompressedProjection, ...]) -> float:
            run = active(
                scene.with_layer(layer), samples, scene.space,
                given=given, until=name, output=False, memory=memory,
            )  # fmt: skip
            return run.rates[name]

        return simulated
    # What arrives does not hang on the threshold.
    heard = scene.with_layer(layer).with_neurons({name: Answer(np.zeros(()), "step")})
    run = active(
        heard,
        samples,
        scene.space,
        given=given,
        until=name,
        memory=round(memory * (1.0 - _FOR_CURRENTS)),
    )

    def counted(layer: tuple[CompressedProjection, ...]) -> float:
        neurons = {p.name: p for p in scene.with_layer(layer).populations}
        return count_spikes(neurons[name], run.output) / size

    return counted


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
    enough = max(_FEWEST, int(_RATE_EVENTS / (steps * population.size)))
    return min(samples, _RATE_SAMPLES, enough)
