"""Follow a trace from layer to layer: which axes are time, and which step a signal belongs to.

A forward takes time steps one by one or all in one call, cuts them apart, stacks them, merges them
into the batch. What comes out of it is the same: layers that hear signals of the same step, or of
the one before. Time and batch have other sizes than anything else would need, and are known from
the input on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from osbc_deploy.frameworks.tracing import Event, Trace, Value, values_in

__all__ = ["Called", "Flow", "Signal", "follow"]

Axes = tuple[str, ...]
"""What comes before a sample's own axes: "T" and "N", in any order, "TN" where they are merged, and
"1" for an axis of one that a stack will fill."""


@dataclass(frozen=True, eq=False)
class Called:
    """A layer or function at work on signals.

    Attributes
    ----------
    name : str
        Its path; with a number where a step calls it again.
    event : Event
    sources : tuple of Signal
        What it hears. Of neurons only the current: states that are passed along stay their own.
    step : int or None
        Which time step; None where it took all.
    fault : str
        Why there is no counterpart, where following it shows that.
    """

    name: str
    event: Event
    sources: tuple[Signal, ...]
    step: int | None
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Signal:
    """What a tensor of the trace is.

    Attributes
    ----------
    called : Called or None
        What gives it; None for the network's input.
    axes : tuple of str
    shape : tuple of int
        Of a sample.
    step : int or None
        Which time step; None where it holds all.
    state : bool
        Whether it is a state of neurons rather than their answer.
    over_time : {"", "sum", "mean", "max"}
        What of all steps it is; empty where it is of one, or of each.
    factor : float
        By which that sum was multiplied.
    added : tuple of Signal
        What was added up in it, step by step, where it is not yet all of them.
    parts : tuple of Signal
        What was stacked in it, where that is not time.
    """

    called: Called | None
    axes: Axes
    shape: tuple[int, ...]
    step: int | None = None
    state: bool = False
    over_time: str = ""
    factor: float = 1.0
    added: tuple[Signal, ...] = ()
    parts: tuple[Signal, ...] = ()


@dataclass
class Flow:
    """A trace with axes and steps.

    Attributes
    ----------
    steps : int
    shown : int
        The step that stands for all: the second, in which what feeds back has arrived.
    calls : list of Called
        In the order in which they ended.
    answers : list of Signal
    host : Called or None
        The layer behind which the chip begins, where the model's first layers run on the host.
    """

    steps: int
    shown: int
    calls: list[Called] = field(default_factory=list)
    answers: list[Signal] = field(default_factory=list)
    host: Called | None = None


def follow(trace: Trace, neurons: tuple[type, ...], host: nn.Module | None = None) -> Flow:
    """Return what is at work in a trace of input (T, n, ...), and on what.

    Parameters
    ----------
    trace : Trace
    neurons : tuple of type
        Whose answer comes first, and whose states follow it.
    host : torch.nn.Module, optional
        Whose answer is the network's input.
    """
    steps, batch, *shape = trace.source.shape
    flow = Flow(steps, min(1, steps - 1))
    follower = _Follower(flow, neurons, {"T": steps, "N": batch})
    follower.known[trace.source] = Signal(None, ("T", "N"), tuple(shape))
    for event in trace.events:
        follower.take(event)
        if host is not None and event.module is host and event.results:
            first = follower.known[event.results[0]]
            flow.host = first.called
            follower.known[event.results[0]] = replace(first, called=None, state=False)
    flow.answers = [follower.known[value] for value in trace.answers]
    return flow


@dataclass
class _Follower:
    flow: Flow
    neurons: tuple[type, ...]
    sizes: dict[str, int]
    known: dict[Value, Signal] = field(default_factory=dict)
    again: Counter[tuple[str, int | None]] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        """Note what the results of an event are."""
        values = values_in((event.args, tuple(event.kwargs.values())))
        if isinstance(event.module, self.neurons):
            values = values[:1]
        sources = [self.known[value] for value in values]
        rule = _RESHAPES if isinstance(event.module, nn.Flatten) else None
        if event.module is None:
            rule = _RULES.get(event.name)
        found = None if rule is None else rule(self, event, sources)
        if found is None or isinstance(found, str):
            found = self.call(event, sources, found or "")
        found += (
            [replace(found[0], state=True)] * (len(event.results) - len(found)) if found else []
        )
        self.known.update(zip(event.results, found, strict=True))

    def call(self, event: Event, sources: Sequence[Signal], fault: str = "") -> list[Signal]:
        """Note a call, and return its results."""
        steps = [s.step for s in sources if s.step is not None]
        step = max(steps) if steps else None
        name = event.name or "model"
        if event.module is None:
            name = f"{event.place}.{name}" if event.place else name
        self.again[name, step] += 1
        if (number := self.again[name, step]) > 1:
            name += f"#{number}"
        first = max(sources, key=lambda s: len(s.axes))
        reduced = next((s for s in sources if s.over_time), first)
        called = Called(name, event, tuple(sources), step, fault)
        self.flow.calls.append(called)
        found = []
        is_neuron = isinstance(event.module, self.neurons)
        for number, value in enumerate(event.results):
            sample = value.shape[len(first.axes) :]
            state = is_neuron and number > 0
            signal = Signal(called, first.axes, sample, step, state)
            found.append(replace(signal, over_time=reduced.over_time, factor=reduced.factor))
        return found

    def size(self, axes: Axes) -> tuple[int, ...]:
        """Return how long axes are."""
        return tuple(math.prod(self.sizes.get(a, 1) for a in axis) for axis in axes)

    def split(self, source: Signal, shape: tuple[int, ...]) -> tuple[Axes, tuple[int, ...]] | None:
        """Return the axes of a reshaped signal, and the shape of its samples, if it has samples."""
        atoms = tuple(a for axis in source.axes for a in axis if a != "1")
        ways: list[Axes] = [atoms, ("".join(atoms),)]
        for axes in (*ways, *(("1", *way) for way in ways)):
            sizes, rest = shape[: len(axes)], shape[len(axes) :]
            if sizes == self.size(axes) and math.prod(rest) == math.prod(source.shape):
                return axes, rest
        return None


Rule = Callable[[_Follower, Event, "list[Signal]"], "list[Signal] | str | None"]
"""Returns the results of a function that only moves signals, why it has no counterpart, or None
where it computes something."""


def _same(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal]:
    return [sources[0]]


def _reshaped(
    follower: _Follower, event: Event, sources: list[Signal]
) -> list[Signal] | str | None:
    source = sources[0]
    if not event.results:
        return None
    shape = event.results[0].shape
    found = follower.split(source, shape)
    if found is None:
        before = (*follower.size(source.axes), *source.shape)
        return (
            f"a tensor of shape {before} becomes {shape}; only a sample's own axes may be flattened"
        )
    axes, sample = found
    if sample == source.shape:
        return [replace(source, axes=axes)]
    (flat,) = follower.call(event, sources, _not_flat(source.shape, sample))
    return [replace(flat, axes=axes, shape=sample)]


def _not_flat(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    if len(after) == 1:
        return ""
    return f"a sample of shape {before} becomes {after}; it may only be flattened"


def _indexed(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    (source, index) = (sources[0], event.args[1])
    indices = index if isinstance(index, tuple) else (index,)
    axis = len(indices) - 1
    full = all(i == slice(None) for i in indices[:-1])
    if full and indices[-1] == slice(None):
        return [source]
    if not full or not isinstance(indices[-1], int):
        return f"takes a part of a signal, [{_shown(index)}]"
    return _at(follower, source, axis, indices[-1])


def _shown(index: Any) -> str:
    return ", ".join(
        "..." if i is Ellipsis else str(i)
        for i in (index if isinstance(index, tuple) else (index,))
    )


def _selected(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    given = [*event.args[1:], *event.kwargs.values()]
    return _at(follower, sources[0], *given)


def _at(follower: _Follower, source: Signal, axis: int, step: int) -> list[Signal] | str:
    if axis >= len(source.axes) or source.axes[axis] != "T":
        return "takes a part of a signal; only time steps can be told apart"
    axes = source.axes[:axis] + source.axes[axis + 1 :]
    return [replace(source, axes=axes, step=step % follower.sizes["T"])]


def _unbound(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    axis = _axis(event)
    found: list[Signal] = []
    for step in range(len(event.results)):
        one = _at(follower, sources[0], axis if isinstance(axis, int) else 0, step)
        if isinstance(one, str):
            return one
        found += one
    return found


def _axis(event: Event) -> Any:
    """Return the axis that a function is given, alone in a list or not; 0 by default."""
    given = event.kwargs.get("dim", event.args[1] if len(event.args) > 1 else 0)
    return given[0] if isinstance(given, tuple | list) and len(given) == 1 else given


def _stacked(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    axis, steps = _axis(event), [s.step for s in sources]
    first = sources[0]
    whole = len(sources) == len(event.args[0]) and all(s.axes == first.axes for s in sources)
    opened = event.name == "stack"
    if whole and steps == list(range(follower.sizes["T"])):
        shown = sources[follower.flow.shown]
        if opened and axis in range(len(first.axes) + 1):
            axes = (*first.axes[:axis], "T", *first.axes[axis:])
            return [replace(shown, axes=axes, step=None)]
        if not opened and axis == 0 and first.axes[0] == "1":
            return [replace(shown, axes=("T", *first.axes[1:]), step=None)]
    if whole and opened and axis == 0:
        (found,) = follower.call(event, sources)
        return [replace(found, parts=tuple(sources))]
    return None


def _reduced(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    source, axis = sources[0], _axis(event)
    given = len(event.args) > 1 or "dim" in event.kwargs
    if source.parts and given and axis == 0 and event.name == "sum":
        return follower.call(replace(event, name="add", kwargs={}), source.parts)
    if given and isinstance(axis, int) and axis < len(source.axes) and source.axes[axis] == "T":
        axes = source.axes[:axis] + source.axes[axis + 1 :]
        what = {"amax": "max"}.get(event.name, event.name)
        return [replace(source, axes=axes, over_time=what)] * len(event.results)
    return None


def _added(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    """Take a sum that grows from step to step, which is one over time once it holds all of them."""
    others = [a for a in event.args if isinstance(a, int | float | torch.Tensor)]
    if len(sources) == 1 and len(others) == 1 and not torch.as_tensor(others[0]).any():
        return [sources[0]]
    steps = [one for s in sources for one in (s.added or (s,))]
    first = steps[0]
    alike = all(
        s.step is not None
        and s.called is not None
        and first.called is not None
        and (s.called.name, s.axes, s.state) == (first.called.name, first.axes, first.state)
        for s in steps
    )
    if len(sources) < 2 or not alike or len({s.step for s in steps}) < len(steps):
        return None
    if len(steps) == follower.sizes["T"]:
        shown = next(s for s in steps if s.step == follower.flow.shown)
        return [replace(shown, step=None, over_time="sum")]
    return [replace(s, added=tuple(steps)) for s in follower.call(event, sources)]


def _turned(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    source = sources[0]
    given = [*event.args[1:], *event.kwargs.values()]
    rank = len(source.axes) + len(source.shape)
    order = list(range(rank))
    if event.name == "permute":
        axes = given[0] if isinstance(given[0], tuple | list) else given
        order = [int(a) % rank for a in axes]
    else:
        a, b = (int(g) % rank for g in given)
        order[a], order[b] = order[b], order[a]
    lead = len(source.axes)
    if order[lead:] != list(range(lead, rank)):
        return f"{event.name} moves axes of a sample"
    return [replace(source, axes=tuple(source.axes[a] for a in order[:lead]))]


def _factored(follower: _Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    """Take a factor on a sum over time, which changes nothing about which class is largest."""
    numbers = [a for a in event.args if isinstance(a, int | float)]
    (source, *others) = sources
    if not source.over_time or others or len(numbers) != 1 or numbers[0] <= 0:
        return None
    factor = source.factor * (numbers[0] if "mul" in event.name else 1 / numbers[0])
    if source.over_time == "sum" and math.isclose(factor * follower.sizes["T"], 1.0):
        return [replace(source, over_time="mean", factor=1.0)]
    return [replace(source, factor=factor)]


_RESHAPES: Rule = _reshaped
_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("contiguous", "clone", "detach", "data", "to", "float", "double", "type", "cpu",
         "requires_grad", "dropout", "dropout1d", "dropout2d", "alias"), _same),
    **dict.fromkeys(
        ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "ravel", "view_as",
         "reshape_as"), _reshaped),
    "getitem": _indexed,
    "select": _selected,
    "unbind": _unbound,
    "stack": _stacked,
    "cat": _stacked,
    **dict.fromkeys(("sum", "mean", "max", "amax"), _reduced),
    **dict.fromkeys(("transpose", "permute", "swapaxes", "swapdims"), _turned),
    **dict.fromkeys(("add", "radd", "iadd"), _added),
    **dict.fromkeys(("mul", "rmul", "div", "truediv"), _factored),
}  # fmt: skip
