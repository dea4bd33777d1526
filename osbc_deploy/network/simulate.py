"""Simulate a float network with torch, in the model's own precision.

Each time step runs the same torch operations in the same order, on the same batch, as the
framework the network came from, so the spikes are the framework's spikes and not merely close.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.network.graph import INPUT, Conv, Network, Projection, Readout
from osbc_deploy.progress import SILENT, Progress, task

if TYPE_CHECKING:
    import torch

__all__ = ["FloatRun", "decode", "simulate"]


@dataclass(frozen=True, eq=False)
class FloatRun:
    """What a float simulation recorded.

    Attributes
    ----------
    spikes : dict of ndarray of uint8, each (n, T, *population shape)
        Spikes of the recorded populations.
    output : ndarray (n, T, *output shape)
        The output population's spikes (0 or 1) or membrane potentials.
    rates : dict of float
        Mean spikes per neuron and step of every spiking population.
    """

    spikes: Mapping[str, SpikeArray]
    output: FloatArray
    rates: Mapping[str, float]


def simulate(
    network: Network,
    spikes: SpikeArray,
    *,
    record: Collection[str] = (),
    batch_size: int = 64,
    progress: Progress = SILENT,
    title: str = "float network",
) -> FloatRun:
    """Run samples through a float network.

    Parameters
    ----------
    network : Network
    spikes : ndarray (n, T, *input_shape)
        Input spikes, 0 or 1.
    record : collection of str
        Populations whose spikes are kept; ``"input"`` is allowed.
    batch_size : int
        Samples simulated side by side.

    Returns
    -------
    FloatRun
    """
    import torch

    dtype = getattr(torch, network.dtype)
    n, steps = spikes.shape[:2]
    kept: dict[str, SpikeArray] = {
        p.name: np.empty((n, steps, *p.shape), np.uint8)
        for p in network.populations
        if p.name in record and p.neuron.spiking
    }
    output = np.empty((n, steps, *network.output.shape), network.dtype)
    fired = {p.name: 0 for p in network.populations if p.neuron.spiking}
    with torch.no_grad(), task(progress, title, n):
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            activity = torch.from_numpy(np.moveaxis(spikes[rows], 1, 0).astype(network.dtype))
            for population in network.populations:
                projection = network.incoming(population.name)
                activity = _population(projection, population, activity, dtype)
                if population.name in fired:
                    fired[population.name] += int(torch.count_nonzero(activity))
                if population.name in kept:
                    raster = activity.to(torch.uint8).numpy()
                    kept[population.name][rows] = np.moveaxis(raster, 0, 1)
            output[rows] = np.moveaxis(activity.numpy(), 0, 1)
            progress.advance(rows.stop - rows.start)
    rates = {
        p.name: fired[p.name] / (n * steps * p.size) for p in network.populations if p.name in fired
    }
    if INPUT in record:
        kept[INPUT] = spikes
    return FloatRun(spikes=kept, output=output, rates=rates)


def decode(output: FloatArray | IntArray, readout: Readout) -> IntArray:
    """Turn output activity (n, T, classes) into class numbers (n,).

    The activity (spikes or membrane potential) is summed over time, taken at the last step, or
    its maximum over time is taken; the largest class wins, the lower number on a tie.
    """
    wide = output.reshape(*output.shape[:2], -1).astype(
        np.int64 if np.issubdtype(output.dtype, np.integer) else np.float64
    )
    if readout == "last":
        evidence = wide[:, -1]
    else:
        evidence = wide.sum(axis=1) if readout == "sum" else wide.max(axis=1)
    return np.asarray(evidence.argmax(axis=1))


def _population(
    projection: Projection, population: Any, activity: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return the activity (T, n, *shape) of one population for its input over all time."""
    import torch

    connection = projection.connection
    weight = torch.tensor(np.array(connection.weight), dtype=dtype)
    bias = None if connection.bias is None else torch.tensor(np.array(connection.bias), dtype=dtype)
    neuron = population.neuron
    parameters = {
        name: torch.tensor(np.array(v), dtype=dtype) for name, v in neuron.parameters.items()
    }
    batch = activity.shape[1]
    v_init = torch.tensor(np.array(neuron.v_init), dtype=dtype)
    state: dict[str, Any] = {
        "u": torch.zeros((batch, *population.shape), dtype=dtype),
        "v": v_init.expand(batch, *population.shape).clone(),
    }
    result = torch.empty((activity.shape[0], batch, *population.shape), dtype=dtype)
    for t, source in enumerate(activity):
        x = _current(projection, source, weight, bias)
        answer, state = neuron.step(parameters, state, x, torch.where)
        result[t] = answer
    return result


def _current(
    projection: Projection, source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    pool = projection.pool
    if pool is not None:
        source = functional.avg_pool2d(
            source, pool.kernel, pool.stride, pool.padding, divisor_override=pool.divisor
        )
    connection = projection.connection
    if isinstance(connection, Conv):
        return functional.conv2d(
            source,
            weight,
            bias,
            connection.stride,
            connection.padding,
            connection.dilation,
            connection.groups,
        )
    return functional.linear(source.flatten(1), weight, bias)
