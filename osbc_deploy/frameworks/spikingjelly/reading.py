"""Read trained SpikingJelly modules natively.

Networks are read in the step mode they are in: "s", one time step a call, or "m", the whole
sequence (T, N, ...) a call. Both compute the same; what counts is that all layers agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import base, layer, neuron
from torch import nn

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.frameworks.calling import ONE_CALL, stepped
from osbc_deploy.frameworks.framework import Framework, Placed, Reading, kind_of
from osbc_deploy.frameworks.proof import proven
from osbc_deploy.frameworks.spikingjelly.graph import is_whole, read_graph, traced
from osbc_deploy.frameworks.spikingjelly.nodes import (
    CONTAINERS,
    NODES,
    NOT_STEPPED,
    TIMELESS,
    WRAPPED,
    faults_of,
    mode_faults,
    neuron_of,
)
from osbc_deploy.frameworks.stack import StackReader, dtype_of, read_stack
from osbc_deploy.frameworks.substitution import Substitution
from osbc_deploy.model.graph import Network, Shape

__all__ = ["SUPPORTED", "read_spikingjelly"]

SUPPORTED = (
    "Linear, Conv2d (zero padding), BatchNorm1d/2d after them, AvgPool2d, AdaptiveAvgPool2d onto a "
    "divisor of its input, MaxPool2d and AdaptiveMaxPool2d of spikes, "
    "Flatten, Dropout, Identity (torch's or layer.*), SeqToANNContainer, "
    "MultiStepContainer, IFNode, LIFNode, ParametricLIFNode, Sequential"
)


def read_spikingjelly(
    module: nn.Module,
    input_shape: Shape,
    *,
    source: str = "",
    samples: SpikeArray | None = None,
    substitute: Substitution | None = None,
) -> Network:
    """Turn a SpikingJelly network into a float network that computes what it computes.

    Parameters
    ----------
    module : torch.nn.Module
        A `Sequential` of layers and nodes, or a module of one's own, which may branch where it can
        be traced.
    input_shape : tuple of int
        Shape of one time step of one sample, such as (2, 34, 34).
    source : str
        Name of the model for the report.
    samples : ndarray of uint8 (n, T, *input_shape), optional
        Real samples, on which it must compute what SpikingJelly computes. Without them nothing is
        proven, and a module of one's own is refused.
    substitute : Substitution, optional
        What may be exchanged first, see :mod:`osbc_deploy.frameworks.substitution`.

    Raises
    ------
    UnsupportedModelError
        With every module that cannot be represented, and where it is, or with the first layer
        that computes something else than SpikingJelly's.
    ArtefactError
        When a weight or parameter is NaN or infinite.
    """

    def read(order: Sequence[Placed] | None) -> Reading:
        return _read(module, input_shape, samples, source, order)

    return proven(module, _SPIKINGJELLY, read, samples, substitute)


def _read(
    module: nn.Module,
    input_shape: Shape,
    samples: SpikeArray | None,
    source: str,
    order: Sequence[Placed] | None,
) -> Reading:
    # Containers are of step mode "m" without saying so, whatever the layers in them are.
    modes = ["m" for m in module.modules() if isinstance(m, CONTAINERS)]
    modes += [str(m.step_mode) for m in module.modules() if hasattr(m, "step_mode")]
    over_time = bool(modes) and modes[0] == "m"
    if any(_branches(m) for m in module.modules()):
        found = _read_traced(module, input_shape, samples, source, over_time=over_time)
        if found is not None:
            return found
    return read_stack(
        module, input_shape, _SPIKINGJELLY, source=source, over_time=over_time, order=order
    )


def _branches(module: nn.Module) -> bool:
    """Tell whether a module calls its children in code of its own."""
    calls = any(True for _ in module.children()) and not is_whole(module)
    return calls and type(module) not in _SPIKINGJELLY.containers


def _read_traced(
    module: nn.Module,
    input_shape: Shape,
    samples: SpikeArray | None,
    source: str,
    *,
    over_time: bool,
) -> Reading | None:
    """Read what a forward does, or return None where it cannot be traced."""
    dtype = dtype_of(module)
    # Two samples and two steps tell a loop over either from a single call.
    shown = np.resize(0 if samples is None else samples[:2, :2], (2, 2, *input_shape))
    x = torch.from_numpy(np.moveaxis(shown, 1, 0).astype(dtype))
    _start(module)
    graph = traced(module, x if over_time else x[0])
    _start(module)
    if graph is None:
        return None
    source = source or type(module).__name__
    network = read_graph(module, graph, input_shape, dtype=dtype, source=source)
    places = {p.name: p.name.partition("#")[0] for p in network.populations}
    # Gates that no layer is, such as masks, cannot be watched.
    layers = dict(module.named_modules(remove_duplicate=False))
    cells = {name: layers[path] for name, path in places.items() if path in layers}
    return Reading(network, cells, over_time, traced=True)


def _node(reader: StackReader, path: str, node: Any) -> None:
    faults = faults_of(node, over_time=bool(reader.over_time))
    for fault in faults:
        reader.refuse(path, f"{type(node).__name__}: {fault}")
    reader.neurons(path, None if faults else neuron_of(node))


def _wrapped(kind: type, reader: StackReader, path: str, wrapped: Any) -> None:
    """Take SpikingJelly's version of a layer, which keeps the time axis from torch's."""
    for fault in mode_faults(wrapped, over_time=bool(reader.over_time)):
        reader.refuse(path, f"{kind.__name__}: {fault}")
    over_time, reader.over_time = reader.over_time, False
    reader.read_torch(path, wrapped, kind)
    reader.over_time = over_time


def _plain(kind: type, reader: StackReader, path: str, plain: Any) -> None:
    """Take torch's own layer where it can stand."""
    if reader.over_time:
        reader.refuse(
            path,
            f"torch's {kind.__name__} knows no time axis; use spikingjelly's layer.{kind.__name__}",
        )
    reader.read_torch(path, plain, kind)


