"""Spikes of one population whose currents are known."""

from __future__ import annotations

import math

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.blocks import TOGETHER, first_states
from osbc_deploy.model.graph import Population
from osbc_deploy.model.threads import batches_of, by_threads, hands_for

__all__ = ["count_spikes"]


def count_spikes(population: Population, currents: FloatArray) -> int:
    """Return how many spikes of a population currents (n, T, *shape) cause."""
    import torch

    samples, steps, *shape = currents.shape
    places, channels = math.prod(shape[1:]), shape[0]
    hands = min(hands_for(samples * population.size), samples)
    batch = max(1, min(TOGETHER // population.size, -(-samples // hands)))
    together = max(1, TOGETHER // (batch * places))

    def run(rows: slice) -> int:
        fired = 0
        with torch.no_grad():
            for part in batches_of(channels, together):
                given = torch.from_numpy(currents[rows, :, part])
                parameters, state = first_states(
                    population, part, len(given), given.dtype, given.device
                )
                for t in range(steps):
                    spikes, state = population.neuron.step(
                        parameters, state, given[:, t], torch.where
                    )
                    fired += int(torch.count_nonzero(spikes))
        return fired

    return sum(by_threads(run, batches_of(samples, batch), hands))
