"""Prune by size and round to nearest: no Hessian is needed, so none is built.

What such a layer loses is not measured then, and its report says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.layer import nearest, prune_by_magnitude, split
from osbc_deploy.compress.problem import stacked_weights
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.model.delivery import delivered
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.raster import Raster

__all__ = ["compress_by_magnitude", "enough_samples"]

_ENOUGH = 1e9
"""Neurons times steps that tell firing rates and dead inputs, the only things looked for."""


def enough_samples(network: Network, calibration: SpikeArray) -> SpikeArray:
    """Return the samples (n, T, ...) to run: of a large network some, at equal distances."""
    samples, steps = calibration.shape[:2]
    each = steps * sum(p.size for p in network.populations)
    few = calibration[:: max(1, math.ceil(samples * each / _ENOUGH))]
    return few if few.any() else calibration


def compress_by_magnitude(
    network: Network,
    population: Population,
    spikes: Mapping[str, Raster],
    keep: int | None,
    bits: int,
    scale_groups: int,
) -> tuple[CompressedProjection, ...]:
    """Return a population's largest weights on the nearest codes.

    Parameters
    ----------
    network : Network
    population : Population
    spikes : dict of ndarray or PackedSpikes (n, T, *shape)
        Of the input and of the populations that feed it, to find dead inputs.
    keep : int or None
        Weights that stay; None for all.
    bits : int
    scale_groups : int
        Different scales allowed.
    """
    afferents = network.afferents(population.name)
    blocks = stacked_weights(afferents)
    pruned = prune_by_magnitude(blocks, blocks.size if keep is None else keep)
    # Potentials of a readout are compared with each other, so they must share one scale.
    groups = scale_groups if population.neuron.spiking else 1
    layer = split(afferents, pruned, bits, *nearest(pruned, bits, groups))
    return tuple(
        replace(done, dead_inputs=_dead(network, p, spikes[p.pre]))
        for p, done in zip(afferents, layer, strict=True)
    )


def _dead(network: Network, projection: Projection, spikes: Raster) -> int:
    """Return how many inputs of one output, group by group, no spike ever reached."""
    seen = np.zeros((1, *spikes.shape[2:]))
    for n in range(len(spikes)):
        heard = delivered(network, projection, spikes[n : n + 1])
        seen = np.maximum(seen, (heard != 0).any(axis=1))
    if projection.pool is not None:
        seen = projection.pool.sums(seen)
    reached = projection.connection.unfolded(seen).any(axis=1)
    return int(reached.size - np.count_nonzero(reached))
