"""Read trained SpikingJelly modules natively.

Networks are read in the step mode they are in: "s", one time step a call, or "m", the whole
sequence (T, N, ...) a call. Both compute the same; what counts is that all layers agree.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from spikingjelly.activation_based import base, layer, neuron
from torch import nn

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.frontends.folding import as_array
from osbc_deploy.frontends.probe import ONE_CALL, stepped
from osbc_deploy.frontends.stack import Framework, StackReader, read_stack
from osbc_deploy.network.graph import Network, Shape
from osbc_deploy.network.neurons import Neuron
from osbc_deploy.network.neurons.spikingjelly import IFNode, LIFNode, ParametricLIFNode

__all__ = ["SUPPORTED", "read_spikingjelly"]

SUPPORTED = (
    "Linear, Conv2d (zero padding), BatchNorm1d/2d after them, AvgPool2d, AdaptiveAvgPool2d onto a "
    "divisor of its input, Flatten, Dropout, Identity (torch's or layer.*), SeqToANNContainer, "
    "MultiStepContainer, IFNode, LIFNode, ParametricLIFNode, Sequential"
)


def read_spikingjelly(
    module: nn.Module,
    input_shape: Shape,
    *,
    source: str = "",
    samples: SpikeArray | None = None,
) -> Network:
    """Turn a SpikingJelly network into a float network that computes what it computes.

    Parameters
    ----------
    module : torch.nn.Module
        A `Sequential` of layers and nodes, or a module of one's own whose layers are called in
        the order they were registered.
    input_shape : tuple of int
        Shape of one time step of one sample, such as (2, 34, 34).
    source : str
        Name of the model for the report.
    samples : ndarray of uint8 (n, T, *input_shape), optional
        A few real samples; a module of one's own must give its output on them.

    Raises
    ------
    UnsupportedModelError
        With every module that cannot be represented, and where it is.
    ArtefactError
        When a weight or parameter is NaN or infinite.
    """
    modes = [m.step_mode for m in module.modules() if isinstance(m, base.StepModule)]
    return read_stack(
        module,
        input_shape,
        _SPIKINGJELLY,
        source=source,
        samples=samples,
        over_time=bool(modes) and modes[0] == "m",
    )


def _node(reader: StackReader, path: str, node: Any) -> None:
    _mode(reader, path, node)
    faults = faults_of(node)
    for fault in faults:
        reader.refuse(path, f"{type(node).__name__}: {fault}")
    reader.neurons(path, None if faults else neuron_of(node))


def faults_of(node: Any) -> list[str]:
    """Return what of a node has no counterpart."""
    faults = []
    values = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0])
    with torch.no_grad():
        fires = node.surrogate_function(values)
    if not (fires == (values >= 0)).all():
        faults.append(
            "its surrogate_function does not fire exactly where v >= v_threshold; set spiking=True"
        )
    if node._neuron_precision is not None:
        faults.append("it computes in mixed precision; build it without")
    return faults


def neuron_of(node: Any) -> Neuron:
    """Return the neuron of a node."""
    reset = "subtract" if node.v_reset is None else "zero"
    threshold, v_reset = as_array(node.v_threshold), as_array(node.v_reset or 0.0)
    if type(node) is neuron.IFNode:
        return IFNode(threshold, v_reset, reset)
    taken = "decayed" if node.decay_input else "added"
    if type(node) is neuron.LIFNode:
        return LIFNode(threshold, v_reset, reset, as_array(node.tau), taken)
    return ParametricLIFNode(threshold, v_reset, reset, as_array(node.w.sigmoid()), taken)


def _wrapped(kind: type, reader: StackReader, path: str, wrapped: Any) -> None:
    """Take SpikingJelly's version of a layer, which keeps the time axis from torch's."""
    _mode(reader, path, wrapped)
    _without_time(reader, path, wrapped, kind)


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
        reader.read(place, child)
    reader.over_time = over_time


def _without_time(reader: StackReader, path: str, wrapped: Any, kind: type) -> None:
    over_time, reader.over_time = reader.over_time, False
    reader.read_torch(path, wrapped, kind)
    reader.over_time = over_time


def _mode(reader: StackReader, path: str, module: Any) -> None:
    mode = "m" if reader.over_time else "s"
    if module.step_mode != mode:
        reader.refuse(
            path,
            f"{type(module).__name__} has step_mode {module.step_mode!r} where the network has "
            f"{mode!r}; call functional.set_step_mode(network, {mode!r})",
        )


def _start(module: nn.Module) -> None:
    """Bring all nodes to their initial state."""
    for node in module.modules():
        if isinstance(node, base.MemoryModule):
            node.reset()


def _values(module: nn.Module) -> dict[str, Any]:
    """Return a node's parameters that are plain numbers."""
    if not isinstance(module, neuron.BaseNode):
        return {}
    names = ("v_threshold", "v_reset", "tau")
    values = {name: getattr(module, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


_WRAPPED = {
    layer.Linear: nn.Linear,
    layer.Conv2d: nn.Conv2d,
    layer.BatchNorm1d: nn.BatchNorm1d,
    layer.BatchNorm2d: nn.BatchNorm2d,
    layer.AvgPool2d: nn.AvgPool2d,
    layer.AdaptiveAvgPool2d: nn.AdaptiveAvgPool2d,
    layer.Flatten: nn.Flatten,
    layer.Dropout: nn.Dropout,
    layer.Dropout2d: nn.Dropout2d,
}
_TIMELESS = (
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
_SPIKINGJELLY = Framework(
    package="spikingjelly",
    readers={
        **dict.fromkeys((neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode), _node),
        **{own: partial(_wrapped, kind) for own, kind in _WRAPPED.items()},
        **{kind: partial(_plain, kind) for kind in _TIMELESS},
        layer.SeqToANNContainer: _container,
        layer.MultiStepContainer: _container,
    },
    supported=SUPPORTED,
    ends="a node (IFNode, LIFNode, ParametricLIFNode)",
    stack="Return a torch.nn.Sequential of the layers in the order they are called",
    values=_values,
    calls=(*ONE_CALL, stepped),
    reset=_start,
)
