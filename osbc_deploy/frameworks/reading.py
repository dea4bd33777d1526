"""Read what a module's forward does as a float network: the same code for every framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from osbc_deploy.data.samples import STATIC
from osbc_deploy.errors import ArtefactError, UnsupportedModelError, reason
from osbc_deploy.frameworks.answering import Answering, answering, behind, left_out, needed_for
from osbc_deploy.frameworks.assemble import assemble
from osbc_deploy.frameworks.builder import Builder, is_flat
from osbc_deploy.frameworks.calling import Call, still, time_first
from osbc_deploy.frameworks.failing import cannot_run, encoders
from osbc_deploy.frameworks.flow import Called, Flow, follow
from osbc_deploy.frameworks.framework import Framework, Reading, kind_of, unsupported
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.frameworks.layers import LAYERS
from osbc_deploy.frameworks.leaking import resting
from osbc_deploy.frameworks.repeats import check_repeats, heard_in, taking_turns
from osbc_deploy.frameworks.tracing import Trace, trace
from osbc_deploy.model.graph import Shape
from osbc_deploy.plain_text import many

__all__ = ["read_call"]

_STEPS = 3
"""Time steps that are traced: the second shows what feeds back, and there is one behind it."""

_MORE, _MOST = (4, 5, 7, 10, 13), 16
"""The same where a forward keeps signals for longer, and how many show whether it does."""


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
    traced, flow = _followed(module, framework, call, x, prefix)
    if call is still:
        check_repeats(flow, framework.neurons, source, encoders(module, framework))
    found = Answering(None)
    if traced.failure is None:
        found = answering(flow, framework)
        if why := _unfollowed(traced, x.shape[1]):
            found = Answering(None, faults=(why,))
    else:
        # It may not have come as far as the second step.
        flow.shown = 0
    output, faults = found.output, found.faults
    needed = needed_for(flow, framework, output, found.leak)
    graded = _is_graded(x, host)
    builder = Builder(framework, flow, output, is_flat(needed), graded, leak=found.leak)
    for called in needed:
        builder.take(called)
    builder.faults += taking_turns(flow, needed)
    if traced.failure is not None and not framework.own(module):
        builder.faults += _not_reached(module, flow, builder)
    ends = output or next((c for c in reversed(needed) if c.name in builder.nodes), None)
    end = "" if ends is None else ends.name
    if not (faults or builder.faults or output is None):
        end = _ended(flow, found, output, builder)
    shape = tuple(x.shape[2:])
    if host is not None:
        shape = _hosted(flow, builder, host)
    if builder.data_fault and len(builder.faults) == 1 and not framework.own(module):
        raise ArtefactError(
            f"data: samples of shape {shape} per time step do not fit the model "
            f"({builder.faults[0]}). Give samples (n, T, ...) in the shape it was trained on; "
            f"{STATIC}."
        )
    taken = _taken(builder, flow, shape, host)
    # What is refused is no fault for ending the network, too.
    refused = tuple(line.partition(": ")[0] for line in builder.faults)
    offenders = [*builder.faults, *(f for f in faults if f.partition(": ")[0] not in refused)]
    if end:
        try:
            network = assemble(
                builder.graph(taken, end),
                dtype=dtype_of(module),
                source=source,
                notes=builder.notes,
                faults=offenders,
                exact=True,
            )
        except UnsupportedModelError as error:
            offenders = list(error.offenders)
    if offenders:
        # Nothing behind an encoder is as it would be without it.
        offenders = encoders(module, framework) or offenders
    if traced.failure is not None and not offenders:
        said = [f"{traced.place or 'forward'}: {_raised(traced)}"]
        raise cannot_run(source, framework, said, module, x.shape)
    if offenders:
        raise UnsupportedModelError(
            f"model: {many(len(offenders), 'part')} cannot be represented for input of shape "
            f"{shape}",
            offenders,
            f"Supported: {framework.supported}.",
        )
    # What code of the user's own does in other steps is not known from a few of them.
    followed = found.plain and all(called.step is None for called in needed)
    network = resting(network) if found.leak and found.leak.heard else network
    network = replace(network, notes=_in_order(network.notes, flow))
    made = () if found.leak is None else found.leak.made
    warned = (*_left_out(flow, [*needed, *made], builder, end), *_unseen(traced, x.shape[1]))
    network = replace(network, warnings=(*network.warnings, *warned))
    return Reading(
        network, builder.modules, followed, prefix, found.votes, builder.constant, builder.orders
    )


def _left_out(flow: Flow, needed: list[Called], builder: Builder, end: str) -> Iterator[str]:
    """Say which neurons and weights are at work, but not for the answer."""
    if unheard := left_out(flow, builder.framework, needed):
        yield (
            f"{', '.join(unheard)}: forward calls them, but its answer, {end}, does not depend on "
            "them, so they are left out. If another is the answer, have forward give that first"
        )


def _unseen(traced: Trace, n: int) -> Iterator[str]:
    """Say that a part of the answer of n samples was not seen to come from the input."""
    if any(behind and n in shape[:2] for shape, behind in traced.others):
        yield (
            "forward: answers with a tensor as well that was not seen to come from its input, as "
            "what leaves torch (numpy, tolist); what it is made of is left out"
        )


def _ended(flow: Flow, found: Answering, output: Called, builder: Builder) -> str:
    """Return the node that a network ends in, and say what of the answer it is not."""
    if found.leak is not None:
        return builder.leaking(output, found.leak)
    if not isinstance(output.event.module, builder.framework.neurons):
        return builder.answer(output)
    if builder.sends_spikes(output.name):
        _of_spikes(flow, output, builder)
        if found.instead:
            builder.note(
                f"{output.name}: forward answers with its potentials first, and with its spikes; "
                "the spikes are read"
            )
    return output.name


def _of_spikes(flow: Flow, output: Called, builder: Builder) -> None:
    """Refuse an answer of nothing but potentials of neurons that fire."""
    neurons = builder.framework.neurons
    parts = [s for answer in flow.answers for s in behind([answer], neurons)[0]]
    states = {s.state for s in parts if s.called is not None and s.called.name == output.name}
    if states == {True}:
        builder.refuse(
            output,
            "forward answers with its potentials, which are reset when it fires; a readout takes "
            "the spikes of such neurons, or potentials of those that never reset. Train with those "
            "at the end (snnTorch: reset_mechanism='none', norse: LICell, SpikingJelly: "
            "NonSpikingLIFNode or v_threshold=inf) or with a linear layer, or have forward answer "
            "with spikes and see what accuracy these have",
        )


def _followed(
    module: nn.Module,
    framework: Framework,
    call: Call,
    x: torch.Tensor,
    prefix: nn.Module | None,
) -> tuple[Trace, Flow]:
    """Trace a call and follow it, in a step in which all has arrived that it keeps."""

    def at(steps: int) -> tuple[Trace, Flow]:
        traced = _traced(module, framework, call, x, prefix, steps)
        repeats = len(x) if call is still else 0
        return traced, follow(traced, framework.neurons, prefix, repeats, steps - 2)

    first = at(_STEPS)
    most = min(len(x), _MOST)
    by_step = any(called.step is not None for called in first[1].calls)
    if call is still or first[0].failure is not None or not by_step or most <= _STEPS:
        return first
    neurons = framework.neurons
    last = at(most)
    wanted = heard_in(last[1], last[1].shown, neurons)
    if last[0].failure is not None or heard_in(first[1], first[1].shown, neurons) == wanted:
        return first
    for found in (at(count) for count in _MORE if count < most):
        shown = found[1].shown
        here, following = (heard_in(found[1], step, neurons) for step in (shown, shown + 1))
        if here == wanted and all(here.get(name) == heard for name, heard in following.items()):
            return found
    return first


def _traced(
    module: nn.Module,
    framework: Framework,
    call: Call,
    x: torch.Tensor,
    prefix: nn.Module | None,
    count: int,
) -> Trace:
    """Trace a call on as few time steps as it takes, from a number of them on."""

    def is_leaf(part: nn.Module) -> bool:
        return part is prefix or framework.is_leaf(part)

    def kept(part: nn.Module, answer: Any) -> list[torch.Tensor]:
        if not isinstance(part, framework.neurons):
            return []
        found = (framework.potential(part, answer), framework.recorded(part))
        return [tensor for tensor in found if tensor is not None]

    wide = framework.widened(module) if dtype_of(module) == "float64" else nullcontext()
    with wide:
        for steps in dict.fromkeys((min(count, len(x)), len(x))):
            framework.reset(module)
            if call is still:
                traced = trace(module, time_first, x[0], is_leaf, kept, framework.neurons)
            else:
                traced = trace(module, call, x[:steps], is_leaf, kept, framework.neurons)
            if traced.failure is None:
                break
        framework.reset(module)
    return traced


def _unfollowed(traced: Trace, n: int) -> str:
    """Say what an answer of n samples begins with, if nothing shows what it is made of."""
    shape, behind = next(iter(traced.others), ((), True))
    if behind or n not in shape[:2]:
        return ""
    return (
        f"forward: answers first with a tensor of shape {shape} that was not seen to come from its "
        "input, as what leaves torch (numpy, tolist), torch.vmap or a torch.autograd.Function that "
        "forward calls; have layers and functions of torch make it, or give the answer first"
    )


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
    _, before = behind(called.sources, ())
    layers = {c.name for c in before if c.event.module is not None}
    names = [c.name for c in flow.calls if c.name in layers and c.name != called.name]
    listed = ", ".join([*dict.fromkeys(names), called.name])
    builder.note(f"on the host, as part of the data: {listed}; the chip begins behind them")
    first = called.event.results[0].shape
    return tuple(first[len(called.sources[0].axes) :])


def _taken(builder: Builder, flow: Flow, shape: Shape, host: HostPrefix | None) -> Shape:
    """Return the shape in which the network takes samples of a shape, and note where it is new."""
    if host is None and flow.shape != shape:
        builder.note(f"input {shape} is read as {builder.shape(flow.shape)}, as forward sees it")
        return flow.shape
    if builder.shape(shape) != shape:
        builder.note(f"input {shape} is read as {builder.shape(shape)}, of one dimension")
    return shape


def _in_order(notes: Sequence[str], flow: Flow) -> tuple[str, ...]:
    """Return notes in the order in which what they are about is called."""
    order = {called.name: number for number, called in enumerate(flow.calls)}
    return tuple(sorted(notes, key=lambda n: order.get(n.partition(": ")[0], len(order))))
