"""Simulate a float network with torch, in the model's own precision.

Each time step runs the same torch operations in the same order, on the same batch, as the
framework the network came from, so the spikes are the framework's spikes and not merely close.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.network.graph import INPUT, Conv, Network, Population, Projection, Readout
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
    given: Mapping[str, SpikeArray] | None = None,
    until: str | None = None,
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
    given : dict of ndarray of uint8, each (n, T, *population shape), optional
        Spikes of populations that are taken as they are and not simulated.
    until : str, optional
        The last population to simulate, whose activity is the run's output; the network's own by
        default.
    batch_size : int
        Samples simulated side by side.

    Returns
    -------
    FloatRun
    """
    import torch

    dtype = getattr(torch, network.dtype)
    known = {INPUT: spikes, **(given or {})}
    last = until or network.output.name
    populations = _up_to(network, last, known)
    n, steps = spikes.shape[:2]
    kept: dict[str, SpikeArray] = {
        p.name: np.empty((n, steps, *p.shape), np.uint8)
        for p in populations
        if p.name in record and p.neuron.spiking
    }
    output = np.empty((n, steps, *network.shape_of(last)), network.dtype)
    fired = {p.name: 0 for p in populations if p.neuron.spiking}
    with torch.no_grad(), task(progress, title, n):
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            activity: dict[str, torch.Tensor] = {}
            for population in populations:
                afferents = network.afferents(population.name)
                for name in {p.pre for p in afferents} & known.keys() - activity.keys():
                    raster = np.moveaxis(known[name][rows], 1, 0).astype(network.dtype)
                    activity[name] = torch.from_numpy(raster)
                answer = _population(afferents, population, activity, dtype)
                activity[population.name] = answer
                if population.name in fired:
                    fired[population.name] += int(torch.count_nonzero(answer))
                if population.name in kept:
                    kept[population.name][rows] = np.moveaxis(answer.to(torch.uint8).numpy(), 0, 1)
            output[rows] = np.moveaxis(activity[last].numpy(), 0, 1)
            progress.advance(rows.stop - rows.start)
    rates = {p.name: fired[p.name] / (n * steps * p.size) for p in populations if p.name in fired}
    if INPUT in record:
        kept[INPUT] = spikes
    return FloatRun(spikes=kept, output=output, rates=rates)


def _up_to(network: Network, last: str, known: Collection[str]) -> list[Population]:
    """Return the populations to simulate, those known excepted, in the order activity flows."""
    names = [p.name for p in network.populations]
    return [p for p in network.populations[: names.index(last) + 1] if p.name not in known]


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
    afferents: Sequence[Projection],
    population: Population,
    activity: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return the activity (T, n, *shape) of one population for its input over all time."""
    import torch

    def tensor(array: FloatArray) -> torch.Tensor:
        return torch.tensor(np.array(array), dtype=dtype)

    maps = []
    for projection in afferents:
        connection = projection.connection
        bias = None if connection.bias is None else tensor(connection.bias)
        maps.append((projection, tensor(connection.weight), bias))
    neuron = population.neuron
    parameters = {name: tensor(v) for name, v in neuron.parameters.items()}
    sources = [activity[p.pre] for p in afferents if not p.recurrent]
    steps, batch = sources[0].shape[:2]
    state: dict[str, Any] = {
        "u": torch.zeros((batch, *population.shape), dtype=dtype),
        "v": tensor(neuron.v_init).expand(batch, *population.shape).clone(),
    }
    result = torch.empty((steps, batch, *population.shape), dtype=dtype)
    for t in range(steps):
        x = None
        for projection, weight, bias in maps:
            if not projection.recurrent:
                source = activity[projection.pre][t]
            else:
                # A population hears itself a step late.
                source = result[t - 1] if t else torch.zeros_like(result[0])
            current = _current(projection, source, weight, bias)
            x = current if x is None else x + current
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
