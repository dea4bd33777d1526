"""What a float network costs, counted in NumPy from its weights and its spikes.

The quantities are NeuroBench's (Yik et al. 2025, "The NeuroBench framework for benchmarking
neuromorphic computing algorithms and systems"), so that its numbers can be checked:

- footprint: bytes of weights, biases and neuron parameters as they are held;
- connection sparsity: share of weights that are 0, biases left out;
- activation sparsity: share of neurons and steps without a spike, of all spiking populations;
- synaptic operations of a sample: weights times steps (dense), and those with a weight and an
  input that are not 0 (effective). Zero padding is not an operation, nor is a bias. Effective
  operations are accumulates where all input of a layer in a step, over the samples of a
  batch, is 0, 1 or -1, and multiply-accumulates otherwise (behind an average pooling, or of counts
  and real values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.model.delivery import delivered
from osbc_deploy.model.graph import INPUT, Network

__all__ = ["Workload", "count_workload"]


@dataclass(frozen=True)
class Workload:
    """What :func:`count_workload` counted; see the module for the quantities.

    Attributes
    ----------
    footprint : int
        Bytes.
    connection_sparsity, activation_sparsity : float
        In [0, 1].
    effective_macs, effective_acs, dense : float
        Operations of a sample, all of its steps together, on average.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    effective_macs: float
    effective_acs: float
    dense: float


def count_workload(
    network: Network, spikes: Mapping[str, SpikeArray], *, batch_size: int = 64
) -> Workload:
    """Count what samples cost.

    Parameters
    ----------
    network : Network
    spikes : dict of ndarray of uint8, each (n, T, *population shape)
        Of the input and of every spiking population.
    batch_size : int
        Samples that are run side by side.
    """
    n = len(spikes[INPUT])
    macs = acs = dense = 0
    for projection in network.projections:
        connection, pool = projection.connection, projection.pool
        shape = network.shape_of(projection.pre)
        shape = shape if pool is None else pool.output_shape(shape)
        nonzero = connection.weight != 0
        fans = connection.fan_out(nonzero, shape)
        dense += (
            int(connection.fan_out(np.ones_like(nonzero), shape).sum()) * spikes[INPUT].shape[1]
        )
        for start in range(0, n, batch_size):
            sent = spikes[projection.pre][start : start + batch_size]
            # Whole numbers stay exact, real values are not cut off.
            wide = np.float64 if sent.dtype.kind == "f" else np.int64
            heard = delivered(network, projection, sent).astype(wide)
            pooled, full = (heard, 1) if pool is None else (pool.sums(heard), pool.divisor)
            operations = (pooled != 0).sum(axis=0).reshape(pooled.shape[1], -1) @ fans
            graded = (pooled != 0) & (np.abs(pooled) != full)
            graded_step = graded.any(axis=(0, *range(2, pooled.ndim)))
            macs += int(operations[graded_step].sum())
            acs += int(operations[~graded_step].sum())
    weights = [p.connection.weight for p in network.projections]
    neurons = [spikes[p.name] for p in network.populations if p.neuron.spiking]
    fired = sum(int(np.count_nonzero(raster)) for raster in neurons)
    return Workload(
        footprint=_values(network) * np.dtype(network.dtype).itemsize,
        connection_sparsity=1.0 - sum(map(np.count_nonzero, weights)) / network.weights,
        activation_sparsity=1.0 - fired / max(1, sum(raster.size for raster in neurons)),
        effective_macs=macs / n,
        effective_acs=acs / n,
        dense=float(dense),
    )


def _values(network: Network) -> int:
    neurons = (p.neuron.parameters for p in network.populations)
    return network.parameters + sum(v.size for values in neurons for v in values.values())
