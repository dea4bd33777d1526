"""A compressed float network scored by NeuroBench's own harness, and its numbers checked.

NeuroBench (https://neurobench.ai, Yik et al. 2025) finds layers and neurons by their classes and
says 0 where it finds none or where a metric fails. So the network is built of what it knows, and
every number is compared with our own count (:mod:`.workload`); a difference is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import FidelityError, UnsupportedModelError, UsageError
from osbc_deploy.model.answer import read_by
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.currents import pooled
from osbc_deploy.model.delivery import arriving, lateness
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.neurobench.workload import count_workload
from osbc_deploy.options.notation import Readout

__all__ = ["TorchNetwork", "neurobench_scores"]

_ROUNDING = {
    # NeuroBench rounds to four decimals, in float32.
    "connection_sparsity": 0.51e-4,
    # Means of batches, weighted; accuracy's in float32.
    "activation_sparsity": 1e-9,
    "accuracy": 1e-6,
}
"""How far a number may be from ours; 0 by default."""


class _Linear(nn.Linear):
    """A linear map in its own precision whose result is float64.

    NeuroBench counts operations by running a copy with weights of 0 and 1 and adding up its
    output; in float32 that sum is wrong from 2^24 on.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).double()


class _Conv2d(nn.Conv2d):
    """A convolution in its own precision whose result is float64, as in :class:`_Linear`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).double()


class _NeuronModule(nn.Module):
    """One population with its state, cleared by :meth:`reset`."""

    def __init__(self, population: Population, dtype: torch.dtype) -> None:
        super().__init__()
        self._neuron = population.neuron
        self._shape = population.shape
        for name, value in population.neuron.parameters.items():
            self.register_buffer(name, torch.tensor(np.array(value), dtype=dtype))
        # Where the state starts is not a memory of its own, so it is not a buffer.
        self._start = torch.tensor(np.array(self._neuron.v_init), dtype=dtype)
        self._state: dict[str, Any] = {}

    def reset(self, batch: int) -> None:
        """Start anew with `batch` samples."""
        zeros = torch.zeros((batch, *self._shape), dtype=self._start.dtype)
        self._state = dict.fromkeys(self._neuron.states, zeros)
        self._state["v"] = self._start.expand(batch, *self._shape).clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parameters = {name: self.get_buffer(name) for name in self._neuron.parameters}
        answer: torch.Tensor
        answer, self._state = self._neuron.step(parameters, self._state, x, torch.where)
        return answer.to(x.dtype)


class _Spiking(_NeuronModule):
    """Neurons that NeuroBench is told of."""


class _Integrating(_NeuronModule):
    """A readout: its potential is not an activation."""


class TorchNetwork(nn.Module):
    """A float network as a torch module of layers and neurons that NeuroBench's hooks see.

    It gives what :func:`osbc_deploy.model.simulate.simulate` gives.

    Parameters
    ----------
    network : Network

    Raises
    ------
    UnsupportedModelError
        When potentials, not spikes, are passed on within the network.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        silent = [p.name for p in network.populations if not p.neuron.spiking]
        offenders = [f"{p.pre} feeds {p.post}" for p in network.projections if p.pre in silent]
        if offenders:
            raise UnsupportedModelError(
                "NeuroBench: potentials are passed on, whose operations are not defined",
                offenders,
                "Score networks whose populations send spikes.",
            )
        self.network = network
        self.dtype: torch.dtype = getattr(torch, network.dtype)
        # Children have no dots in their names, projections do.
        self.connections = nn.ModuleList(_layer(network, p) for p in network.projections)
        self.neurons = nn.ModuleList(
            (_Spiking if p.neuron.spiking else _Integrating)(p, self.dtype)
            for p in network.populations
        )

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return the output's activity (B, T, *output shape) for spikes (B, T, *input_shape)."""
        batch, steps = spikes.shape[:2]
        layers = dict(zip(self.network.projections, self.connections, strict=True))
        activity = {
            p.name: torch.empty((steps, batch, *p.shape), dtype=self.dtype)
            for p in self.network.populations
        }
        activity[INPUT] = spikes.to(self.dtype).moveaxis(1, 0)
        late = {p: lateness(self.network, p) for p in self.network.projections}
        for cell in self.neurons:
            cell.reset(batch)  # type: ignore[operator]
        for t in range(steps):
            for population, cell in zip(self.network.populations, self.neurons, strict=True):
                x = None
                for projection in self.network.afferents(population.name):
                    source = arriving(activity[projection.pre], t, late[projection])
                    current = layers[projection](_prepared(projection, source)).to(self.dtype)
                    x = current if x is None else x + current
                activity[population.name][t] = cell(x)
        return activity[self.network.output.name].moveaxis(0, 1)


def _layer(network: Network, projection: Projection) -> nn.Module:
    connection = projection.connection
    dtype = getattr(torch, network.dtype)
    layer = _module(connection, {"bias": connection.bias is not None, "dtype": dtype})
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.array(connection.weight), dtype=dtype))
        if layer.bias is not None and connection.bias is not None:
            layer.bias.copy_(torch.tensor(np.array(connection.bias), dtype=dtype))
    return layer


