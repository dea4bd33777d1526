"""What a forward answers with: the last neurons, or a linear layer behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from osbc_deploy.frameworks.flow import Called, Flow, Signal
from osbc_deploy.frameworks.framework import Framework, kind_of
from osbc_deploy.frameworks.joining import averaged
from osbc_deploy.frameworks.layers import DROPOUTS
from osbc_deploy.frameworks.leaking import Leak, leak_behind, leak_of
from osbc_deploy.frameworks.signals import HEARS_NOTHING

__all__ = ["Answering", "answering", "behind", "left_out", "needed_for"]

_MOVES = ("stack", "cat", "getitem", "setitem", "reshape", "view", "flatten", "squeeze")
_PASSES = (nn.Identity, *DROPOUTS, nn.Flatten, nn.Unflatten)
_SUMS = ("add", "radd", "sum", "mean", "mul", "div", "truediv", "softmax", "log_softmax")
_SHIFTS = ("add", "radd", "iadd")
_FACTORS = ("mul", "rmul", "imul", "multiply", "div", "truediv", "itruediv")
_NORMALIZES = (nn.Softmax, nn.LogSoftmax)
_SQUASHES = ("sigmoid", "tanh")
_SQUASHING = (nn.Sigmoid, nn.Tanh)
"""What leaves the order of values as it is, but not that of their sums."""
_ENDS = ("linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "avg_pool1d",
         "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", *_SHIFTS, *_FACTORS, "neg",
         "sub", "rsub", "isub", "matmul", "mm", "addmm", "einsum", "cat")  # fmt: skip
_END_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d),
    *(nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
)
"""What a network may end in behind neurons: its answer is a potential then."""


@dataclass(frozen=True)
class Answering:
    """What gives a forward's answer.

    Attributes
    ----------
    output : Called or None
        The layer; where an answer is none, what it comes from.
    plain : bool
        Whether nothing else acts on what the layer gives.
    votes : int
        Outputs in a row that are averaged.
    faults : tuple of str
        Why no layer is the answer.
    state : bool
        Whether it is the layer's potentials.
    instead : bool
        Whether potentials come first, and the layer's spikes are taken instead.
    leak : Leak or None
        The leaky sum of what the layer gives, where the forward keeps one.
    """

    output: Called | None
    plain: bool = True
    votes: int = 1
    faults: tuple[str, ...] = ()
    state: bool = False
    instead: bool = False
    leak: Leak | None = None


def answering(flow: Flow, framework: Framework) -> Answering:
    """Return what answers.

    Of several tensors, those that another one is made of are recordings on the way to it, wherever
    they stand; of the rest the first counts. A layer that answers with spikes and potentials is
    read by its spikes, one that answers with its votes as well by those.
    """
    found = list(_candidates(flow, framework))
    for one in found:
        if any(_on_the_way(flow, framework, one.output, other.output) for other in found):
            continue
        alike = [c for c in found if c.output is one.output]
        spikes = [c for c in alike if not c.state]
        best = max(spikes or alike, key=lambda c: c.votes > 1)
        return replace(best, instead=True) if one.state and not best.state else best
    return _unfounded(flow, framework)


def _candidates(flow: Flow, framework: Framework) -> Iterator[Answering]:
    """Yield the layers that some part of the answer is what they give."""
    cells = _cells(flow, framework)
    for signal in flow.answers:
        answered, share, _ = _bare(signal, framework)
        if (leak := leak_of(flow, answered)) is not None:
            heard = cells.get(leak.hears.name, leak.hears)
            yield Answering(heard, plain=False, votes=share, leak=leak)
            continue
        output = _shown(flow, answered)
        if (leak := leak_behind(flow, output)) is not None:
            yield Answering(output, plain=False, votes=share, leak=leak)
            continue
        sources, between = behind([signal], framework.neurons)
        names = {s.called.name for s in sources if s.called is not None}
        acting = [c for c in between if not _moves(c)]
        voting = {c.name: votes for c in acting if (votes := _votes(c, framework))}
        known = len(voting) < 2 and all(c.name in voting or _reduces(c) for c in acting)
        if len(names) == 1 and known:
            state = any(s.state for s in sources)
            last = sources[0].called
            output = last if last is None else cells.get(last.name, last)
            votes = max(voting.values(), default=1)
            yield Answering(output, not (acting or state), votes, state=state)
        elif sources and (linear := _linear(flow, signal, framework)) is not None:
            yield linear


def _on_the_way(flow: Flow, framework: Framework, one: Called | None, other: Called | None) -> bool:
    """Tell whether one layer comes before another that depends on it."""
    if one is None or other is None or one.name == other.name:
        return False
    order = {called: number for number, called in enumerate(flow.calls)}
    if one not in needed_for(flow, framework, other):
        return False
    # Each may depend on the other where there is feedback: the later one answers then.
    return other not in needed_for(flow, framework, one) or order[one] < order[other]


def _unfounded(flow: Flow, framework: Framework) -> Answering:
    """Say why no layer is the answer, and what it comes from."""
    if not any(isinstance(c.event.module, framework.neurons) for c in flow.calls):
        return Answering(None, faults=("model: holds no neurons",))
    last = next((s.called for s in flow.answers if s.called is not None), None)
    while last is not None and _moves(last):
        last = last.sources[0].called
    if last is None or last.event.module is None:
        why = "forward: its answer is not what neurons give, or more than that"
        said = f"{why}; end it with {framework.ends}"
    elif isinstance(last.event.module, framework.neurons):
        said = _too_much(flow, last)
    elif isinstance(last.event.module, _END_LAYERS):
        said = (
            f"{last.name}: forward answers with something else than what this layer gives in each "
            "step, or its sum, mean, maximum or last; make one layer of "
            "those that stand side by side"
        )
    else:
        kind = kind_of(last.event.module).__name__
        said = f"{last.name}: the network ends in {kind}; end it with {framework.ends}"
    return Answering(last, faults=(said,))


def behind(
    signals: Sequence[Signal], neurons: tuple[type, ...]
) -> tuple[list[Signal], list[Called]]:
    """Return the answers of neurons that signals come from, and what was called after those."""
    cells, between = [], []
    waiting, seen = list(signals), set()
    while waiting:
        signal = waiting.pop()
        called = signal.called
        if called is None or (called, signal.state) in seen:
            continue
        seen.add((called, signal.state))
        if isinstance(called.event.module, neurons):
            cells.append(signal)
        else:
            between.append(called)
            waiting += called.sources
    return cells, between


def _too_much(flow: Flow, last: Called) -> str:
    """Say why an answer that ends in neurons is not what they give once in each step."""
    module, step = last.event.module, last.step
    calls = sum(c.event.module is module and c.step == step for c in flow.calls)
    if calls < 2:
        return f"{last.name}: forward answers with more than what these neurons give; leave it out"
    return (
        f"{last.name}: is called {calls} times in a time step, such as in a loop over input that "
        f"stays the same, which takes samples without time (--repeat {calls} shows images); have "
        "any other forward take one time step, or all of them"
    )


def _bare(answer: Signal, framework: Framework) -> tuple[Called | None, int, bool]:
    """Return what an answer is read from, how many outputs vote, and whether more acts on it."""
    votes, called, acting = 1, answer.called, False
    while called is not None:
        share = _votes(called, framework)
        bare = _moves(called) or _reduces(called)
        # What scales each step is part of the layer, which makes the answer equal.
        bare = bare and (called.event.name not in _FACTORS or bool(called.sources[0].over_time))
        if not (share or bare) or len(called.sources) > 1:
            break
        votes, acting = votes * (share or 1), acting or not _moves(called)
        called = called.sources[0].called
    return called, votes, acting


def _linear(flow: Flow, answer: Signal, framework: Framework) -> Answering | None:
    """Return the linear layer that answers behind neurons, or None where none does."""
    called, votes, acting = _bare(answer, framework)
    if called is None or not called.event.results:
        return None
    module = called.event.module
    linear = called.event.name in _ENDS if module is None else isinstance(module, _END_LAYERS)
    if not linear:
        return None
    found = _shown(flow, called)
    here = found is not None and found.step in (flow.shown, None)
    return Answering(found, not acting, votes) if here else None


def _shown(flow: Flow, called: Called | None) -> Called | None:
    """Return a call in the step that stands for all, or itself where it is made in one alone."""
    shown = (flow.shown, None)
    if called is None or called.step in shown:
        return called
    found = (c for c in flow.calls if c.step in shown and c.name == called.name)
    return next(found, called)


def _votes(called: Called, framework: Framework) -> int:
    """Return how many outputs in a row a call averages, 0 where it does not or leaves some out."""
    signal = called.sources[0]
    module, shape = called.event.module, signal.shape
    votes = 0 if module is None else framework.votes(module)
    if votes > 0 and len(shape) == 1 and shape[0] % votes == 0:
        return votes
    in_order = signal.layout is None or (signal.layout.ordered and signal.layout.whole)
    return averaged(called) if in_order else 0


def _reduces(called: Called) -> bool:
    """Tell whether a call adds up or scales values, or makes probabilities of them."""
    module = called.event.module
    if _shifts(called) or (called.event.name in _FACTORS and not _positive(called)):
        return False
    if isinstance(module, _SQUASHING) or (module is None and called.event.name in _SQUASHES):
        # Of what is read of all steps, rather than in each.
        return bool(called.sources[0].over_time) or called.step not in (None, 0, 1)
    return called.event.name in _SUMS if module is None else isinstance(module, _NORMALIZES)


def _positive(called: Called) -> bool:
    """Tell whether a call multiplies by one positive number, which changes no order of values."""
    others = [a for a in called.event.args if isinstance(a, int | float | torch.Tensor)]
    return len(others) == 1 and bool(torch.as_tensor(others[0]).numel() == 1 and others[0] > 0)


def _shifts(called: Called) -> bool:
    """Tell whether a call adds a constant. What adds up steps begins with zero, gone by now."""
    added = called.event.module is None and called.event.name in _SHIFTS
    return added and len(called.sources) == 1


def _moves(called: Called) -> bool:
    """Tell whether a call leaves values as they are."""
    module = called.event.module
    return called.event.name in _MOVES if module is None else isinstance(module, _PASSES)


def _cells(flow: Flow, framework: Framework) -> dict[str, Called]:
    """Return the calls of neurons that stand for all time steps, by name."""
    shown = (flow.shown, None)
    return {
        c.name: c
        for c in reversed(flow.calls)
        if isinstance(c.event.module, framework.neurons) and c.step in shown
    }


def needed_for(
    flow: Flow, framework: Framework, output: Called | None, leak: Leak | None = None
) -> list[Called]:
    """Return the calls that stand for all time steps, as far as an output depends on them.

    Of a leaky sum that layers hear, it is what the sum hears.
    """
    if output is None:
        shown = (c for c in flow.calls if c.fault != HEARS_NOTHING)
        return [c for c in shown if c.step in (0, None)]
    cells = _cells(flow, framework)
    needed: set[Called] = set()
    waiting = [cells.get(output.name, output)]
    while waiting:
        called = waiting.pop()
        if called in needed:
            continue
        needed.add(called)
        kept = leak is not None and called is leak.heard
        hears = [leak.hears] if kept and leak else [s.called for s in called.sources]
        known = [before for before in hears if before is not None]
        waiting += [
            cells.get(c.name, c) if isinstance(c.event.module, framework.neurons) else c
            for c in known
        ]
    return [c for c in flow.calls if c in needed]


def left_out(flow: Flow, framework: Framework, needed: Sequence[Called]) -> list[str]:
    """Return the neurons and layers of weights that are at work, but not for the answer."""
    heard = {called.name for called in needed}
    if flow.host is not None:
        # What runs on the host is part of the data.
        heard |= {called.name for called in needed_for(flow, framework, flow.host)}
    found = [
        called.name
        for called in flow.calls
        if called.step in (flow.shown, None) and _works(called, framework) and not _reduces(called)
    ]
    return [name for name in dict.fromkeys(found) if name not in heard]


def _works(called: Called, framework: Framework) -> bool:
    """Tell whether a call is of neurons, or of weights."""
    module, event = called.event.module, called.event
    if module is None:
        given = (*event.args, *event.kwargs.values())
        return any(isinstance(weight, nn.Parameter) for weight in given)
    return isinstance(module, framework.neurons) or any(True for _ in module.parameters())
