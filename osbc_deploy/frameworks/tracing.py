"""Trace what a module's forward does with its input, by running it.

Calls of layers and functions of tensors are noted while a forward runs on a real input, so that
loops, branches and conditions of any kind are followed as they happen. Layers are watched from the
outside; what other hooks do to what they take and give is noted as what the forward does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from osbc_deploy.frameworks.calling import Call

__all__ = ["Event", "Trace", "Value", "trace", "values_in"]

_SHAPE_ONLY = ("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like")
_OPERATORS = ("iadd", "isub", "imul", "itruediv")
_NEW = ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor")


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that comes from the input."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Event:
    """A layer or function that was called with what comes from the input.

    Attributes
    ----------
    name : str
        The path of the layer, or the name of the function without underscores.
    place : str
        The path of the module whose forward called it; empty for the model itself.
    module : torch.nn.Module or None
        The layer; None for a function.
    args, kwargs
        As they were given, with a :class:`Value` for each tensor that comes from the input.
    results : tuple of Value
        The tensors of its answer, in order; empty for a call that failed.
    """

    name: str
    place: str
    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[Value, ...]


@dataclass
class Trace:
    """What a forward did.

    Attributes
    ----------
    source : Value
        The input of all time steps.
    events : list of Event
        In the order in which they ended.
    answers : list of Value
        The tensors of its answer that come from the input.
    others : list of (tuple of int, bool)
        Shapes of the tensors of its answer that were not seen to come from there, as what it makes
        of numbers outside of torch, and whether any of `answers` stands before them.
    failure : Exception or SystemExit or None
        What it raised; a layer that did is the last event then, or `place` says whose code did.
    """

    source: Value
    events: list[Event] = field(default_factory=list)
    answers: list[Value] = field(default_factory=list)
    others: list[tuple[tuple[int, ...], bool]] = field(default_factory=list)
    failure: BaseException | None = None
    place: str = ""


def trace(
    module: nn.Module,
    call: Call,
    x: torch.Tensor,
    is_leaf: Callable[[nn.Module], bool],
    kept: Callable[[nn.Module, Any], Sequence[torch.Tensor]] = lambda part, answer: (),
    neurons: tuple[type, ...] = (),
) -> Trace:
    """Return what a module's forward does with input x.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; its state changes.
    call : Call
        How it is called.
    x : torch.Tensor (T, n, ...)
    is_leaf : callable
        Whether a submodule is one event; all others are looked into.
    kept : callable
        Returns what a submodule that gave an answer keeps beside it, which a forward may take from
        there: the last of its event's results.
    neurons : tuple of type
        Submodules that are events also where they are called with nothing that comes from the
        input, as in the first step of a forward that gives them what it kept of the step before.
    """
    tracer = _Tracer(x, kept, neurons)
    found = tracer.trace
    hooks: list[Any] = []
    for path, part in module.named_modules():
        leaf = is_leaf(part)
        enter = partial(tracer.enter, path, leaf)
        leave = partial(tracer.leave, path, leaf)
        hooks.append(part.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(part.register_forward_hook(leave, prepend=True, with_kwargs=True))
    try:
        with tracer:
            answer = call(module, x)
        shown = tracer.seen(answer)
        found.answers = list(values_in(shown))
        found.others = list(_others(module, shown))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any forward may do anything
        found.failure = error
        tracer.stop()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def values_in(arguments: Any) -> list[Value]:
    """Return the values in arguments, in order."""
    found: list[Value] = []
    map_aggregate(arguments, lambda a: found.append(a) if isinstance(a, Value) else None)
    return found


def _others(module: nn.Module, answer: Any) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Yield the tensors in an answer that are neither values nor weights, with axes for samples."""
    weights = {id(weight) for weight in (*module.parameters(), *module.buffers())}
    parts: list[Any] = []
    map_aggregate(answer, parts.append)
    behind = False
    for part in parts:
        behind |= isinstance(part, Value)
        if isinstance(part, torch.Tensor) and part.ndim > 1 and id(part) not in weights:
            yield tuple(part.shape), behind


