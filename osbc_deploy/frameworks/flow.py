"""Follow a trace from layer to layer: which axes are time, and which step a signal belongs to.

A forward takes time steps one by one or all in one call, cuts them apart, stacks them, merges them
into the batch. What comes out of it is the same: layers that hear signals of the same step, or of
the one before. Time and batch have other sizes than anything else would need, and are known from
the input on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from osbc_deploy.frameworks.moves import MOVES, Follower, Rule, reshaped
from osbc_deploy.frameworks.signals import Called, Flow, Signal
from osbc_deploy.frameworks.tracing import Event, Trace, values_in
from osbc_deploy.frameworks.turns import turned_back

__all__ = ["Called", "Flow", "Signal", "follow"]


def follow(
    trace: Trace, neurons: tuple[type, ...], host: nn.Module | None = None, still: int = 0
) -> Flow:
    """Return what is at work in a trace of input (T, n, ...), and on what.

    Parameters
    ----------
    trace : Trace
    neurons : tuple of type
        Whose answer comes first, and whose states follow it.
    host : torch.nn.Module, optional
        Whose answer is the network's input.
    still : int
        For how many steps the input is shown where it is (n, ...), the same in all of them.
    """
    seen = trace.source.shape
    steps, batch, *shape = (still, *seen) if still else seen
    flow = Flow(steps, min(1, steps - 1))
    follower = _Following(flow, neurons, {"T": steps, "N": batch}, still=still > 0)
    axes = ("N",) if still else ("T", "N")
    follower.known[trace.source] = Signal(None, axes, tuple(shape), still=still > 0)
    for event in trace.events:
        follower.take(event)
        if host is not None and event.module is host and event.results:
            first = follower.known[event.results[0]]
            flow.host = first.called
            follower.known[event.results[0]] = replace(first, called=None, state=False)
    flow.answers = [follower.known[value] for value in trace.answers]
    return flow


@dataclass
class _Following(Follower):
    def take(self, event: Event) -> None:
        """Note what the results of an event are."""
        values = values_in((event.args, tuple(event.kwargs.values())))
        if isinstance(event.module, self.neurons):
            values = values[:1]
        sources = [self.known[value] for value in values]
        rule: Rule | None = reshaped if isinstance(event.module, nn.Flatten) else None
        if event.module is None:
            rule = MOVES.get(event.name)
        if any(source.turned for source in sources):
            rule = turned_back
        found = None if rule is None else rule(self, event, sources)
        if found is None or isinstance(found, str):
            found = self.call(event, sources, found or "")
        found += (
            [replace(found[0], state=True)] * (len(event.results) - len(found)) if found else []
        )
        self.known.update(zip(event.results, found, strict=True))