@singledispatch
def _module(connection: Connection, options: dict[str, Any]) -> nn.Linear | nn.Conv2d:
    """Return the layer of a connection, whose weights are still random."""
    raise no_such_kind(connection, "NeuroBench")


@_module.register(Dense)
def _(dense: Dense, options: dict[str, Any]) -> _Linear:
    return _Linear(dense.weight.shape[1], len(dense.weight), **options)


@_module.register(Conv)
def _(conv: Conv, options: dict[str, Any]) -> _Conv2d:
    out, per_group, *kernel = conv.weight.shape
    return _Conv2d(per_group * conv.groups, out, tuple(kernel), **conv.geometry, **options)


def _prepared(projection: Projection, source: torch.Tensor) -> torch.Tensor:
    pool = projection.pool
    if pool is not None:
        source = pooled(source, pool)
    return source if projection.connection.convolutional else source.flatten(1)


def neurobench_scores(
    compressed: CompressedNetwork | Network,
    samples: Samples,
    *,
    readout: Readout | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """Score the float network with compressed weights by NeuroBench and by our own count.

    Parameters
    ----------
    compressed : CompressedNetwork or Network
    samples : Samples
        With labels, the accuracy is scored as well.
    readout : {"sum", "last", "max", "vote:N"}, optional
        What the model's own answer is by default, or the sum.
    batch_size : int
        Samples run side by side.

    Returns
    -------
    dict
        ``"neurobench"`` and ``"counted"``: for each, the fields of :class:`.Workload` and, with
        labels, ``accuracy``. Connection sparsity is rounded to four decimals by NeuroBench.

    Raises
    ------
    UsageError
        Without NeuroBench.
    FidelityError
        When a number of NeuroBench is not ours; all of them are named.
    UnsupportedModelError
        As :class:`TorchNetwork`.
    """
    network = compressed.network if isinstance(compressed, CompressedNetwork) else compressed
    network, left = read_by(network, readout or network.readout or "sum")
    module = TorchNetwork(network)
    spikes = network.output.neuron.spiking

    def classes(output: FloatArray) -> IntArray:
        return decode(output, left, spiking=spikes)

    theirs = _run_harness(module, samples, classes, batch_size)
    spiking = [p.name for p in network.populations if p.neuron.spiking]
    run = simulate(network, samples.spikes, record=[INPUT, *spiking], batch_size=batch_size)
    ours: dict[str, float] = asdict(count_workload(network, run.spikes, batch_size=batch_size))
    if samples.labels is not None:
        ours["accuracy"] = float(np.mean(classes(run.output) == samples.labels))
    _check(theirs, ours)
    return {"neurobench": {name: float(theirs[name]) for name in ours}, "counted": ours}


def _run_harness(
    module: TorchNetwork,
    samples: Samples,
    classes: Callable[[FloatArray], IntArray],
    batch_size: int,
) -> dict[str, Any]:
    try:
        from neurobench.benchmarks import Benchmark
        from neurobench.metrics.static import ConnectionSparsity, Footprint
        from neurobench.metrics.workload import (
            ActivationSparsity,
            ClassificationAccuracy,
            SynapticOperations,
        )
        from neurobench.models import NeuroBenchModel
    except ImportError as error:
        raise UsageError(
            f"NeuroBench: cannot be imported ({error}). Install it with "
            "pip install 'osbc-deploy[neurobench]'."
        ) from error

    class Model(NeuroBenchModel):  # type: ignore[misc]
        """The network as NeuroBench wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.add_activation_module(_Spiking)

        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return module(batch)  # type: ignore[no-any-return]

        def __net__(self) -> nn.Module:
            return module

    labels = np.zeros(len(samples), np.int64) if samples.labels is None else samples.labels
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(np.array(samples.spikes)), torch.from_numpy(np.array(labels))
    )
    workload = [ActivationSparsity, SynapticOperations]
    if samples.labels is not None:
        workload.append(ClassificationAccuracy)
    benchmark = Benchmark(
        Model(),
        torch.utils.data.DataLoader(data, batch_size=batch_size),
        [],
        [lambda output: torch.from_numpy(classes(output.numpy()))],
        [[Footprint, ConnectionSparsity], workload],
    )
    found = benchmark.run(quiet=True)
    operations = found.get("SynapticOperations") or {}
    return {
        "footprint": found.get("Footprint"),
        "connection_sparsity": found.get("ConnectionSparsity"),
        "activation_sparsity": found.get("ActivationSparsity"),
        "effective_macs": operations.get("Effective_MACs"),
        "effective_acs": operations.get("Effective_ACs"),
        "dense": operations.get("Dense"),
        "accuracy": found.get("ClassificationAccuracy"),
    }


def _check(theirs: dict[str, Any], ours: dict[str, float]) -> None:
    faults = [
        f"{name.replace('_', ' ')} {theirs[name]}, counted {value}"
        for name, value in ours.items()
        # Written so that None and NaN are faults too.
        if theirs[name] is None or not abs(theirs[name] - value) <= _ROUNDING.get(name, 0.0)
    ]
    if faults:
        raise FidelityError(
            f"NeuroBench: differs from the network and its spikes in {'; '.join(faults)}. Its "
            "version may count otherwise; 2.3 is known to agree."
        )
