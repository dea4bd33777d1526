"""Leaky sums that a forward keeps by itself: ``v = 0.9 * v + fc(spikes)``, the readout of many.

They are potentials that nothing resets, written out. Two steps of one show it: a step of it is made
of the step before, times a constant, and of one current.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.signals import Called, Flow, Signal
from osbc_deploy.frameworks.tracing import Value

__all__ = ["Leak", "leak_of"]

_PLUS, _MINUS = ("add", "radd", "iadd"), ("sub", "isub", "rsub", "subtract")
_TIMES, _BY = ("mul", "rmul", "imul", "multiply"), ("div", "truediv", "itruediv")
_DEPTH = 8
"""Functions in a row that a step may be made by."""


@dataclass(frozen=True, eq=False)
class Leak:
    """A leaky sum.

    Attributes
    ----------
    name : str
        Of the call that gives it.
    hears : Called
        What gives its current, in the step that stands for all.
    decay, gain : ndarray of float64
        What is left of it in a step, and what it takes of its current.
    made : tuple of Called
        The functions that it is made by.
    """

    name: str
    hears: Called
    decay: FloatArray
    gain: FloatArray
    made: tuple[Called, ...]


def leak_of(flow: Flow, called: Called | None) -> Leak | None:
    """Return the leaky sum that a call is a step of, or None where it is none."""
    if called is None or called.event.module is not None or called.step is None:
        return None
    steps = {c.step: c for c in flow.calls if c.name == called.name}
    before, now = (steps.get(step) for step in (flow.shown, flow.shown + 1))
    if before is None or now is None:
        return None
    parts = _parts(now, before, _DEPTH)
    if parts is None or before not in parts or len(parts) != 2:
        return None
    decay = parts.pop(before)
    ((current, gain),) = parts.items()
    hears = [c for c in flow.calls if (c.name, c.step) == (current.name, flow.shown)]
    if not hears or current.step != now.step or not ((decay >= 0) & (decay <= 1)).all():
        return None
    return Leak(called.name, hears[0], decay, gain, tuple(_made(now, {current})))


def _made(called: Called, ends: set[Called]) -> Iterator[Called]:
    """Yield a function and those that it hears, up to layers."""
    if called.event.module is None and called not in ends:
        yield called
        for source in called.sources:
            if source.called is not None:
                yield from _made(source.called, ends)


def _parts(called: Called, end: Called, depth: int) -> dict[Called, FloatArray] | None:
    """Return what a call adds up, each with its factor; None where it does more than that."""
    name, sources = called.event.name, called.sources
    sides = [a for a in called.event.args if isinstance(a, Value | int | float | torch.Tensor)]
    if called.event.module is not None or called.event.kwargs or len(sides) != 2 or not depth:
        return None
    if len(sources) == 2 and name in (*_PLUS, *_MINUS):
        signs = (-1.0, 1.0) if name == "rsub" else (1.0, -1.0 if name in _MINUS else 1.0)
        found: dict[Called, FloatArray] = {}
        for signal, sign in zip(sources, signs, strict=True):
            inner = _of(signal, end, depth - 1)
            if inner is None:
                return None
            for part, factor in inner.items():
                found[part] = found.get(part, np.zeros(())) + sign * factor
        return found
    factors = [side for side in sides if not isinstance(side, Value)]
    if len(sources) != 1 or len(factors) != 1 or name not in (*_TIMES, *_BY):
        return None
    by = np.squeeze(as_array(torch.as_tensor(factors[0])).astype(np.float64))
    inner = _of(sources[0], end, depth - 1)
    if inner is None or by.ndim > 1 or (name in _BY and not by.all()):
        return None
    return {part: was / by if name in _BY else was * by for part, was in inner.items()}


def _of(signal: Signal, end: Called, depth: int) -> dict[Called, FloatArray] | None:
    called = signal.called
    if called is None or signal.state or signal.layout is not None or signal.over_time:
        return None
    if called is not end and (inner := _parts(called, end, depth)) is not None:
        return inner
    return {called: np.ones(())}
