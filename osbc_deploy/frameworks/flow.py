"""Follow a trace from layer to layer: which axes are time, and which step a signal belongs to.

A forward takes time steps one by one or all in one call, cuts them apart, stacks them, merges them
into the batch. What comes out of it is the same: layers that hear signals of the same step, or of
the one before. Time and batch have other sizes than anything else would need, and are known from
the input on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from osbc_deploy.frameworks.layout import Layout, whole_of
from osbc_deploy.frameworks.moves import MOVES, Follower, Rule, reshaped
from osbc_deploy.frameworks.regrid import REGRIDS, regridded
from osbc_deploy.frameworks.signals import HEARS_NOTHING, Called, Flow, Signal, takes_flat
from osbc_deploy.frameworks.tracing import Event, Trace, values_in
from osbc_deploy.frameworks.turns import turned_back
from osbc_deploy.model.graph import Shape

__all__ = ["Called", "Flow", "Signal", "follow"]


def follow(
    trace: Trace,
    neurons: tuple[type, ...],
    host: nn.Module | None = None,
    still: int = 0,
    shown: int = 1,
) -> Flow:
    """Return what is at work in a trace of input (T, n, ...), and on what.

    Where layers hear the input in another shape than it is given, (1, 28, 28) of 784 values, it is
    that of the network's input.

    Parameters
    ----------
    trace : Trace
    neurons : tuple of type
        Whose answer comes first, and whose states follow it.
    host : torch.nn.Module, optional
        Whose answer is the network's input.
    still : int
        For how many steps the input is shown where it is (n, ...), the same in all of them.
    shown : int
        The step that stands for all, if there are so many.
    """
    flow = _followed(trace, neurons, host, still, None, shown)
    shape = None if host is not None else _maps_heard(flow)
    return flow if shape is None else _followed(trace, neurons, host, still, shape, shown)


def _maps_heard(flow: Flow) -> Shape | None:
    """Return the shape in which layers of maps hear all of the input, where it is another one."""
    heard = [
        (called, source.shape, layouts)
        for called in flow.calls
        if not (takes_flat(called) or _leaves_shape(called))
        for source in called.sources
        if (layouts := _of_input(source)) is not None
    ]
    shapes = {shape for _, shape, _ in heard}
    if len(shapes) != 1 or not all(_hears_maps(called) for called, _, _ in heard):
        return None
    turned = all(layouts and all(one.ordered for one in layouts) for _, _, layouts in heard)
    return shapes.pop() if turned else None


def _hears_maps(called: Called) -> bool:
    """Tell whether a call is a layer of maps, (C, H, W) or (C, L)."""
    event, rank = called.event, len(called.sources[0].shape)
    kinds = () if event.module is None else type(event.module).__mro__
    names = [kind.__name__ for kind in kinds] or [event.name]
    return rank in (2, 3) and any(name.endswith(f"{rank - 1}d") for name in names)


def _leaves_shape(called: Called) -> bool:
    """Tell whether a call takes each value of one signal by itself, as far as its shape tells."""
    event, source = called.event, called.sources[0]
    passes = event.module is None or isinstance(event.module, nn.Dropout | nn.Identity)
    shapes = [value.shape[len(source.axes) :] for value in event.results[:1]]
    return passes and len(called.sources) == 1 and shapes == [source.shape]


def _of_input(signal: Signal) -> list[Layout] | None:
    """Return how the input lies in a signal that holds each of its values, by itself; else None."""
    found = [signal]
    while signal.called is not None and _leaves_shape(signal.called):
        signal = signal.called.sources[0]
        found.append(signal)
    return [s.layout for s in found if s.layout is not None] if signal.called is None else None


def _followed(
    trace: Trace,
    neurons: tuple[type, ...],
    host: nn.Module | None,
    still: int,
    maps: Shape | None,
    shown: int,
) -> Flow:
    seen = trace.source.shape
    steps, batch, *shape = (still, *seen) if still else seen
    flow = Flow(steps, min(shown, steps - 1), shape=tuple(shape) if maps is None else maps)
    follower = _Following(flow, neurons, {"T": steps, "N": batch}, still=still > 0)
    axes = ("N",) if still else ("T", "N")
    layout = None if maps is None else whole_of(maps, tuple(shape))
    follower.known[trace.source] = Signal(None, axes, tuple(shape), still=still > 0, layout=layout)
    for event in trace.events:
        follower.take(event)
        if host is not None and event.module is host and event.results:
            first = follower.known[event.results[0]]
            flow.host = first.called
            follower.known[event.results[0]] = replace(first, called=None, state=False)
    flow.answers = [follower.known[value] for value in trace.answers]
    return flow


def _filled(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str | None:
    """Take a tensor that is filled step by step, ``out[t] = spikes``, as the stack it becomes."""
    axis, step = _place(event.args[1])
    before = sources[0].parts if len(sources) > 1 else ()
    if axis is None or step != len(before) or not event.results:
        return None
    parts = (*before, sources[-1])
    if len(parts) == follower.sizes["T"]:
        stack = replace(event, name="stack", args=(parts, axis), kwargs={})
        if (found := MOVES["stack"](follower, stack, list(parts))) is not None:
            return found
    (found_one,) = follower.call(event, sources)
    return [replace(found_one, parts=parts)]


def _place(index: Any) -> tuple[int | None, int]:
    """Return of which axis an index takes one place, and all of the others, and which; or None."""
    indices = index if isinstance(index, tuple) else (index,)
    fixed = [axis for axis, i in enumerate(indices) if isinstance(i, int)]
    whole = [i for i in indices if i is Ellipsis or (isinstance(i, slice) and i == slice(None))]
    if len(fixed) != 1 or len(whole) != len(indices) - 1 or Ellipsis in indices[: fixed[0]]:
        return None, 0
    return fixed[0], indices[fixed[0]]


def _as_cat(event: Event) -> Event:
    """Return what puts tensors side by side under its usual name."""
    if event.module is not None or event.name not in ("concat", "concatenate", "hstack"):
        return event
    if event.name == "hstack":
        return replace(event, name="cat", args=(event.args[0], 1), kwargs={})
    return replace(event, name="cat")


@dataclass
class _Following(Follower):
    def begin(self, event: Event, current: torch.Tensor) -> None:
        """Note a call of neurons with a current that does not come from the input."""
        self.begun.add(event.module)
        ways = (axes for axes in (("T", "N"), ("N",)) if self.has(axes, current.shape))
        axes = next(ways, ())
        given = Signal(None, axes, tuple(current.shape[len(axes) :]))
        found = self.call(event, [given], HEARS_NOTHING)
        found += [replace(found[0], state=True)] * (len(event.results) - 1)
        self.known.update(zip(event.results, found, strict=False))

    def take(self, event: Event) -> None:
        """Note what the results of an event are."""
        event = _as_cat(event)
        values = values_in((event.args, tuple(event.kwargs.values())))
        if isinstance(event.module, self.neurons):
            # What they take beside a current is their state.
            (current, *_) = (*event.args, *event.kwargs.values(), None)
            if isinstance(current, torch.Tensor):
                self.begin(event, current)
                return
            values = values[:1]
        sources = [self.known[value] for value in values]
        turns = isinstance(event.module, nn.Flatten | nn.Unflatten)
        rule: Rule | None = reshaped if turns else None
        if isinstance(event.module, REGRIDS):
            rule = regridded
        if event.module is None:
            rule = _filled if event.name == "setitem" else MOVES.get(event.name)
        if any(source.turned for source in sources):
            rule = turned_back
        found = None if rule is None else rule(self, event, sources)
        if found is None or isinstance(found, str):
            found = self.call(event, sources, found or "")
        found += (
            [replace(found[0], state=True)] * (len(event.results) - len(found)) if found else []
        )
        self.known.update(zip(event.results, found, strict=True))
