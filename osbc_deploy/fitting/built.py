"""What plans take once they are built, which may be less than their layers do one by one.

Neurons that feed nothing, or that never fire, are left out exactly, and that shows only when all
layers are there. Building takes a while, so it is done where no plan keeps a budget otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import replace

from osbc_deploy.chip.mapping import Mapping, layers_of, map_layers
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.fitting.search import Candidate, Cost, Limits, Plan
from osbc_deploy.job import Job
from osbc_deploy.pipeline import lowered_for

__all__ = ["by_sparsity", "cost_of", "kept_when_built", "mapped"]


def mapped(job: Job, compressed: CompressedNetwork) -> Mapping:
    """Lower a compressed network and give its neurons cores."""
    return map_layers(layers_of(lowered_for(job, compressed).network), job.chip)


def cost_of(mapping: Mapping) -> Cost:
    """Return what a whole network takes."""
    return Cost(mapping.cores_used, mapping.words, mapping.used)


def by_sparsity(candidates: AnyMapping[str, Sequence[Candidate]], beside: Cost) -> list[Plan]:
    """Return a plan for every sparsity that was tried, the sparsest first.

    On a chip that stores zeros as well, they take no fewer words, but leave more neurons idle.
    """
    grid = sorted({c.sparsity for found in candidates.values() for c in found}, reverse=True)

    def nearest(found: Sequence[Candidate], sparsity: float) -> Candidate:
        least = min(c.sparsity for c in found)
        below = [c for c in found if c.sparsity <= max(sparsity, least)]
        return min(below, key=lambda c: (-c.sparsity, c.words, c.loss))

    return [
        Plan({name: nearest(found, sparsity) for name, found in candidates.items()}, beside)
        for sparsity in grid
    ]


def kept_when_built(
    fronts: Iterable[Sequence[Plan]], limits: Limits, count: Callable[[Plan], Mapping]
) -> tuple[list[Plan], list[tuple[Plan, Mapping]]]:
    """Build the plans that take least, and return those that keep limits.

    Where one does, the plan of least loss that does is looked for by bisection, taking those that
    take less by themselves to take less when they are built.

    Parameters
    ----------
    fronts : iterable of sequence of Plan
        Each with the plan first that takes least.
    limits : Limits
    count : callable
        From a plan to the cores of what is built from it.

    Returns
    -------
    feasible : list of Plan
        Empty where none of those that were built keeps them.
    least : list of (Plan, Mapping)
        The first of each front, with what they take.
    """

    def counted(plan: Plan) -> tuple[Plan, Mapping]:
        mapping = count(plan)
        return replace(plan, built=cost_of(mapping)), mapping

    def keeps(plan: Plan, mapping: Mapping) -> bool:
        return limits.keep(plan) and not mapping.misfits()

    least = []
    for front in fronts:
        least.append(counted(front[0]))
        if not keeps(*least[-1]):
            continue
        feasible, low, high = [least[-1][0]], 0, len(front)
        while high - low > 1:
            middle = (low + high) // 2
            found = counted(front[middle])
            if keeps(*found):
                feasible.append(found[0])
                low = middle
            else:
                high = middle
        return feasible, least
    return [], least
