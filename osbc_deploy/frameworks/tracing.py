"""Trace what a module's forward does with its input, on a real input of the right shape.

torch.fx runs a forward once with stand-ins for tensors. Forwards of spiking networks ask for shapes
and step modes; so every stand-in here carries the tensor it stands for, and such questions are
answered from it.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

__all__ = ["place", "trace", "value"]


def trace(module: nn.Module, x: torch.Tensor, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph:
    """Return the graph of a module's forward on input x.

    Parameters
    ----------
    module : torch.nn.Module
        Called with x alone; its other arguments keep their defaults.
    x : torch.Tensor
    is_leaf : callable
        Whether a submodule is one node of the graph; all others are looked into.

    Returns
    -------
    torch.fx.Graph
        For each node :func:`value` and :func:`place` tell more.

    Raises
    ------
    Exception
        Whatever the forward raises, or torch.fx where it decides by the values of a tensor.
    """
    arguments = list(inspect.signature(module.forward).parameters.values())[1:]
    fixed = {a.name: a.default for a in arguments if a.default is not a.empty}
    with torch.no_grad():
        return _Tracer(x, is_leaf).trace(module, concrete_args=fixed or None)


def value(node: fx.Node) -> Any:
    """Return what a node computed on the input it was traced with."""
    return node.meta["value"]


def place(node: fx.Node) -> str:
    """Return the path of the module whose forward holds a node; empty for the model itself."""
    found: str = node.meta["place"]
    return found


class _Tracer(fx.Tracer):
    def __init__(self, x: torch.Tensor, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._x = x
        self._is_leaf = is_leaf
        self._places = [""]
        self._computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_leaf(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        self._places.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._places.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        # torch.fx reads every attribute of a module through this, also while a layer computes.
        if self._computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        proxy.node.meta["place"] = self._places[-1]
        self._computing = True
        try:
            proxy.node.meta["value"] = self._computed(kind, target, args, kwargs)
        finally:
            self._computing = False
        return proxy

    def create_node(self, kind: str, target: Any, *more: Any, **named: Any) -> fx.Node:
        node = super().create_node(kind, target, *more, **named)
        if kind == "get_attr":
            # A tensor from outside of the trace gets its node here alone.
            node.meta.update(place=self._places[-1], value=_attribute(self.root, str(target)))
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Concrete(node, self)

    def _computed(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        given, named = map_aggregate((args, kwargs), _filled)
        if kind == "placeholder":
            return self._x if not given else given[0]
        if kind == "get_attr":
            return _attribute(self.root, target)
        if kind == "call_module":
            return self.root.get_submodule(target)(*given, **named)
        if kind == "call_method":
            return getattr(given[0], target)(*given[1:], **named)
        return target(*given, **named) if kind == "call_function" else None


class _Concrete(fx.Proxy):
    """A stand-in that knows the shape of what it stands for."""

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"):
            return getattr(value(self.node), name)
        return super().__getattr__(name)

    def dim(self) -> int:
        return int(value(self.node).dim())

    def size(self, *axis: int) -> Any:
        return value(self.node).size(*axis)

    def numel(self) -> int:
        return int(value(self.node).numel())

    def __len__(self) -> int:
        return len(value(self.node))

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, number) for number in range(len(self))])


def _filled(argument: Any) -> Any:
    return value(argument.node) if isinstance(argument, fx.Proxy) else argument


def _attribute(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root
