"""Read what a module's forward does as a float network: the same code for every framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from osbc_deploy.data.samples import STATIC
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, reason
from osbc_deploy.frameworks.assemble import assemble
from osbc_deploy.frameworks.builder import Builder, is_flat
from osbc_deploy.frameworks.calling import Call, still, time_first
from osbc_deploy.frameworks.failing import cannot_run
from osbc_deploy.frameworks.flow import Called, Flow, Signal, follow
from osbc_deploy.frameworks.framework import Framework, Reading, kind_of, unsupported
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.frameworks.layers import LAYERS
from osbc_deploy.frameworks.repeats import check_repeats
from osbc_deploy.frameworks.tracing import Trace, trace
from osbc_deploy.model.graph import Network, Shape

__all__ = ["read_call"]

_STEPS = 3
"""Time steps that are traced: the second shows what feeds back, and there is one behind it."""
_MOVES = ("stack", "cat", "getitem", "setitem", "reshape", "view", "flatten", "squeeze")
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten)
_SUMS = ("add", "radd", "sum", "mean", "mul", "div", "truediv", "softmax", "log_softmax")
_NORMALIZES = (nn.Softmax, nn.LogSoftmax)
_ENDS = ("linear", "conv1d", "conv2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
         "adaptive_avg_pool2d", "add", "sub")  # fmt: skip
_END_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
)
"""What a network may end in behind neurons: its answer is a potential then."""


def dtype_of(module: nn.Module) -> str:
    """Return the precision that a module's network is simulated in."""
    wide = any(p.dtype == torch.float64 for p in module.parameters())
    return "float64" if wide else "float32"


def read_call(
    module: nn.Module,
    framework: Framework,
    call: Call,
    x: torch.Tensor,
    *,
    source: str,
    host: HostPrefix | None = None,
) -> Reading:
    """Read what a module does when it is called in some way.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; its state is reset.
    framework : Framework
    call : Call
    x : torch.Tensor (T, n, ...)
        Input; a few of its time steps are enough, unless the module wants all of them.
    source : str
        Name of the model for the report.
    host : HostPrefix, optional
        What runs on the host.

    Raises
    ------
    UnsupportedModelError
        With every part that cannot be represented, and where it is.
    ArtefactError
        When the input does not have the shape that the first layer takes.
    """
    prefix = None if host is None else host.module_of(module)
    traced = _traced(module, framework, call, x, prefix)
    flow = follow(traced, framework.neurons, prefix, still=len(x) if call is still else 0)
    if call is still:
        check_repeats(flow, framework.neurons, source)
    faults: list[str] = []
    output, followed, votes = None, True, 1
    if traced.failure is None:
        output, followed, votes, faults = _answering(flow, framework)
    else:
        # It may not have come as far as the second step.
        flow.shown = 0
    needed = _needed(flow, framework, output)
    builder = Builder(framework, flow, output, is_flat(needed), _is_graded(x, host))
    for called in needed:
        builder.take(called)
    if traced.failure is not None and not framework.own(module):
        builder.faults += _not_reached(module, flow, builder)
    ends = output or next((c for c in reversed(needed) if c.name in builder.nodes), None)
    end = "" if ends is None else ends.name
    clean = not faults and not builder.faults
    if clean and output is not None:
        if not isinstance(output.event.module, framework.neurons):
            end = builder.answer(output)
        elif builder.sends_spikes(end):
            _of_spikes(flow, output, builder)
    shape = tuple(x.shape[2:])
    if host is not None:
        shape = _hosted(flow, builder, host)
    if builder.data_fault and len(builder.faults) == 1 and not framework.own(module):
        raise ArtefactError(
            f"data: samples of shape {shape} per time step do not fit the model "
            f"({builder.faults[0]}). Give samples (n, T, ...) in the shape it was trained on; "
            f"{STATIC}."
        )
    if builder.shape(shape) != shape:
        builder.note(f"input {shape} is read as {builder.shape(shape)}, of one dimension")
    # What is refused is no fault for ending the network, too.
    refused = tuple(line.partition(": ")[0] for line in builder.faults)
    offenders = [*builder.faults, *(f for f in faults if f.partition(": ")[0] not in refused)]
    if end:
        try:
            network = assemble(
                builder.graph(shape, end),
                dtype=dtype_of(module),
                source=source,
                notes=builder.notes,
                faults=offenders,
                exact=True,
            )
        except UnsupportedModelError as error:
            offenders = list(error.offenders)
    if traced.failure is not None and not offenders:
        said = [f"{traced.place or 'forward'}: {_raised(traced)}"]
        raise cannot_run(source, framework, said, module, x.shape)
    if offenders:
        raise UnsupportedModelError(
            f"model: {len(offenders)} part(s) cannot be represented for input of shape {shape}",
            offenders,
            f"Supported: {framework.supported}.",
        )
    # What code of the user's own does in other steps is not known from a few of them.
    followed &= all(called.step is None for called in needed)
    network = replace(network, notes=_in_order(network.notes, flow))
    network = _with_fixed(network, builder.fixed)
    return Reading(
        network, builder.modules, followed, prefix, votes, builder.constant, builder.orders
    )