class _Tracer(TorchFunctionMode):
    def __init__(
        self,
        x: torch.Tensor,
        kept: Callable[[nn.Module, Any], Sequence[torch.Tensor]],
        neurons: tuple[type, ...],
    ) -> None:
        super().__init__()
        self._kept, self._neurons = kept, neurons
        self._values: Any = WeakIdKeyDictionary()
        self._open: list[tuple[str, bool, nn.Module, Any]] = []
        """Modules that are running: path, whether it is a leaf, it, and what it was given."""
        self._leaves = 0
        self.trace = Trace(self._keep(x))

    def _keep(self, tensor: torch.Tensor) -> Value:
        value = Value(tuple(tensor.shape))
        self._values[tensor] = value
        return value

    def seen(self, arguments: Any) -> Any:
        """Return arguments with values for the tensors that come from the input."""

        def known(a: Any) -> Any:
            return self._values.get(a, a) if isinstance(a, torch.Tensor) else a

        return map_aggregate(arguments, known)

    def _results(self, answer: Any) -> tuple[Value, ...]:
        tensors: dict[int, torch.Tensor] = {}

        def keep(a: Any) -> None:
            if isinstance(a, torch.Tensor):
                # A state may be the answer itself.
                tensors.setdefault(id(a), a)

        map_aggregate(answer, keep)
        return tuple(self._keep(tensor) for tensor in tensors.values())

    def enter(self, path: str, leaf: bool, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = self.seen((args, kwargs)) if leaf and not self._leaves else None
        self._open.append((path, leaf, module, given))
        self._leaves += leaf

    def leave(
        self, path: str, leaf: bool, module: nn.Module, args: Any, kwargs: Any, answer: Any
    ) -> None:
        _, _, _, given = self._open.pop()
        self._leaves -= leaf
        if given is not None and (values_in(given) or isinstance(module, self._neurons)):
            results = self._results(answer)
            for kept in self._kept(module, answer):
                if kept not in self._values:
                    results += (self._keep(kept),)
            self._note(path, module, given, results)

    def stop(self) -> None:
        """Note the layer that raised, or the place of the code that did."""
        for path, _, module, given in self._open:
            self.trace.place = path
            if given is not None:
                if values_in(given):
                    self._note(path, module, given, ())
                break

    def _note(
        self, name: str, module: nn.Module | None, given: Any, results: tuple[Value, ...]
    ) -> None:
        outside = [path for path, leaf, _, _ in self._open if not leaf]
        place = outside[-1] if outside else ""
        args, kwargs = given
        self.trace.events.append(Event(name, place, module, args, kwargs, results))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._leaves:
            return func(*args, **(kwargs or {}))
        given = self.seen((args, kwargs or {}))
        if _is_in_place(func):
            # A tensor of numbers is noted as it was, not as what will have become of it.
            given = map_aggregate(given, lambda a: a.clone() if a is args[0] else a)
        answer = func(*args, **(kwargs or {}))
        name = _name(func)
        if not values_in(given) or name in _SHAPE_ONLY or name in _NEW:
            return answer
        # Whatever is put into a tensor makes it one that comes from the input.
        results = self._results(args[0] if name == "setitem" else answer)
        if results:
            self._note(name, None, given, results)
        return answer


def _name(func: Any) -> str:
    """Return the name of a function or attribute of tensors."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func.__self__, "__name__", name)
    return str(name).strip("_")


def _is_in_place(func: Any) -> bool:
    """Tell whether a function changes the first of its arguments: ``x += y``, ``x.add_(y)``."""
    name = str(getattr(func, "__name__", ""))
    if name.endswith("__"):
        return name.startswith("__i") and name.strip("_") in _OPERATORS
    return name.endswith("_")
