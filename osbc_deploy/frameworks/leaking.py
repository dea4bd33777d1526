"""Leaky sums that a forward keeps by itself: ``v = 0.9 * v + fc(spikes)``, the readout of many.

They are potentials that nothing resets, written out. Two steps of one show it: a step of it is made
of the step before, times a constant, and of one current.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.frameworks.layers import LINEAR_LAYERS
from osbc_deploy.frameworks.signals import Called, Flow, Signal
from osbc_deploy.frameworks.tracing import Value
from osbc_deploy.model.graph import Network

__all__ = ["SUMS", "Leak", "leak_behind", "leak_of", "resting"]

_PLUS, _MINUS = ("add", "radd", "iadd"), ("sub", "isub", "rsub", "subtract")
SUMS = (*_PLUS, *_MINUS)
"""Functions that a step of a leaky sum may end in."""
_TIMES, _BY = ("mul", "rmul", "imul", "multiply"), ("div", "truediv", "itruediv")
_LAYERS = (
    *(*LINEAR_LAYERS, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d),
)
_FUNCTIONS = (
    *(*SUMS, "linear", "matmul", "mm", "addmm", "einsum", "conv1d", "conv2d", "cat"),
    *("conv_transpose1d", "conv_transpose2d"),
)
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
    heard : Called or None
        The step of it that layers hear, where these make the answer of it.
    """

    name: str
    hears: Called
    decay: FloatArray
    gain: FloatArray
    made: tuple[Called, ...]
    heard: Called | None = None

    @property
    def alone(self) -> str:
        """Why layers cannot hear it."""
        return (
            f"keeps a leaky sum of what {self.hears.name} gives, which the answer alone may hear, "
            "through layers of weights, where all of it leaks alike; between layers of a chip "
            "neurons keep it: train with neurons whose current leaks (norse: LIFCell, snnTorch: "
            "Synaptic, SpikingJelly: CUBALIFNode), and give them the spikes"
        )


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


def leak_behind(flow: Flow, called: Called | None, depth: int = _DEPTH) -> Leak | None:
    """Return the leaky sum that layers of weights make a call of, or None where there is none."""
    if called is None or not depth or not _linear(called):
        return None
    found: list[Leak | None] = []
    for source in called.sources:
        leak = leak_of(flow, source.called)
        own = None if leak is None else replace(leak, heard=source.called)
        found.append(own or leak_behind(flow, source.called, depth - 1))
    leaks = [leak for leak in found if leak is not None]
    if len(leaks) < len(found) or len({leak.heard for leak in leaks}) > 1:
        return None
    # Weights of a sum are the sum of what is weighted, if all of it leaks alike.
    decay = leaks[0].decay.ravel()
    return replace(leaks[0], decay=decay[0]) if (decay == decay[0]).all() else None


def resting(network: Network) -> Network:
    """Return a network whose leaky output rests where it is without input.

    Its connections add their biases in each step; behind the sum they are added once.
    """
    output = network.output
    kept = float(output.neuron.parameters["decay"])
    rest, changed = np.zeros(output.shape), {}
    for projection in network.afferents(output.name):
        bias = projection.connection.bias
        if bias is not None:
            rest = rest + bias.reshape(-1, *(1,) * (len(output.shape) - 1))
            changed[projection.name] = (bias * (1.0 - kept)).astype(bias.dtype)
    neuron = replace(output.neuron, start=rest)  # type: ignore[call-arg]
    return network.with_weights({}, changed).with_neurons({output.name: neuron})


def _linear(called: Called) -> bool:
    """Tell whether a call is a layer of weights, adds, scales, or leaves values as they are."""
    module, name = called.event.module, called.event.name
    if module is not None:
        return isinstance(module, _LAYERS)
    return name in _FUNCTIONS or (name in (*_TIMES, *_BY) and len(called.sources) == 1)


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
    if len(sources) == 2 and name in SUMS:
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
