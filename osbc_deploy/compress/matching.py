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
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.raster import part_of

if TYPE_CHECKING:
    from osbc_deploy.compress.scene import Scene

__all__ = ["RATE_STEPS", "keeps_currents", "matched", "rated_samples"]

_RATE_SAMPLES = 128
_RATE_EVENTS = 3e7
"""Neurons times steps that tell a mean rate; of large populations, a few samples are as many."""

_FEWEST = 8
"""Samples that even the largest population's rate is met on: one alone may be unlike the others."""

_FOR_CURRENTS = 0.5
"""Of the memory for activity."""

RATE_STEPS = 6
"""Thresholds that are tried."""

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
    for _ in range(RATE_STEPS):
        middle = (low + high) / 2
        # A higher threshold fires less.
        low, high = (middle, high) if rate(_multiple(middle)) > wanted else (low, middle)
    found = _multiple((low + high) / 2)
    return tuple(replace(p, threshold=found) for p in layer)


def _multiple(exponent: float) -> float:
    # Libraries differ in the last bit of an exponential.
    return round(math.exp(exponent), _DECIMALS)


def _rate_of(
    scene: Scene, layer: tuple[CompressedProjection, ...], few: slice
) -> Callable[[float], float]:
    """Return what gives the population's rate on some samples, for multiples of its threshold."""
    population, memory = scene.population, scene.space.memory // ACTIVITY
    name, samples = population.name, scene.calibration[few]
    given = {n: part_of(raster, few) for n, raster in scene.arriving.items()}
    # Weights are put in once: only the threshold changes.
    heard = scene.with_layer(tuple(replace(p, threshold=1.0) for p in layer))
    if not keeps_currents(scene.network, population, samples.shape[:2], scene.space.memory):

        def simulated(threshold: float) -> float:
            neuron = population.neuron.with_threshold(threshold)
            run = active(
                heard.with_neurons({name: neuron}), samples, scene.space,
                given=given, until=name, output=False, memory=memory,
            )  # fmt: skip
            return run.rates[name]

        return simulated
    # What arrives does not depend on the threshold.
    run = active(
        heard.with_neurons({name: Answer(np.zeros(()), "step")}),
        samples,
        scene.space,
        given=given,
        until=name,
        memory=round(memory * (1.0 - _FOR_CURRENTS)),
    )
    size = math.prod(samples.shape[:2]) * population.size

    def counted(threshold: float) -> float:
        changed = replace(population, neuron=population.neuron.with_threshold(threshold))
        return count_spikes(changed, run.output) / size

    return counted


def keeps_currents(
    network: Network, population: Population, samples: tuple[int, ...], memory: int
) -> bool:
    """Tell whether a population's currents are computed once while its threshold is searched.

    Parameters
    ----------
    network : Network
    population : Population
    samples : (int, int)
        Those its rate is met on, and their time steps.
    memory : int
        Of the solver.
    """
    if population.neuron.feedback_apart or any(map(network.is_feedback, network.projections)):
        return False
    size = math.prod(samples) * population.size * np.dtype(network.dtype).itemsize
    return size <= memory // ACTIVITY * _FOR_CURRENTS


def _rated(scene: Scene) -> tuple[slice, float]:
    """Return the samples on which a rate is met, and the float population's rate there."""
    samples, steps = scene.calibration.shape[:2]
    most = rated_samples(samples, steps, scene.population)
    spikes = scene.before.get(scene.population.name)
    if spikes is None or most >= min(samples, _RATE_SAMPLES):
        return slice(0, _RATE_SAMPLES), scene.rate
    # At equal distances: samples may come class by class.
    few = slice(0, None, -(-samples // most))
    numbers = range(*few.indices(samples))
    fired = sum(int(np.count_nonzero(spikes[n])) for n in numbers)
    return few, fired / (len(numbers) * steps * scene.population.size)


def rated_samples(samples: int, steps: int, population: Population) -> int:
    """Return how many samples a population's rate is met on."""
    enough = max(_FEWEST, int(_RATE_EVENTS / (steps * population.size)))
    return min(samples, _RATE_SAMPLES, enough)
