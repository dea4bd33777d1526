"""Tune the layers of a plan, and keep its budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.compress.shared import Shared
from osbc_deploy.compress.state import FinishedLayer
from osbc_deploy.deviations import Deviation
from osbc_deploy.fitting.built import cost_of, mapped
from osbc_deploy.fitting.candidates import costed
from osbc_deploy.fitting.search import Candidate, Limits, Plan
from osbc_deploy.job import Job
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.timing import Timing
from osbc_deploy.progress import Progress

__all__ = ["tuned_plan"]


def tuned_plan(
    plan: Plan,
    job: Job,
    options: CompressionOptions,
    limits: Limits,
    apart: Apart,
    times: Timing,
    *,
    shared: Shared,
    progress: Progress,
) -> tuple[Plan, CompressedNetwork]:
    """Compress the layers as a plan says, with the best of the variants that are tried of each.

    A variant keeps as many weights, but other ones, which may take more memory. A layer that would
    so take more than is left of the limits stays as the plan has it, and the layers behind it are
    tuned for that.

    Parameters
    ----------
    plan : Plan
        Within the limits.
    job : Job
    options : CompressionOptions
        With the plan's choices as `layers`.
    limits : Limits
    apart : Apart
        The network, with gates that count spikes where a pooling is not merged.
    times : Timing
    shared : Shared
        What the search found of the float network.
    progress : Progress

    Returns
    -------
    plan : Plan
        With what the layers take now; their losses stay those that were predicted.
    compressed : CompressedNetwork
    """
    populations = {p.name: p for p in apart.network.populations}
    built: dict[str, Candidate] = dict(plan.choices)

    def settle(name: str, layer: tuple[CompressedProjection, ...]) -> FinishedLayer:
        first = layer[0].name
        chosen = plan.choices[first]
        if all(p.compressible for p in job.network.afferents(name)):
            found = costed(layer, apart, populations[name], job.chip, times, chosen.sparsity)
            found = replace(found, loss=chosen.loss)
            total = replace(plan, choices={**built, first: found})
            # What was built to be counted is built again in the end.
            if plan.built or (not found.fault and limits.keep(total)):
                built[first] = found
                return layer, ()
            over = (f"{total.cores} cores, {total.words:,} words", found.fault)[bool(found.fault)]
            note = f"tuned, it would not keep the budget ({over}), so it is not tuned"
            return chosen.projections, (Deviation("compress", first, note),)
        return chosen.projections, ()

    compressed = compress(
        job.network, job.typical.spikes, options, shared=shared, settle=settle, progress=progress
    )
    found = replace(plan, choices=_ordered(built, plan.choices))
    if plan.built:
        found = replace(found, built=cost_of(mapped(job, compressed)))
    return found, compressed


def _ordered(
    built: Mapping[str, Candidate], choices: Mapping[str, Candidate]
) -> dict[str, Candidate]:
    return {name: built[name] for name in choices}