def _of_spikes(flow: Flow, output: Called, builder: Builder) -> None:
    """Refuse an answer of nothing but potentials of neurons that fire."""
    neurons = builder.framework.neurons
    parts = [s for answer in flow.answers for s in _behind([answer], neurons)[0]]
    states = {s.state for s in parts if s.called is not None and s.called.name == output.name}
    if states == {True}:
        builder.refuse(
            output,
            "forward answers with its potentials, which are reset when it fires; a readout takes "
            "the spikes of such neurons, or potentials of those that never reset. Train with those "
            "at the end (snnTorch: reset_mechanism='none', norse: LICell) or with a linear layer, "
            "or have forward answer with spikes and see what accuracy these have",
        )


def _traced(
    module: nn.Module,
    framework: Framework,
    call: Call,
    x: torch.Tensor,
    prefix: nn.Module | None,
) -> Trace:
    """Trace a call on as few time steps as it takes."""

    def is_leaf(part: nn.Module) -> bool:
        return part is prefix or framework.is_leaf(part)

    wide = framework.widened(module) if dtype_of(module) == "float64" else nullcontext()
    with wide:
        for steps in dict.fromkeys((min(_STEPS, len(x)), len(x))):
            framework.reset(module)
            if call is still:
                traced = trace(module, time_first, x[0], is_leaf)
            else:
                traced = trace(module, call, x[:steps], is_leaf)
            if traced.failure is None:
                break
        framework.reset(module)
    return traced


def _is_graded(x: torch.Tensor, host: HostPrefix | None) -> bool:
    """Tell whether a network is given more than 0 and 1."""
    return host is None and bool(((x != 0) & (x != 1)).any())


def _not_reached(module: nn.Module, flow: Flow, builder: Builder) -> Iterator[str]:
    """Say which layers of containers cannot be read behind the one that failed."""
    framework = builder.framework
    reached = {called.event.module for called in flow.calls}
    known = (*framework.readers, *LAYERS)
    waiting = [("", module)]
    while waiting:
        name, part = waiting.pop()
        if not framework.is_leaf(part):
            inner = [(f"{name}.{n}" if name else n, m) for n, m in part.named_children()]
            waiting += reversed(inner)
        elif part not in reached and builder.kind(part) not in known and not framework.votes(part):
            yield f"{name}: {unsupported(kind_of(part), known)}"


def _raised(traced: Trace) -> str:
    error = traced.failure
    return "" if error is None else f"raises {type(error).__name__}: {reason(error)}"


def _hosted(flow: Flow, builder: Builder, host: HostPrefix) -> Shape:
    """Say what runs on the host, and return the shape of what it gives."""
    called = flow.host
    if called is None:
        raise UnsupportedModelError(
            f"--host-prefix: {host.layer} is not called, or hears nothing of the input",
            remedy="Name a layer that the model's forward calls with what comes from its input.",
        )
    _, before = _behind(called.sources, ())
    layers = {c.name for c in before if c.event.module is not None}
    names = [c.name for c in flow.calls if c.name in layers and c.name != called.name]
    listed = ", ".join([*dict.fromkeys(names), called.name])
    builder.note(f"on the host, as part of the data: {listed}; the chip begins behind them")
    first = called.event.results[0].shape
    return tuple(first[len(called.sources[0].axes) :])


def _in_order(notes: Sequence[str], flow: Flow) -> tuple[str, ...]:
    """Return notes in the order in which what they are about is called."""
    order = {called.name: number for number, called in enumerate(flow.calls)}
    return tuple(sorted(notes, key=lambda n: order.get(n.partition(": ")[0], len(order))))


