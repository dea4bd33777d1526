"""Read SpikingJelly modules that branch: residual connections, and what else their forward does.

The forward is traced; its nodes, layers and additions become a graph of neurons and linear
operations, which :mod:`osbc_deploy.frameworks.assemble` turns into projections. A sum of spikes
that feeds a convolution so becomes one projection with the same weights from each population.
Whatever has no exact counterpart is listed, all of it, with its place.
"""

from __future__ import annotations

import operator
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import base, layer
from torch import fx, nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.assemble import Cells, Graph, Node, assemble
from osbc_deploy.frameworks.calling import evaluated
from osbc_deploy.frameworks.compose import Add, Flatten, NotComposable, Scale, Shift, result_shape
from osbc_deploy.frameworks.folding import as_array, batch_norm_factors
from osbc_deploy.frameworks.framework import children_of, kind_of, unsupported
from osbc_deploy.frameworks.layers import adaptive_pooling, average_pooling, convolution
from osbc_deploy.frameworks.spikingjelly.gates import take_gate, take_largest
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
from osbc_deploy.frameworks.tracing import place, trace, value
from osbc_deploy.model.graph import INPUT, Dense, Network, Shape

__all__ = ["is_whole", "read_graph", "traced"]

_ADDED = (operator.add, operator.iadd, torch.add)
_MULTIPLIED = (operator.mul, operator.imul, torch.mul, operator.matmul, torch.matmul, torch.bmm)
_LEAST = {"minimum": 2, "min": 2, "maximum": 1, "max": 1}
"""How many of two signals must be 1 where it is 1, of operations that are gates."""
_RESHAPED = ("flatten", "reshape", "view", "contiguous", "squeeze", "unsqueeze", "clone", "detach")


def is_whole(module: nn.Module) -> bool:
    """Tell whether a module is looked at as a whole."""
    packages = type(module).__module__.split(".")
    if packages[0] == "torch":
        return not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    own = packages[0] == "spikingjelly" and packages[-2] in ("neuron", "layer")
    return own or isinstance(module, base.MemoryModule)


def traced(module: nn.Module, x: torch.Tensor) -> fx.Graph | None:
    """Return the graph of a forward, or None where it cannot be traced.

    A forward that calls its nodes once for each time step is none, either: it is a loop over time.
    """
    with evaluated(module):
        try:
            graph = trace(module, x, is_whole)
        except Exception:  # noqa: BLE001 - any forward may do anything
            return None
    called = [n.target for n in graph.nodes if n.op == "call_module"]
    nodes = [t for t in called if isinstance(module.get_submodule(t), base.MemoryModule)]
    return graph if len(set(nodes)) == len(nodes) else None


def read_graph(
    module: nn.Module, graph: fx.Graph, input_shape: Shape, *, dtype: str, source: str
) -> Network:
    """Turn a traced forward into a float network.

    Parameters
    ----------
    module : torch.nn.Module
    graph : torch.fx.Graph
        Of its forward on input (T, N, *input_shape), or (N, *input_shape) where its step mode
        is "s".
    input_shape : tuple of int
    dtype, source : str
        See :class:`osbc_deploy.model.graph.Network`.

    Raises
    ------
    UnsupportedModelError
        With everything that has no exact counterpart, and its place.
    """
    reader = _Reader(module, input_shape)
    for node in graph.nodes:
        reader.read(node)
    if reader.faults:
        raise UnsupportedModelError(
            f"model: {len(reader.faults)} part(s) cannot be represented for input of shape "
            f"{input_shape}",
            reader.faults,
            "See docs/frontends.md for what is imported.",
        )
    return assemble(
        Graph(input_shape, reader.nodes, reader.edges, reader.output),
        dtype=dtype,
        source=source,
        notes=reader.notes,
    )


