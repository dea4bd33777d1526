"""What a forward does in some time steps that it does not do in all of them alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.flow import Called, Flow
from osbc_deploy.frameworks.framework import kind_of
from osbc_deploy.frameworks.moves import OF_A_BATCH

__all__ = ["TakesStepsError", "check_repeats", "heard_in", "hears_last", "taking_turns"]


class TakesStepsError(UnsupportedModelError):
    """A forward that takes time steps, and repeats nothing."""


def check_repeats(
    flow: Flow, neurons: tuple[type, ...], source: str, encoders: Sequence[str] = ()
) -> None:
    """Make sure that a forward repeats its input as often as the samples have steps.

    Parameters
    ----------
    flow : Flow
    neurons : tuple of type
    source : str
        What the module is called.
    encoders : sequence of str
        What of it makes steps of what stays the same, and that it may not.

    Raises
    ------
    TakesStepsError
        When it takes its input once, or as time steps.
    UnsupportedModelError
        When it repeats it more or less often.
    """
    cells = [c for c in flow.calls if isinstance(c.event.module, neurons)]
    if any("T" in c.sources[0].axes for c in cells):
        return
    shown = max((c.step + 1 for c in cells if c.step is not None), default=0)
    if shown < 2 or any(c.fault == OF_A_BATCH for c in flow.calls):
        raise TakesStepsError(
            f"{source}: forward shows its input for no time steps",
            encoders or ("forward: takes its input once, or as time steps",),
            "Give samples in time steps, (n, T, ...), each as forward takes it.",
        )
    if shown != flow.steps:
        raise UnsupportedModelError(
            f"{source}: forward shows its input for {shown} time steps, the samples have "
            f"{flow.steps}",
            remedy=f"Give images without time, and --repeat {shown}.",
        )


def taking_turns(flow: Flow, needed: Iterable[Called]) -> Iterator[str]:
    """Say which layers are called in a step of their own, where their like are in another."""
    following = {c.name: c for c in flow.calls if c.step == flow.shown + 1}
    now = {c.name for c in flow.calls if c.step == flow.shown}
    for called in needed:
        module = called.event.module
        if module is None or called.step != flow.shown or called.name in following:
            continue
        kind = kind_of(module)
        others = ((n, c.event.module) for n, c in following.items() if n not in now)
        turns = [n for n, m in others if m is not None and kind_of(m) is kind]
        if turns:
            yield (
                f"{called.name}: is a {kind.__name__} for one time step, as {turns[0]} is for the "
                "next (BatchNormTT); on a chip weights are the same in all steps: train with one "
                f"{kind.__name__} for all"
            )


def heard_in(flow: Flow, step: int, neurons: tuple[type, ...]) -> dict[str, int]:
    """Return for calls of a step a number for what they hear, how many steps later it is."""
    known: dict[Called, int] = {}

    def heard(called: Called) -> int:
        if called not in known:
            parts = []
            for signal in called.sources:
                before = signal.called
                late = 0 if signal.step is None else step - signal.step
                # What neurons hear in an earlier step is as it is in theirs.
                ends = before is None or isinstance(before.event.module, neurons)
                name = "" if before is None else before.name
                parts.append((name, late, 0 if before is None or ends else heard(before)))
            known[called] = hash(tuple(parts))
        return known[called]

    return {called.name: heard(called) for called in flow.calls if called.step == step}


def hears_last(flow: Flow, called: Called) -> str:
    """Say how a call hears but the last step of something; empty if it does not."""
    for signal in called.sources:
        if signal.step is None or signal.step <= flow.shown or signal.called is None:
            continue
        if signal.state:
            return (
                f"hears the potential of {signal.called.name}; between layers of a chip there are "
                "spikes alone, of each step"
            )
        return (
            f"hears {signal.called.name} in one step alone; call it in every step, and have "
            "forward answer with what it gave in the last"
        )
    return ""