def _with_fixed(network: Network, fixed: set[str]) -> Network:
    return replace(
        network,
        projections=tuple(
            # Of several projections from one connection, the ends are in the names, too.
            replace(p, compressible=False) if {p.name, p.name.rpartition(":")[0]} & fixed else p
            for p in network.projections
        ),
    )


def _behind(
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


def _answering(flow: Flow, framework: Framework) -> tuple[Called | None, bool, int, list[str]]:
    """Return what answers: the last neurons, or a linear layer behind them.

    With it come whether nothing else acts on its answer, how many outputs in a row are averaged,
    and why there is none. Where an answer is neither, what it comes from is returned.
    """
    for state in (False, True):
        for signal in flow.answers:
            cells, between = _behind([signal], framework.neurons)
            names = {s.called.name for s in cells if s.called is not None}
            acting = [c for c in between if not _moves(c)]
            voting = {c.name: votes for c in acting if (votes := _votes(c, framework))}
            known = len(voting) < 2 and all(c.name in voting or _reduces(c) for c in acting)
            if len(names) == 1 and known and any(s.state for s in cells) == state:
                votes = max(voting.values(), default=1)
                return cells[0].called, not (acting or state), votes, []
            if not state and cells and (found := _linear(flow, signal, framework)) is not None:
                return found
    if not any(isinstance(c.event.module, framework.neurons) for c in flow.calls):
        return None, True, 1, ["model: holds no neurons"]
    last = next((s.called for s in flow.answers if s.called is not None), None)
    while last is not None and _moves(last):
        last = last.sources[0].called
    if last is None or last.event.module is None:
        why = "forward: its answer is not what neurons give, or more than that"
        return last, True, 1, [f"{why}; end it with {framework.ends}"]
    if isinstance(last.event.module, framework.neurons):
        return last, True, 1, [_too_much(flow, last)]
    kind = kind_of(last.event.module).__name__
    return last, True, 1, [f"{last.name}: the network ends in {kind}; end it with {framework.ends}"]


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


def _linear(
    flow: Flow, answer: Signal, framework: Framework
) -> tuple[Called | None, bool, int, list[str]] | None:
    """Return the linear layer that answers behind neurons, or None where none does."""
    votes, called, acting = 1, answer.called, False
    while called is not None:
        share = _votes(called, framework)
        if not (share or _moves(called) or _reduces(called)) or len(called.sources) > 1:
            break
        votes, acting = votes * (share or 1), acting or not _moves(called)
        called = called.sources[0].called
    if called is None or not called.event.results:
        return None
    module = called.event.module
    linear = called.event.name in _ENDS if module is None else isinstance(module, _END_LAYERS)
    if not linear:
        return None
    shown = (flow.shown, None)
    found = [c for c in flow.calls if c.step in shown and c.name == called.name]
    return (found[0], not acting, votes, []) if found else None


def _votes(called: Called, framework: Framework) -> int:
    """Return how many outputs in a row a call averages, 0 where it does not or leaves some out."""
    module, shape = called.event.module, called.sources[0].shape
    votes = 0 if module is None else framework.votes(module)
    return votes if votes > 0 and len(shape) == 1 and shape[0] % votes == 0 else 0


def _reduces(called: Called) -> bool:
    """Tell whether a call adds up or scales values, or makes probabilities of them."""
    module = called.event.module
    return called.event.name in _SUMS if module is None else isinstance(module, _NORMALIZES)


def _moves(called: Called) -> bool:
    """Tell whether a call leaves values as they are."""
    module = called.event.module
    return called.event.name in _MOVES if module is None else isinstance(module, _PASSES)


def _needed(flow: Flow, framework: Framework, output: Called | None) -> list[Called]:
    """Return the calls that stand for all time steps, as far as the answer depends on them."""
    shown = (flow.shown, None)
    if output is None:
        return [c for c in flow.calls if c.step in (0, None)]
    cells = {
        c.name: c
        for c in reversed(flow.calls)
        if isinstance(c.event.module, framework.neurons) and c.step in shown
    }
    needed: set[Called] = set()
    waiting = [cells.get(output.name, output)]
    while waiting:
        called = waiting.pop()
        if called in needed:
            continue
        needed.add(called)
        for signal in called.sources:
            before = signal.called
            if before is not None and isinstance(before.event.module, framework.neurons):
                before = cells.get(before.name, before)
            if before is not None:
                waiting.append(before)
    return [c for c in flow.calls if c in needed]
