"""A forward that shows one input for as many time steps as it says itself, such as an image."""

from __future__ import annotations

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.flow import Flow
from osbc_deploy.frameworks.moves import OF_A_BATCH

__all__ = ["TakesStepsError", "check_repeats"]


class TakesStepsError(UnsupportedModelError):
    """A forward that takes time steps, and repeats nothing."""


def check_repeats(flow: Flow, neurons: tuple[type, ...], source: str) -> None:
    """Make sure that a forward repeats its input as often as the samples have steps.

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
        raise TakesStepsError(f"{source}: forward takes time steps")
    if shown != flow.steps:
        raise UnsupportedModelError(
            f"{source}: forward shows its input for {shown} time steps, the samples have "
            f"{flow.steps}",
            remedy=f"Give images without time, and --repeat {shown}.",
        )