def _container(reader: StackReader, path: str, container: nn.Module) -> None:
    """Take a container that calls its children without the time axis."""
    over_time, reader.over_time = reader.over_time, False
    for place, child in _SPIKINGJELLY.walk(container, path):
        if kind_of(child) in NODES and isinstance(container, layer.SeqToANNContainer):
            reader.refuse(place, NOT_STEPPED)
        reader.read(place, child)
    reader.over_time = over_time


def _start(module: nn.Module) -> None:
    """Bring all nodes to their initial state."""
    for node in module.modules():
        if isinstance(node, base.MemoryModule):
            node.reset()


def _potential(node: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return the potential that a node keeps."""
    found = getattr(node, "v", None)
    return found if isinstance(found, torch.Tensor) else None


def _values(module: nn.Module) -> dict[str, Any]:
    """Return a node's parameters that are plain numbers."""
    if not isinstance(module, neuron.BaseNode):
        return {}
    names = ("v_threshold", "v_reset", "tau")
    values = {name: getattr(module, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


_SPIKINGJELLY = Framework(
    package="spikingjelly",
    title="SpikingJelly",
    readers={
        **dict.fromkeys(NODES, _node),
        **{own: partial(_wrapped, kind) for own, kind in WRAPPED.items()},
        **{kind: partial(_plain, kind) for kind in TIMELESS},
        **dict.fromkeys(CONTAINERS, _container),
    },
    supported=SUPPORTED,
    ends="a node (IFNode, LIFNode, ParametricLIFNode)",
    runs="all layers must be in one step mode, and torch's own know no time axis",
    neurons=(base.MemoryModule,),
    values=_values,
    calls=(stepped, *ONE_CALL),
    reset=_start,
    potential=_potential,
)
