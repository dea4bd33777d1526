"""What a float network costs, counted in NumPy from its weights and its spikes.

The quantities are NeuroBench's (Yik et al. 2025, "The NeuroBench framework for benchmarking
neuromorphic computing algorithms and systems"), so that its numbers can be checked:

- footprint: bytes of weights, biases and neuron parameters as they are held;
- connection sparsity: share of weights that are 0, biases left out;
- activation sparsity: share of neurons and steps without a spike, of all spiking populations;
- synaptic operations of a sample: weights times steps (dense), and those with a weight and an
  input that are not 0 (effective). Zero padding is no operation, nor is a bias. Effective
  operations are accumulates where everything that a layer hears in a step, over the samples of a
  batch, is 0 or 1, and multiply-accumulates otherwise (behind an average pooling).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import BoolArray, IntArray, SpikeArray
from osbc_deploy.model.graph import INPUT, AvgPool, Conv, Network, Pair, Projection, window_count

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
        dense += _dense(network, projection) * spikes[INPUT].shape[1]
        for start in range(0, n, batch_size):
            heard = _heard(network, projection, spikes[projection.pre][start : start + batch_size])
            pooled, full = _pooled(heard, projection.pool)
            operations = _effective(projection, pooled > 0)
            graded = ((pooled != 0) & (pooled != full)).any(axis=tuple(range(2, pooled.ndim)))
            graded_step = graded.any(axis=0)
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


def _heard(network: Network, projection: Projection, spikes: SpikeArray) -> IntArray:
    """Return what arrives in each step: late by a step with feedback, and by the delays."""
    late = int(network.is_feedback(projection))
    flat = spikes.reshape(*spikes.shape[:2], -1)
    delays = np.zeros(flat.shape[2], np.int64) if projection.delay is None else projection.delay
    arrived = np.zeros(flat.shape, np.int64)
    for lag in np.unique(delays + late):
        some = delays + late == lag
        arrived[:, lag:, some] = flat[:, : max(0, flat.shape[1] - lag), some]
    return arrived.reshape(spikes.shape)


def _pooled(heard: IntArray, pool: AvgPool | None) -> tuple[IntArray, int]:
    """Return the sums of all windows, (n, T, C, rows, columns), and the sum that makes a 1."""
    if pool is None:
        return heard, 1
    (kh, kw), (ph, pw) = pool.kernel, pool.padding
    padded = np.pad(heard, ((0, 0), (0, 0), (0, 0), (ph, ph), (pw, pw)))
    _, rows, cols = pool.output_shape(heard.shape[2:])
    sums = np.zeros((*heard.shape[:3], rows, cols), np.int64)
    for y in range(kh):
        for x in range(kw):
            sums += padded[..., y:, x:][..., :: pool.stride[0], :: pool.stride[1]][
                ..., :rows, :cols
            ]
    return sums, pool.divisor


def _effective(projection: Projection, active: BoolArray) -> IntArray:
    """Return the effective operations of every step, (T,), summed over the samples."""
    connection = projection.connection
    nonzero = connection.weight != 0
    if not isinstance(connection, Conv):
        fans = np.count_nonzero(nonzero, axis=0)
        return np.asarray(active.reshape(*active.shape[:2], -1).sum(axis=0) @ fans)
    c_in = active.shape[2]
    per_group = c_in // connection.groups
    # Weights that are not 0 of each input channel and tap.
    grouped = nonzero.reshape(connection.groups, -1, per_group, *nonzero.shape[2:])
    fans = grouped.sum(axis=1).reshape(c_in, *nonzero.shape[2:])
    seen = active.sum(axis=0)
    total = np.zeros(len(seen), np.int64)
    for y in range(fans.shape[1]):
        rows = _taps(connection, 0, seen.shape[2], y)
        for x in range(fans.shape[2]):
            cols = _taps(connection, 1, seen.shape[3], x)
            total += seen[:, :, rows][..., cols].sum(axis=(2, 3)) @ fans[:, y, x]
    return total


def _taps(connection: Conv, axis: int, size: int, tap: int) -> IntArray:
    """Return the pixels that one tap of a kernel meets along an axis, padding left out."""
    stride, padding, dilation = (
        pair[axis] for pair in (connection.stride, connection.padding, connection.dilation)
    )
    kernel = connection.weight.shape[2 + axis]
    count = window_count(size, kernel, stride, padding, dilation)
    pixels = np.arange(count) * stride + tap * dilation - padding
    return pixels[(pixels >= 0) & (pixels < size)]


def _dense(network: Network, projection: Projection) -> int:
    """Return the operations of a step if everything were 1."""
    connection = projection.connection
    if not isinstance(connection, Conv):
        return int(connection.weight.size)
    shape = network.shape_of(projection.pre)
    shape = shape if projection.pool is None else projection.pool.output_shape(shape)
    taps: Pair = (
        sum(len(_taps(connection, 0, shape[1], y)) for y in range(connection.weight.shape[2])),
        sum(len(_taps(connection, 1, shape[2], x)) for x in range(connection.weight.shape[3])),
    )
    return int(np.prod(connection.weight.shape[:2])) * taps[0] * taps[1]