@dataclass
class _Reader:
    """Walks through a traced forward."""

    module: nn.Module
    input_shape: Shape
    names: dict[fx.Node, str] = field(default_factory=dict)
    """Which node of the graph computes the value of a traced node."""
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    output: str = ""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: set[fx.Node] = field(default_factory=set)
    """Traced nodes that have no counterpart."""
    readouts: set[fx.Node] = field(default_factory=set)
    """Traced nodes whose value is summed over time."""
    lead: int = 0
    """Axes before the sample's own: time and batch, or batch alone."""

    def read(self, node: fx.Node) -> None:
        """Take one operation of the forward."""
        if node.op == "placeholder":
            if not self.names:
                self.lead = value(node).ndim - len(self.input_shape)
                self.names[node] = INPUT
        elif node.op == "output":
            self._output(node)
        elif node.op == "call_module":
            self._layer(node)
        elif node.op in ("call_function", "call_method"):
            self._operation(node)
        elif isinstance(value(node), torch.Tensor):
            self._refuse(node, f"uses the tensor {node.target} outside of a layer")

    def _refuse(self, node: fx.Node, why: str, name: str | None = None) -> None:
        where = name or place(node) or "forward"
        self.faults.append(f"{where}: {why}")
        self.refused.add(node)
        # What follows is read as if this had changed nothing, so that all faults are found.
        self.names[node] = next((self.names[s] for s in self._sources(node)), INPUT)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if source in self.names]

    def _add(self, node: fx.Node, name: str, operation: Node) -> None:
        """Put an operation behind the sources of a traced node."""
        name = _free(name, self.nodes)
        self.nodes[name] = operation
        self.edges += [(self.names[source], name) for source in self._sources(node)]
        self.names[node] = name

    def _follow(self, node: fx.Node, name: str, operation: Node) -> None:
        """Put one more operation behind what a traced node has become."""
        name = _free(name, self.nodes)
        self.nodes[name] = operation
        self.edges.append((self.names[node], name))
        self.names[node] = name

    def _layer(self, node: fx.Node) -> None:
        path = str(node.target)
        found = self.module.get_submodule(path)
        source = node.all_input_nodes[0]
        if source in self.readouts:
            self._refuse(node, f"{type(found).__name__} hears a sum over time", path)
            return
        self._add(node, f"{path}.in", Add())
        if isinstance(found, CONTAINERS):
            self._contained(node, path, found, self._shape(source), found)
        else:
            self._one(node, path, found, self._shape(source))

    def _contained(
        self, node: fx.Node, path: str, container: nn.Module, shape: Shape, outer: nn.Module
    ) -> Shape:
        """Take the layers of a container that keeps the time axis from them."""
        for name, child in children_of(container):
            place = f"{path}.{name}"
            if type(child) is nn.Sequential:
                shape = self._contained(node, place, child, shape, outer)
                continue
            if kind_of(child) in NODES and isinstance(outer, layer.SeqToANNContainer):
                self._refuse(node, NOT_STEPPED, place)
            before = self.names[node]
            self._one(node, place, child, shape, inside=True)
            shape = self._shape_after(before, self.names[node], shape)
        return shape

    def _shape_after(self, before: str, name: str, shape: Shape) -> Shape:
        """Return what the operations from one name to another make of a shape."""
        operation = self.nodes.get(name)
        if name != before and isinstance(operation, Cells):
            # Gates have a shape of their own, other neurons that of what they hear.
            (name,) = self._hears(name)
            operation = self.nodes.get(name)
        if name == before or operation is None or isinstance(operation, Cells):
            return shape
        try:
            return result_shape(operation, shape)
        except NotComposable:
            # It is reported with all others when the graph is assembled.
            return shape

    def _one(
        self, node: fx.Node, path: str, found: Any, shape: Shape, *, inside: bool = False
    ) -> None:
        """Take one layer for input of a shape; `inside` a container it sees no time axis."""
        own = kind_of(found)
        kind = WRAPPED.get(own, own)
        over_time = self.lead == 2 and not inside
        if own in WRAPPED:
            for fault in mode_faults(found, over_time=over_time):
                self._refuse(node, f"{kind.__name__}: {fault}", path)
        if own is kind and kind in TIMELESS and over_time:
            self._refuse(
                node,
                f"torch's {kind.__name__} knows no time axis; use spikingjelly's "
                f"layer.{kind.__name__}",
                path,
            )
        elif kind in NODES:
            faults = faults_of(found, over_time=over_time)
            for fault in faults:
                self._refuse(node, f"{kind.__name__}: {fault}", path)
            if not faults:
                self._follow(node, path, Cells(neuron_of(found)))
        elif kind is nn.Conv2d:
            conv, faults = convolution(found)
            for fault in faults:
                self._refuse(node, fault, path)
            self._follow(node, path, conv)
        elif kind is nn.Linear:
            bias = None if found.bias is None else as_array(found.bias)
            self._follow(node, path, Dense(as_array(found.weight), bias))
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._batch_norm(node, path, found, shape)
        elif kind in (nn.AvgPool2d, nn.AdaptiveAvgPool2d):
            self._average(node, path, found, shape)
        elif kind in (nn.MaxPool2d, nn.AdaptiveMaxPool2d):
            take_largest(self, node, path, found, shape)
        elif kind is nn.Flatten and inside and found.start_dim == 1:
            self._follow(node, path, Flatten())
        elif kind is nn.Flatten:
            self._reshaped(node, path)
        elif kind in (nn.Dropout, nn.Dropout2d):
            self.notes.append(f"{path}: {kind.__name__} dropped (inactive after training)")
        elif kind is not nn.Identity:
            self._refuse(node, unsupported(kind, (*NODES, *WRAPPED, *WRAPPED.values())), path)

    def _average(self, node: fx.Node, path: str, found: Any, shape: Shape) -> None:
        try:
            if isinstance(found, nn.AvgPool2d):
                pool = average_pooling(found)
            else:
                pool = adaptive_pooling(found, shape)
        except ValueError as why:
            self._refuse(node, str(why), path)
        else:
            self._follow(node, path, pool)

    def _batch_norm(self, node: fx.Node, path: str, norm: Any, shape: Shape) -> None:
        if norm.running_mean is None:
            self._refuse(
                node,
                f"{type(norm).__name__} without running statistics cannot be folded",
                path,
            )
            return
        factor, offset = batch_norm_factors(norm)
        spread = (-1,) + (1,) * (len(shape) - 1)
        self._follow(node, path, Scale(factor.reshape(spread)))
        self._follow(node, f"{path}.shift", Shift(offset.reshape(spread)))

    def _shape(self, node: fx.Node) -> Shape:
        return tuple(value(node).shape[self.lead :])

    def _reshaped(self, node: fx.Node, path: str) -> None:
        """Take a change of shape that flattens samples, or changes nothing."""
        before, after = value(node.all_input_nodes[0]), value(node)
        lead = before.shape[: self.lead]
        if after.shape == before.shape:
            return
        if after.shape == (*lead, before[(0,) * self.lead].numel()):
            self._follow(node, path, Flatten())
        else:
            self._refuse(
                node,
                f"a tensor of shape {tuple(before.shape)} becomes {tuple(after.shape)}; only a "
                "sample may be flattened",
            )

    def _operation(self, node: fx.Node) -> None:
        sources = self._sources(node)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if not sources:
            return
        path = f"{place(node)}.{name}" if place(node) else str(name)
        parts = [a for a in node.args if isinstance(a, fx.Node)]
        numbers = [a for a in node.args if isinstance(a, int | float)]
        if self.readouts & set(sources):
            # Neither a positive factor nor how often it is applied changes which class is largest.
            if name in ("mul", "truediv", "div") and len(numbers) == 1 and numbers[0] > 0:
                self.names[node] = self.names[sources[0]]
                self.readouts.add(node)
            else:
                self._refuse(node, f"{name} of a sum over time")
        elif node.target in _ADDED or name in ("add", "add_"):
            if len(parts) != 2 or node.kwargs:
                self._refuse(node, f"{name} of anything but two signals")
            elif len({self.names[source] for source in sources}) == 1:
                # A signal that is added to itself is heard once.
                self.names[node] = self.names[sources[0]]
                self._follow(node, path, Scale(np.asarray(2.0)))
            else:
                self._add(node, path, Add())
        elif node.target in _MULTIPLIED or name in ("mul", "mul_", "matmul", "bmm"):
            if len(parts) == 1 and len(numbers) == 1:
                self._add(node, path, Scale(np.asarray(float(numbers[0]))))
            elif len(parts) == 2 and name in ("mul", "mul_", "imul"):
                take_gate(self, node, path, "product", 2)
            else:
                self._refuse(node, f"{name} multiplies signals; on the chip only weights do")
        elif name in _LEAST and len(parts) == len(node.args) == 2 and not node.kwargs:
            take_gate(self, node, path, name, _LEAST[name])
        elif name in ("sub", "isub", "rsub") and len(parts) == len(numbers) == 1:
            self._less(node, path, name)
        elif name in _RESHAPED:
            self._add(node, f"{path}.in", Add())
            self._reshaped(node, path)
        elif name in ("mean", "sum") and self._over_time(node):
            self.names[node] = self.names[sources[0]]
            self.readouts.add(node)
            self.notes.append(f"{path}: over time, left to the readout")
        else:
            self._refuse(node, f"{name} is not supported")

    def _less(self, node: fx.Node, path: str, name: str) -> None:
        """Take the difference between a signal and a number."""
        signal_first = isinstance(node.args[0], fx.Node)
        number = next(a for a in node.args if isinstance(a, int | float))
        sign = 1.0 if signal_first != (name == "rsub") else -1.0
        self._add(node, path, Scale(np.asarray(sign)))
        self._follow(node, f"{path}.shift", Shift(np.asarray(-sign * number)))

    def _over_time(self, node: fx.Node) -> bool:
        """Tell whether an operation sums up the time axis."""
        given = (*node.args[1:], *node.kwargs.values())
        return self.lead == 2 and given in ((0,), ([0],), ((0,),))

    def _output(self, node: fx.Node) -> None:
        found = node.args[0]
        while isinstance(found, tuple | list) and found:
            found = found[0]
        while isinstance(found, fx.Node) and found in self.readouts:
            found = self._sources(found)[0]
        if found in self.refused:
            return
        name = self.names.get(found, "") if isinstance(found, fx.Node) else ""
        last = self.nodes.get(name)
        while isinstance(last, Add | Flatten) and len(heard := self._hears(name)) == 1:
            name = heard[0]
            last = self.nodes.get(name)
        if isinstance(last, Cells):
            self.output = name
        else:
            what = f"in {name}" if name else "in something else"
            self.faults.append(
                f"{name or 'forward'}: the network ends {what}; end it with a node (IFNode, "
                "LIFNode, ParametricLIFNode), whose spikes are the answer"
            )

    def _hears(self, name: str) -> list[str]:
        return [pre for pre, post in self.edges if post == name]


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: a layer may be called more than once."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
