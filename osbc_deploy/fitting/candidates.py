"""Candidates of a layer: compressed for real over a grid, costed with the target's own model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from osbc_deploy.chip.alone import map_alone, map_beside
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.ranking import ranking_work
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.errors import FitError
from osbc_deploy.fitting.search import Candidate, Cost
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.options import BITS
from osbc_deploy.progress import Progress

__all__ = ["BITS", "SPARSITIES", "affordable_sparsities", "cost_beside", "layer_candidates"]

SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)

_RANKING_WORK = 3e12
"""Multiplications a layer's ranking may take (some two minutes on two cores)."""


def layer_candidates(
    problem: LayerProblem,
    apart: Apart,
    population: Population,
    target: Target,
    times: Timing,
    *,
    progress: Progress,
    sparsities: Sequence[float] = SPARSITIES,
    bits: Sequence[int] = BITS,
) -> list[Candidate]:
    """Compress a layer at every sparsity and width and count what it costs.

    Parameters
    ----------
    problem : LayerProblem
    apart : Apart
        The network, with gates that count spikes where a pooling is not merged.
    population : Population
        The neurons behind the layer.
    target : Target
    times : Timing
        Of the network: delays take memory too.
    progress : Progress
        Advanced once per sparsity.
    sparsities, bits : sequence
        The grid; a layer without trained weights is only tried whole.

    Returns
    -------
    list of Candidate
    """
    grid = affordable_sparsities(problem, sparsities)
    kept = [_keep(problem, s) for s in grid]
    ranking = None
    found = []
    for sparsity, keep in zip(grid, kept, strict=True):
        if ranking is None and keep < problem.size:
            # The densest comes first, so its ranking holds for all that follow.
            ranking = rank_layer(problem, keep)
        pruned = prune_layer(problem, keep, ranking)
        found += [
            _costed(
                projections,
                apart,
                population,
                target,
                times,
                sparsity,
            )
            for projections in quantize_layer(problem, pruned, bits, target.memory.scale_groups)
        ]
        progress.advance()
    return found


def cost_beside(network: Network, target: Target, times: Timing) -> Cost:
    """Return what gates take, relays among them, whatever is chosen."""
    mapping = map_beside(network, target, times)
    if mapping is None:
        return Cost()
    if misfits := mapping.misfits():
        raise FitError(f"gates: {misfits[0]}. Make the populations they hear smaller.")
    return Cost(mapping.cores_used, mapping.words)


def affordable_sparsities(
    problem: LayerProblem, sparsities: Sequence[float] = SPARSITIES
) -> list[float]:
    """Return the sparsities a layer is tried at, the densest first.

    The more is kept of a large layer, the longer its ranking takes; the sparsities that would take
    too long are left out, but never 0.
    """
    grid = sorted(sparsities) if problem.compressible else [0.0]
    work = {s: ranking_work(problem.blocks, problem.damped, _keep(problem, s)) for s in grid}
    return [s for s in grid if s == 0.0 or work[s] <= _RANKING_WORK]


def _keep(problem: LayerProblem, sparsity: float) -> int:
    return max(1, problem.size - round(sparsity * problem.size))


def _costed(
    projections: tuple[CompressedProjection, ...],
    apart: Apart,
    population: Population,
    target: Target,
    times: Timing,
    sparsity: float,
) -> Candidate:
    mapping = map_alone(apart, population, projections, target, times)
    misfits = mapping.misfits()
    limiting = max((core.limiting() for core in mapping.cores), key=lambda pair: pair[1])[0]
    return Candidate(
        sparsity=sparsity,
        bits=projections[0].bits,
        cores=mapping.cores_used,
        words=mapping.words,
        loss=projections[0].relative_loss["total"],
        # Hundreds of candidates are held at once; only their codes may be needed again.
        projections=tuple(replace(p, pruned=None) for p in projections),
        limiting=limiting,
        fault=misfits[0] if misfits else "",
    )
