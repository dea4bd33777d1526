"""What a framework adds to torch's own layers, as data for the reading and the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.frameworks.calling import ONE_CALL, TIME_BEHIND, Call
from osbc_deploy.frameworks.layers import LAYERS, WEIGHTED, LayerReader
from osbc_deploy.frameworks.reasons import unsupported_part
from osbc_deploy.frameworks.regrid import REGRIDS
from osbc_deploy.model.graph import Network
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["Framework", "Reading", "kind_of", "unsupported"]

_TORCH_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def kind_of(module: nn.Module) -> type:
    """Return the class of a module, without what torch's parametrizations made of it."""
    kind: type = type_before_parametrizations(module)
    return kind


def unsupported(kind: type, known: Iterable[type]) -> str:
    """Return why a layer of some class is refused where only the known classes can be read."""
    # Others give their layers the names of torch's.
    alike = any(kind.__name__ == k.__name__ for k in known)
    name = f"{kind.__module__}.{kind.__name__}" if alike else kind.__name__
    return unsupported_part(kind.__name__, name)


def _nothing(module: nn.Module) -> None:
    """Leave a module as it is."""


def _no_potential(cell: nn.Module, answer: Any) -> torch.Tensor | None:
    """Return that a potential cannot be seen."""
    return None


def _as_it_is(module: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


def _well_placed(module: nn.Module, over_time: bool, merged: bool) -> Sequence[str]:
    return ()


def _by_step(module: nn.Module) -> bool:
    return False


def _no_votes(module: nn.Module) -> int:
    return 0


def _no_dynamics(module: nn.Module, kind: type) -> LinearDynamics | None:
    return None


@dataclass(frozen=True)
class Reading:
    """What was read from a module.

    Attributes
    ----------
    network : Network
    cells : mapping of str to torch.nn.Module
        The module that each population was read from; one module may be several populations.
    followed : bool
        Whether its answer is what its last neurons give in one call, moved at most.
    host : torch.nn.Module or None
        The layer whose answer is the network's input, where the first ones run on the host.
    votes : int
        How many outputs in a row the answer averages.
    constant : ndarray of float
        What the answer adds once to a sum over time; the output has it in each step.
    orders : mapping of str to ndarray of int
        Where the values of a module's answer lie in the population read from it, of those that do
        not lie as they are.
    """

    network: Network
    cells: Mapping[str, nn.Module]
    followed: bool
    host: nn.Module | None = None
    votes: int = 1
    constant: FloatArray = field(default_factory=lambda: np.zeros(()))
    orders: Mapping[str, IntArray] = field(default_factory=dict)

    def as_seen(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Return a population's values (n, T, ...) in the order (n, T, neurons) of its module's."""
        flat = values.reshape(*values.shape[:2], -1)
        return np.asarray(flat[..., self.orders.get(name, slice(None))])


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
        What a network may end in, for a message.
    runs : str
        How a network is written so that the framework runs it over time, for a message.
    timeless : str
        What to do about torch's LAYER where it gets all time steps, for a message.
    containers : tuple of type
        Modules of its own that call others; they are looked into.
    time_last : tuple of type
        Those of them that take all time steps along the last axis.
    layers : tuple of str
        Where its layers and neurons are; what it has elsewhere is looked into as well.
    models : tuple of str
        Where it has models whose own code decides how they are called, as that of users does.
    neurons : tuple of type
        What all its neurons derive from: what they hold belongs to them, and what they take beside
        a current is their state.
    misplaced : callable
        Says what is wrong with a module where it stands: whether it takes all time steps, and
        whether they are merged into the batch.
    over_time : callable
        Whether a model takes all time steps in one call, unless code of the user's own decides.
    votes : callable
        Returns how many values in a row a layer averages that lets neurons vote; 0 for any other.
    values : callable
        Returns the parameters by name that are not in a module's state.
    calls : tuple of Call
        How modules may be called; first the one for a single time step.
    reset : callable
        Brings the state that modules keep back to the start.
    potential : callable
        Returns the membrane potential of a cell that was just called and gave an answer: after that
        step, or after the last one where it took all; None where it cannot be seen.
    recorded : callable
        Returns the potentials of all steps that such a cell keeps; None where it keeps none.
    widened : callable
        A context in which a module whose weights are of double precision computes in it throughout.
    dynamics : callable
        Returns the linear dynamics of a neuron that is read as one of some class; None where it has
        none. Only what `readers` has is asked for.
    """

    package: str
    title: str
    readers: Mapping[type, LayerReader]
    supported: str
    ends: str
    runs: str
    timeless: str
    containers: tuple[type, ...] = ()
    time_last: tuple[type, ...] = ()
    layers: tuple[str, ...] = ("",)
    models: tuple[str, ...] = ()
    neurons: tuple[type, ...] = ()
    misplaced: Callable[[nn.Module, bool, bool], Sequence[str]] = _well_placed
    over_time: Callable[[nn.Module], bool] = _by_step
    votes: Callable[[nn.Module], int] = _no_votes
    values: Callable[[nn.Module], Mapping[str, Any]] = lambda module: {}
    calls: tuple[Call, ...] = ()
    reset: Callable[[nn.Module], None] = _nothing
    potential: Callable[[nn.Module, Any], torch.Tensor | None] = _no_potential
    recorded: Callable[[nn.Module], torch.Tensor | None] = lambda cell: None
    widened: Callable[[nn.Module], AbstractContextManager[None]] = _as_it_is
    dynamics: Callable[[nn.Module, type], LinearDynamics | None] = _no_dynamics

    def is_leaf(self, module: nn.Module) -> bool:
        """Tell whether a module is looked at as a whole."""
        kind = kind_of(module)
        if isinstance(module, self.neurons):
            return True
        if issubclass(kind, (*WEIGHTED, *REGRIDS)) and self._computes_itself(kind):
            # What it makes of its weights, as in training that quantizes, is what counts; and what
            # else it does than to move values.
            return False
        if any(k in self.readers for k in kind.__mro__):
            return True
        package = kind.__module__.split(".")[0]
        if package == "torch":
            return not issubclass(kind, _TORCH_CONTAINERS)
        if package == self.package:
            is_layer = self._is_in(kind, self.layers)
            return is_layer and not issubclass(kind, (*self.containers, *_TORCH_CONTAINERS))
        return any(k in LAYERS for k in kind.__mro__)

    def dynamics_of(self, module: nn.Module) -> LinearDynamics | None:
        """Return the linear dynamics of a neuron, or None where they cannot be told."""
        kind = next((k for k in kind_of(module).__mro__ if k in self.readers), None)
        if kind is None or not isinstance(module, self.neurons):
            return None
        return self.dynamics(module, kind)

    def is_own(self, module: nn.Module) -> bool:
        """Tell whether a module groups layers in code of the user's own."""
        kind = kind_of(module)
        foreign = kind.__module__.split(".")[0] not in ("torch", self.package)
        foreign = (foreign or self._is_in(kind, self.models)) and not self.is_leaf(module)
        return foreign and any(True for _ in module.children())

    def _computes_itself(self, kind: type) -> bool:
        """Tell whether a class has a forward of its own, not that of a layer that is read."""
        author = next(k for k in kind.__mro__ if "forward" in vars(k))
        return author not in self.readers and author not in LAYERS

    def _is_in(self, kind: type, places: Iterable[str]) -> bool:
        """Tell whether a class comes from some of the framework's modules."""
        return kind.__module__.startswith(tuple(f"{self.package}.{p}" for p in places))

    def own(self, module: nn.Module) -> list[str]:
        """Return the names of the classes in a model that are code of the user's own."""
        return sorted({type(m).__name__ for m in module.modules() if self.is_own(m)})

    def usual(self, module: nn.Module) -> Call:
        """Return how a model of its own containers is called."""
        if any(isinstance(part, self.time_last) for part in module.modules()):
            return TIME_BEHIND[0]
        return ONE_CALL[0] if self.over_time(module) else self.calls[0]
