"""Budgets of what all layers of a network share: flash, RAM and the instructions of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from osbc_deploy.chip.target import Target
from osbc_deploy.errors import FitError, UsageError
from osbc_deploy.fitting.remedies import advice
from osbc_deploy.fitting.search import Candidate, Plan, front_over
from osbc_deploy.model.graph import Network
from osbc_deploy.options import FitBudget
from osbc_deploy.progress import Progress, task

__all__ = ["check_budget", "most_of", "quick_enough", "room_for", "within_resources"]

_RESOURCES = ("flash", "ram")


def check_budget(budget: FitBudget, chip: Target) -> None:
    """Refuse limits on what the chip does not count.

    Raises
    ------
    UsageError
        With all of them.
    """
    known = {name: name in chip.memory.limits() for name in _RESOURCES}
    known["instructions"] = chip.instructions is not None
    foreign = [f"--{name}" for name in known if getattr(budget, name) and not known[name]]
    if foreign:
        raise UsageError(
            f"{', '.join(foreign)}: are of microcontrollers, and target {chip.name!r} is none. "
            "Give --target cortex-m4 or another of them, or limit --cores and --memory."
        )


def most_of(budget: FitBudget, chip: Target) -> dict[str, int]:
    """Return the most that may be taken of each resource that all layers share."""
    if chip.memory.arrangement != "together":
        return {}
    asked = {name: getattr(budget, name, None) for name in chip.memory.limits()}
    return {name: min(asked[name] or most, most) for name, most in chip.memory.limits().items()}


def room_for(
    network: Network, budget: FitBudget, chip: Target
) -> Callable[[Mapping[str, int]], bool]:
    """Return whether this many neurons, by population, may fit, whatever their weights."""
    limits = most_of(budget, chip)
    unity = chip.number_formats.decay_unity
    decays = {
        p.name: p.neuron.dynamics().decay_u for p in network.populations if not p.neuron.exact
    }
    # What a register rounds to nothing is not kept.
    kept = {
        name: decay is not None and bool(np.any(np.rint(unity * (1.0 - decay)) < unity))
        for name, decay in decays.items()
    }

    def fits(sizes: Mapping[str, int]) -> bool:
        least = chip.memory.least_together((n, kept.get(name, False)) for name, n in sizes.items())
        return all(least.get(name, 0) <= most for name, most in limits.items())

    return fits


def within_resources(
    plans: Sequence[Plan],
    candidates: Mapping[str, Sequence[Candidate]],
    budget: FitBudget,
    chip: Target,
) -> list[Plan]:
    """Return the plans that keep what all layers share.

    Raises
    ------
    FitError
        When none does.
    """
    feasible = list(plans)
    for name, most in most_of(budget, chip).items():
        left = [plan for plan in feasible if plan.used.get(name, 0) <= most]
        if not left:
            least = min(feasible, key=lambda plan: plan.used[name])
            text = _over(least, candidates, chip, name, most)
            raise FitError(text, least.used[name] / most - 1)
        feasible = left
    return feasible


def _over(
    least: Plan,
    candidates: Mapping[str, Sequence[Candidate]],
    chip: Target,
    name: str,
    most: int,
) -> str:
    """Return what is over where even the plan that takes least does not keep a resource."""
    needed = least.used[name]
    unit = " B" if name in ("flash", "ram") else ""
    shown = "RAM" if name == "ram" else name
    head = f"nothing fits {most:,}{unit} of {shown} on {chip.name}:"
    if name == "flash":
        # Words of a microcontroller are its flash.
        return head + "\n" + advice(least, candidates, chip, "words", most)
    layer, largest = max(least.choices.items(), key=lambda pair: pair[1].own(name))
    fixed = sum(c.fixed.get(name, 0) for c in least.choices.values())
    over = f"{head} {needed:,}{unit} in the smallest plan{least.fewer} ({needed - most:,} over)"
    if most < fixed:
        stack = f"{fixed:,}{unit} are the runtime's stack, whatever the network"
        return f"{over}, and {stack}. Allow at least {needed:,}{unit}, or take a larger chip."
    return (
        f"{over}, most of it by layer {layer} ({largest.own(name):,}{unit}). Neurons take it: let "
        "more of them be removed (--max-removed), of which each layer keeps one, give the network "
        "fewer neurons, or take a larger chip."
    )


def quick_enough(
    plans: Sequence[Plan],
    most: int | None,
    instructions: Callable[[Plan], float],
    progress: Progress,
) -> list[Plan]:
    """Return the plans that take no more instructions than allowed, where that is known.

    Fewer words are taken to need fewer instructions, so the most words that keep the limit are
    found by bisection. Without a limit, all do.

    Raises
    ------
    FitError
        When even the plan of fewest words takes more.
    """
    if most is None:
        return list(plans)
    front = front_over(plans, "words")
    with task(progress, "instructions", int(np.ceil(np.log2(len(front)))) + 1):
        least = instructions(front[0])
        progress.advance()
        if least > most:
            raise FitError(
                f"instructions: {least:,.0f} a step of the smallest plan{front[0].fewer} "
                f"(modelled, the most of any calibration step), {most:,} allowed "
                f"({least - most:,.0f} over). Allow more, or give the network fewer neurons or "
                "spikes.",
                least / most - 1,
            )
        low, high = 0, len(front)
        while high - low > 1:
            middle = (low + high) // 2
            if instructions(front[middle]) <= most:
                low = middle
            else:
                high = middle
            progress.advance()
    return front[: low + 1]
