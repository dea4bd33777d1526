"""Functions that only move signals: between axes, from step to step, within a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from osbc_deploy.frameworks.regrid import REGRIDDED, regridded
from osbc_deploy.frameworks.signals import Axes, Called, Flow, Signal, part_of
from osbc_deploy.frameworks.tracing import Event, Value
from osbc_deploy.frameworks.turning import turned

__all__ = ["MOVES", "OF_A_BATCH", "Follower", "Rule", "reshaped"]

OF_A_BATCH = "takes a part of a batch; only time steps can be told apart"


@dataclass
class Follower:
    """What is known of a trace that is being followed.

    Attributes
    ----------
    flow : Flow
    neurons : tuple of type
    sizes : dict of int
        Of time ("T") and batch ("N").
    known : dict of Signal
        What each tensor so far is.
    again : Counter
        How often each call was made in a step.
    begun : set of torch.nn.Module
        Neurons that were called before anything of the input reached them, as those that hear what
        a forward keeps: each call of them is the next step.
    calls : Counter
        How often each of these was called.
    still : bool
        Whether the input is the same in all steps: each call of neurons is the next step then.
    """

    flow: Flow
    neurons: tuple[type, ...]
    sizes: dict[str, int]
    known: dict[Value, Signal] = field(default_factory=dict)
    again: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    begun: set[nn.Module | None] = field(default_factory=set)
    calls: Counter[nn.Module | None] = field(default_factory=Counter)
    still: bool = False

    def call(self, event: Event, sources: Sequence[Signal], fault: str = "") -> list[Signal]:
        """Note a call, and return its results."""
        steps = [s.step for s in sources if s.step is not None]
        step = max(steps) if steps else None
        name = event.name or "model"
        if event.module is None:
            name = f"{event.place}.{name}" if event.place else name
        still = all(s.still for s in sources)
        is_neuron = isinstance(event.module, self.neurons)
        if event.module in self.begun and "T" not in sources[0].axes:
            step = self.calls[event.module]
            self.calls[event.module] += 1
        if self.still and is_neuron and "T" not in sources[0].axes:
            step, still = self.again[name, None], False
            self.again[name, None] += 1
        elif not still:
            self.again[name, step] += 1
            # A function of all steps is another one than that of each.
            all_steps = event.module is None and step is not None
            number = self.again[name, step] + (self.again[name, None] if all_steps else 0)
            if number > 1:
                name += f"#{number}"
        first = max(sources, key=lambda s: len(s.axes))
        reduced = next((s for s in sources if s.over_time), first)
        called = Called(name, event, tuple(sources), step, fault)
        self.flow.calls.append(called)
        found = []
        by_step = is_neuron and self._by_step(first.axes, event.results)
        for number, value in enumerate(event.results):
            axes = first.axes
            if is_neuron and not self.has(axes, value.shape):
                # Of one step: one of a list of all, or what is left after the last.
                axes = tuple(a for a in axes if a != "T")
            sample = value.shape[len(axes) :]
            state = is_neuron and number > 0 and not by_step
            at = number if by_step else step
            signal = Signal(called, axes, sample, at, state, still=still)
            found.append(replace(signal, over_time=reduced.over_time, factor=reduced.factor))
        return found

    def has(self, axes: Axes, shape: Sequence[int]) -> bool:
        """Tell whether a tensor of a shape begins with some axes."""
        return tuple(shape[: len(axes)]) == self.size(axes)

    def _by_step(self, axes: Axes, values: Sequence[Value]) -> bool:
        """Tell whether what neurons gave for all steps is a list of one tensor for each."""
        listed = "T" in axes and len(values) == self.sizes["T"]
        return listed and not any(self.has(axes, value.shape) for value in values)

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


Rule = Callable[[Follower, Event, "list[Signal]"], "list[Signal] | str | None"]
"""Returns the results of a function that only moves signals, why it has no counterpart, or None
where it computes something."""


def _same(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal]:
    return [sources[0]]


def reshaped(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str | None:
    """Take what is seen in another shape."""
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
    return [replace(source.moved(lambda index: index.reshape(sample)), axes=axes)]


def _indexed(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    (source, given) = (sources[0], event.args[1])
    indices = given if isinstance(given, tuple) else (given,)
    if not indices:
        return [source]
    fixed = all(i is None or i is Ellipsis or isinstance(i, int | slice | list) for i in indices)
    if len(sources) > 1 or not fixed:
        return "takes a part of a signal that tensors choose; only fixed ones can be told"
    rank = len(source.axes) + len(source.shape)
    if Ellipsis in indices:
        place = indices.index(Ellipsis)
        missing = rank - sum(i is not None for i in indices) + 1
        indices = (*indices[:place], *(slice(None),) * missing, *indices[place + 1 :])
    if indices[0] is None and source.axes[:1] == ("N",):
        source, indices = replace(source, axes=("1", *source.axes)), indices[1:]
    if source.parts and isinstance(indices[0], int):
        source, indices = source.parts[indices[0]], indices[1:]
    lead = len(source.axes)
    for axis, index in reversed(list(enumerate(indices[:lead]))):
        if index == slice(None) and index is not None:
            continue
        if not isinstance(index, int):
            return part_of(source, source.axes[axis], given)
        found = _at(follower, source, axis, index)
        if isinstance(found, str):
            return found
        (source,) = found
    inner = indices[lead:]
    return [source.moved(lambda positions: positions[inner])] if inner else [source]


def _selected(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    given = [*event.args[1:], *event.kwargs.values()]
    return _at(follower, sources[0], *given)


def _at(follower: Follower, source: Signal, axis: int, step: int) -> list[Signal] | str:
    """Take one place of an axis."""
    lead = len(source.axes)
    axis %= lead + len(source.shape)
    if source.parts and axis == 0:
        return [source.parts[step]]
    if axis >= lead:
        return [source.moved(lambda index: np.take(index, step, axis - lead))]
    if source.axes[axis] != "T":
        return OF_A_BATCH
    axes = source.axes[:axis] + source.axes[axis + 1 :]
    return [replace(source, axes=axes, step=step % follower.sizes["T"])]


def _unbound(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    axis = _axis(event)
    found: list[Signal] = []
    for step in range(len(event.results)):
        one = _at(follower, sources[0], axis if isinstance(axis, int) else 0, step)
        if isinstance(one, str):
            return one
        found += one
    return found


def _cut(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    """Take the parts of chunk and split one after the other."""
    source, lead = sources[0], len(sources[0].axes)
    axis = event.kwargs.get("dim", event.args[2] if len(event.args) > 2 else 0)
    axis = axis % (lead + len(source.shape)) - lead
    if axis < 0:
        return f"{event.name} takes parts of a batch or of time"
    parts, start = [], 0
    for result in event.results:
        stop = start + result.shape[lead + axis]
        inner = (*(slice(None),) * axis, slice(start, stop))
        parts.append(source.moved(lambda index, inner=inner: index[inner]))  # type: ignore[misc]
        start = stop
    return parts


def _widened(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str | None:
    """Take what is repeated along axes of 1."""
    source, shape = sources[0], event.results[0].shape
    lead = len(source.axes)
    steps = source.still and source.axes in (("N",), ("1", "N"))
    if steps and shape == (*follower.size(("T", "N")), *source.shape):
        return [replace(source, axes=("T", "N"), still=False)]
    if steps and shape[1:] == (*follower.size(("N",)), *source.shape):
        return (
            f"{event.name} shows the input for {shape[0]} time steps, the samples have "
            f"{follower.size(('T',))[0]}: give images without time, and --repeat {shape[0]}"
        )
    sample = shape[lead:]
    if shape[:lead] != follower.size(source.axes) or len(sample) < len(source.shape):
        return f"{event.name} repeats time steps or samples"
    if any(s not in (1, w) for s, w in zip(source.shape[::-1], sample[::-1], strict=False)):
        return regridded(follower, event, sources)
    return [source.moved(lambda index: np.broadcast_to(index, sample))]


def _axis(event: Event) -> Any:
    """Return the axis that a function is given, alone in a list or not; 0 by default."""
    given = event.kwargs.get("dim", event.args[1] if len(event.args) > 1 else 0)
    return given[0] if isinstance(given, tuple | list) and len(given) == 1 else given


def _stacked(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str | None:
    axis, steps = _axis(event), [s.step for s in sources]
    first = sources[0]
    whole = len(sources) == len(event.args[0]) and all(s.axes == first.axes for s in sources)
    opened = event.name == "stack"
    rank = len(first.axes) + len(first.shape) + opened
    axis = axis % max(1, rank) if isinstance(axis, int) else axis
    same = first.still and opened and axis == 0 and set(sources) == {first}
    if same and len(sources) == follower.sizes["T"]:
        return [replace(first, axes=("T", *first.axes), still=False)]
    if whole and steps == list(range(follower.sizes["T"])):
        shown = sources[follower.flow.shown]
        if opened and axis in range(len(first.axes) + 1):
            axes = (*first.axes[:axis], "T", *first.axes[axis:])
            return [replace(shown, axes=axes, step=None)]
        if opened:
            order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
            return [replace(shown, axes=("T", *first.axes), step=None, turned=tuple(order))]
        if not opened and axis == 0 and first.axes[0] == "1":
            return [replace(shown, axes=("T", *first.axes[1:]), step=None)]
    missing = follower.sizes["T"] - len(sources)
    if opened and len(event.args[0]) == follower.sizes["T"] and missing:
        return (
            f"stacks a tensor for each step, {missing} of which do not come from the input; have "
            "forward answer with what its last layer gives in every step"
        )
    if not opened and isinstance(axis, int) and axis < len(first.axes):
        return f"{event.name} puts time steps or samples beside others; only samples may have more"
    if whole and opened and axis == 0:
        (found,) = follower.call(event, sources)
        return [replace(found, parts=tuple(sources))]
    return None


def _reduced(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    source, axis = sources[0], _axis(event)
    given = len(event.args) > 1 or "dim" in event.kwargs
    if source.parts and given and axis == 0 and event.name in ("sum", "mean"):
        return _together(follower, event, source.parts)
    if given and isinstance(axis, int):
        axis %= max(1, len(source.axes) + len(source.shape))
    if given and isinstance(axis, int) and axis < len(source.axes) and source.axes[axis] == "T":
        axes = source.axes[:axis] + source.axes[axis + 1 :]
        what = _OVER_TIME.get(event.name, event.name)
        return [replace(source, axes=axes, over_time=what)] * len(event.results)
    return None


def _together(follower: Follower, event: Event, parts: Sequence[Signal]) -> list[Signal]:
    """Take the sum or mean of signals that were stacked, one after the other."""
    found, *others = parts
    for other in others:
        (found,) = follower.call(replace(event, name="add", kwargs={}), [found, other])
    if event.name == "mean":
        shared = replace(event, name="div", args=(event.args[0], len(parts)), kwargs={})
        (found,) = follower.call(shared, [found])
    return [found]


def _added(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
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
    if any(_is_made_of(one, other) for one in sources for other in sources if one is not other):
        # What is added hangs on the sum so far: v + (x - v) / tau.
        return None
    if len(steps) == follower.sizes["T"]:
        shown = next(s for s in steps if s.step == follower.flow.shown)
        return [replace(shown, step=None, over_time="sum")]
    return [replace(s, added=tuple(steps)) for s in follower.call(event, sources)]


def _is_made_of(signal: Signal, other: Signal) -> bool:
    """Tell whether functions make a signal of another."""
    called = signal.called
    if called is None or called.event.module is not None:
        return False
    return any(s.called is other.called or _is_made_of(s, other) for s in called.sources)


def _factored(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | None:
    """Take a factor on a sum over time, which changes nothing about which class is largest."""
    numbers = [a for a in event.args if isinstance(a, int | float)]
    (source, *others) = sources
    if not source.over_time or others or len(numbers) != 1 or numbers[0] <= 0:
        return None
    factor = source.factor * (numbers[0] if "mul" in event.name else 1 / numbers[0])
    if source.over_time == "sum" and math.isclose(factor * follower.sizes["T"], 1.0):
        return [replace(source, over_time="mean", factor=1.0)]
    return [replace(source, factor=factor)]


_OVER_TIME = {"amax": "max", "any": "max", "nansum": "sum", "count_nonzero": "sum"}
"""What functions take of all steps of spikes, by another name; of potentials it is not the same."""

MOVES: dict[str, Rule] = {
    **dict.fromkeys(REGRIDDED, regridded),
    **dict.fromkeys(
        ("contiguous", "clone", "detach", "data", "to", "float", "double", "type", "cpu",
         "requires_grad", "dropout", "dropout1d", "dropout2d", "alias"), _same),
    **dict.fromkeys(
        ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "ravel", "view_as",
         "reshape_as"), reshaped),
    "getitem": _indexed,
    "select": _selected,
    "unbind": _unbound,
    **dict.fromkeys(("chunk", "split"), _cut),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to", "repeat"), _widened),
    "stack": _stacked,
    "cat": _stacked,
    **dict.fromkeys(("sum", "mean", "max", *_OVER_TIME), _reduced),
    **dict.fromkeys(
        ("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis"), turned),
    **dict.fromkeys(("add", "radd", "iadd"), _added),
    **dict.fromkeys(("mul", "rmul", "div", "truediv"), _factored),
}  # fmt: skip
