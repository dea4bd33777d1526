"""Tune the layers of a plan, and keep its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from osbc_deploy.compress.network import Found, compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.compress.shared import Shared
from osbc_deploy.deviations import Deviation
from osbc_deploy.fitting.candidates import costed
from osbc_deploy.fitting.search import Candidate, Plan
from osbc_deploy.job import Job
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.timing import Timing
from osbc_deploy.progress import Progress

__all__ = ["Limits", "tuned_plan"]


@dataclass(frozen=True)
class Limits:
    """What a whole network may take.

    Attributes
    ----------
    cores : int
    words : float
        Of memory; infinite without a limit.
    used : dict of int
        Of each resource of a core that all layers share.
    """

    cores: int
    words: float = math.inf
    used: Mapping[str, int] = field(default_factory=dict)

    def keep(self, plan: Plan) -> bool:
        """Return whether a plan keeps them."""
        within = all(plan.used.get(name, 0) <= most for name, most in self.used.items())
        return within and plan.cores <= self.cores and plan.words <= self.words


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

    def settle(name: str, layer: tuple[CompressedProjection, ...]) -> Found:
        first = layer[0].name
        chosen = plan.choices[first]
        if all(p.compressible for p in job.network.afferents(name)):
            found = costed(layer, apart, populations[name], job.chip, times, chosen.sparsity)
            found = replace(found, loss=chosen.loss)
            total = replace(plan, choices={**built, first: found})
            if not found.fault and limits.keep(total):
                built[first] = found
                return layer, ()
            over = (f"{total.cores} cores, {total.words:,} words", found.fault)[bool(found.fault)]
            note = f"tuned, it would not keep the budget ({over}), so it is not tuned"
            return chosen.projections, (Deviation("compress", first, note),)
        return chosen.projections, ()

    compressed = compress(
        job.network, job.typical.spikes, options, shared=shared, settle=settle, progress=progress
    )
    return replace(plan, choices=_ordered(built, plan.choices)), compressed


def _ordered(
    built: Mapping[str, Candidate], choices: Mapping[str, Candidate]
) -> dict[str, Candidate]:
    return {name: built[name] for name in choices}
