"""What the tensors and calls of a trace are, time, batch and a sample's own axes told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from osbc_deploy.arrays import IntArray
from osbc_deploy.frameworks.layout import Layout, whole_of
from osbc_deploy.frameworks.tracing import Event

__all__ = ["HEARS_NOTHING", "Axes", "Called", "Flow", "Signal", "part_of", "takes_flat"]

Axes = tuple[str, ...]
"""What comes before a sample's own axes: "T" and "N", in any order, "TN" where they are merged, and
"1" for an axis of one that a stack will fill."""


HEARS_NOTHING = (
    "hears nothing that was seen to come from the input, as where it is a constant, or went "
    "through numpy, torch.vmap or a torch.autograd.Function that forward calls; have functions of "
    "torch lead the input to it"
)


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample of the first of what it gives."""
        return self.event.results[0].shape[len(self.sources[0].axes) :]


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
        What is seen along its first axis, where that is neither time nor samples.
    still : bool
        Whether it is the same in all steps, of which `forward` knows by itself.
    layout : Layout or None
        Which values of what gives it are seen; None where all are, as they are given.
    turned : tuple of int
        Which of `axes` and `shape`, counted through, is at each place, where time or samples come
        behind axes of a sample; empty where they come first.
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
    still: bool = False
    layout: Layout | None = None
    turned: tuple[int, ...] = ()

    def moved(self, move: Callable[[IntArray], IntArray]) -> Signal:
        """Return the signal with a sample's axes moved, as positions in it are."""
        before = self.layout or whole_of(self.shape)
        index = move(before.index)
        after: Layout | None = Layout(before.shape, index)
        if index.shape == before.shape and Layout(before.shape, index).ordered:
            after = None
        return replace(self, shape=index.shape, layout=after, parts=())


@dataclass
class Flow:
    """A trace with axes and steps.

    Attributes
    ----------
    steps : int
    shown : int
        The step that stands for all: the second, in which what feeds back has arrived, or the
        first in which all has that a forward keeps for longer.
    calls : list of Called
        In the order in which they ended.
    answers : list of Signal
    host : Called or None
        The layer behind which the chip begins, where the model's first layers run on the host.
    shape : tuple of int
        Of a sample of the input, as the network takes it.
    """

    steps: int
    shown: int
    calls: list[Called] = field(default_factory=list)
    answers: list[Signal] = field(default_factory=list)
    host: Called | None = None
    shape: tuple[int, ...] = ()


def takes_flat(called: Called) -> bool:
    """Tell whether a call takes whatever lies flat in its order."""
    module = called.event.module
    return called.event.name == "linear" if module is None else isinstance(module, nn.Linear)


def part_of(signal: Signal, axis: str, index: Any) -> str:
    """Say that a forward takes a part of an axis that comes before a sample's own."""
    parts = index if isinstance(index, tuple) else (index,)
    shown = ", ".join(_written(part) for part in parts)
    if axis != "T":
        return f"takes a part of a signal, [{shown}]"
    way = "; give samples of these steps alone" if signal.called is None else ""
    return f"takes some of the time steps, [{shown}]{way}"


def _written(index: Any) -> str:
    """Return an index as it is written."""
    if not isinstance(index, slice):
        return "..." if index is Ellipsis else str(index)
    ends = ["" if end is None else str(end) for end in (index.start, index.stop)]
    return ":".join(ends if index.step is None else [*ends, str(index.step)])
