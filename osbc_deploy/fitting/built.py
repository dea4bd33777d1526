"""What plans take once they are built, which may be less than their layers do one by one.

Neurons that nothing hears, or that never fire, are left out exactly, and that shows only when all
layers are there. Building takes a while, so it is done where no plan keeps a budget otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from osbc_deploy.chip.mapping import Mapping, layers_of, map_layers
from osbc_deploy.compress.result import CompressedNetwork
from osbc_deploy.fitting.search import Cost, Limits, Plan, front_over
from osbc_deploy.job import Job
from osbc_deploy.pipeline import lowered_for

__all__ = ["cost_of", "kept_when_built", "mapped"]


def mapped(job: Job, compressed: CompressedNetwork) -> Mapping:
    """Lower a compressed network and give its neurons cores."""
    return map_layers(layers_of(lowered_for(job, compressed).network), job.chip)


def cost_of(mapping: Mapping) -> Cost:
    """Return what a whole network takes."""
    return Cost(mapping.cores_used, mapping.words, mapping.used)


def kept_when_built(
    plans: Sequence[Plan], limits: Limits, count: Callable[[Plan], Mapping]
) -> tuple[list[Plan], list[tuple[Plan, Mapping]]]:
    """Build the plans that take least, and return those that keep limits.

    Where one does, the plan of least loss that does is looked for by bisection, taking those that
    take less by themselves to take less when they are built.

    Parameters
    ----------
    plans : sequence of Plan
    limits : Limits
    count : callable
        From a plan to the cores of what is built from it.

    Returns
    -------
    feasible : list of Plan
        Empty where none of those that were built keeps them.
    least : list of (Plan, Mapping)
        Those of fewest words and of fewest cores, with what they take.
    """

    def counted(plan: Plan) -> tuple[Plan, Mapping]:
        mapping = count(plan)
        return replace(plan, built=cost_of(mapping)), mapping

    def keeps(plan: Plan, mapping: Mapping) -> bool:
        return limits.keep(plan) and not mapping.misfits()

    least = []
    for resource in ("words", "cores"):
        front = front_over(plans, resource)
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
