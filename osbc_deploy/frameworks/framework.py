"""What a framework adds to torch's own layers, as data for the reading and the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from osbc_deploy.frameworks.calling import Call
from osbc_deploy.model.graph import Network

if TYPE_CHECKING:
    from osbc_deploy.frameworks.stack import StackReader

__all__ = [
    "Framework",
    "LayerReader",
    "Placed",
    "Reading",
    "children_of",
    "kind_of",
    "unsupported",
]

_MULTIPLIES = "multiplies spikes by spikes; on the chip only weights do"
_WHY = {
    "VotingLayer": "averages the answers of several neurons; end the network with those neurons",
    "SpikingSelfAttention": _MULTIPLIES,
    "QKAttention": _MULTIPLIES,
    "TokenQKAttention": _MULTIPLIES,
    "ChannelQKAttention": _MULTIPLIES,
    "SpikeDrivenSelfAttention": _MULTIPLIES,
}
"""What layers that have no counterpart do, by the names of their classes."""

Placed: TypeAlias = tuple[str, nn.Module]
"""A layer and its place in the model."""

LayerReader: TypeAlias = "Callable[[StackReader, str, Any], None]"


def kind_of(module: nn.Module) -> type:
    """Return the class of a module, without what torch's parametrizations made of it."""
    kind: type = type_before_parametrizations(module)
    return kind


def unsupported(kind: type, known: Iterable[type]) -> str:
    """Return why a layer of some class is refused where only the known classes can be read."""
    if why := _WHY.get(kind.__name__):
        return f"{kind.__name__}: {why}"
    known = tuple(known)
    # Others give their layers the names of torch's.
    alike = any(kind.__name__ == k.__name__ for k in known)
    name = f"{kind.__module__}.{kind.__name__}" if alike else kind.__name__
    base = next((b.__name__ for b in kind.__mro__[1:] if b in known), None)
    more = "" if base is None else f"; it derives from {base}, and only {base} itself is read"
    return f"{name} is not supported{more}"


def children_of(module: nn.Module) -> Iterator[Placed]:
    """Yield the children of a module by name, one that is registered twice both times."""
    return ((name, child) for name, child in module._modules.items() if child is not None)


def _nothing(module: nn.Module) -> None:
    """Leave a module as it is."""


def _no_potential(cell: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return that a potential cannot be seen."""
    return None


def _as_it_is(module: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Reading:
    """What was read from a module.

    Attributes
    ----------
    network : Network
    cells : mapping of str to torch.nn.Module
        The module that each population was read from; one module may be several populations.
    over_time : bool
        Whether the module takes all time steps in one call, unless code of the user's own decides.
    traced : bool
        Whether all that its forward does was followed, and not only which layers it has.
    """

    network: Network
    cells: Mapping[str, nn.Module]
    over_time: bool
    traced: bool = False


@dataclass(frozen=True)
class Framework:
    """What a framework adds to torch's own layers.

    Attributes
    ----------
    package : str
        Where its modules come from; modules of any other package are the user's own.
    title : str
        Its name, for a message.
    readers : mapping of type to LayerReader
        How its neurons and layers are read; these come before torch's own layers.
    supported : str
        All layers that can be read, for a message.
    ends : str
        What a stack may end in, for a message.
    runs : str
        How a network is written so that the framework runs it over time, for a message.
    containers : tuple of type
        Modules that call their children in order.
    neurons : tuple of type
        What all its neurons derive from: what they hold belongs to them.
    values : callable
        Returns the parameters by name that are not in a module's state.
    calls : tuple of Call
        How modules may be called; first the one for a single time step.
    reset : callable
        Brings the state that modules keep back to the start.
    potential : callable
        Returns the membrane potential of a cell that was just called and gave an answer: after that
        step, or after the last one where it took all; None where it cannot be seen.
    widened : callable
        A context in which a module whose weights are of double precision computes in it throughout.
    """

    package: str
    title: str
    readers: Mapping[type, LayerReader]
    supported: str
    ends: str
    runs: str
    containers: tuple[type, ...] = (nn.Sequential,)
    neurons: tuple[type, ...] = ()
    values: Callable[[nn.Module], Mapping[str, Any]] = lambda module: {}
    calls: tuple[Call, ...] = ()
    reset: Callable[[nn.Module], None] = _nothing
    potential: Callable[[nn.Module, Any], torch.Tensor | None] = _no_potential
    widened: Callable[[nn.Module], AbstractContextManager[None]] = _as_it_is

    def is_own(self, module: nn.Module) -> bool:
        """Tell whether a module groups layers in code of the user's own."""
        package = kind_of(module).__module__.split(".")[0]
        foreign = package not in ("torch", self.package) and not isinstance(module, self.neurons)
        return foreign and any(True for _ in module.children())

    def own(self, module: nn.Module) -> list[str]:
        """Return the names of the classes in a model that are code of the user's own."""
        return sorted({type(m).__name__ for m in module.modules() if self.is_own(m)})

    def walk(self, module: nn.Module, path: str = "") -> Iterator[Placed]:
        """Yield the layers of a module with their places, in the order they were registered."""
        for name, child in children_of(module):
            place = f"{path}.{name}" if path else name
            # Lists are called by code of the user's own, which is held against its forward.
            listed = isinstance(child, nn.ModuleList | nn.ModuleDict)
            if type(child) in self.containers or listed or self.is_own(child):
                yield from self.walk(child, place)
            else:
                yield place, child
