"""Candidates of a layer: compressed for real over a grid, costed with the target's own model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from osbc_deploy.chip.alone import map_alone, map_beside
from osbc_deploy.chip.mapping import Mapping
from osbc_deploy.chip.sharing import Part
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.ranking import Ranking, ranking_work
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import FitError
from osbc_deploy.fitting.search import Candidate, Cost
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.options import BITS
from osbc_deploy.progress import Progress

__all__ = [
    "BITS",
    "SPARSITIES",
    "affordable_sparsities",
    "cost_beside",
    "costed",
    "finer_sparsities",
    "layer_candidates",
    "layer_ranking",
    "left_out",
]

SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)

_FINER = 3
"""Sparsities that are tried between two."""

_RANKING_WORK = 3e12
"""Multiplications a layer's ranking may take (some two minutes on two cores)."""


def layer_candidates(
    problem: LayerProblem,
    apart: Apart,
    population: Population,
    target: Target,
    times: Timing,
    *,
    ranking: Ranking | None,
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
    ranking : Ranking or None
        Of the layer; see :func:`layer_ranking`.
    progress : Progress
        Advanced once per sparsity.
    sparsities, bits : sequence
        The grid; a layer without trained weights is only tried whole.

    Returns
    -------
    list of Candidate
    """
    found = []
    for sparsity in affordable_sparsities(problem, sparsities):
        pruned = prune_layer(problem, _keep(problem, sparsity), ranking)
        found += [
            costed(
                projections,
                apart,
                population,
                target,
                times,
                sparsity,
            )
            for projections in quantize_layer(problem, pruned, bits, target.memory.layer_scales)
        ]
        progress.advance()
    return found


def layer_ranking(problem: LayerProblem) -> Ranking | None:
    """Rank a layer's weights for the densest sparsity above 0 it is tried at, and all beyond."""
    keep = max((_keep(problem, s) for s in affordable_sparsities(problem) if s), default=0)
    return rank_layer(problem, keep) if keep else None


def finer_sparsities(problem: LayerProblem, tried: Sequence[float], around: float) -> list[float]:
    """Return sparsities between one of those tried and its neighbors, evenly spread in what stays.

    Parameters
    ----------
    problem : LayerProblem
    tried : sequence of float
    around : float
        One of `tried`.
    """
    if not problem.compressible:
        return []
    grid = sorted(set(tried))
    place = grid.index(around)
    found = []
    for low, high in itertools.pairwise(grid):
        # Nothing is ranked between keeping all and the densest that was tried.
        if grid[max(0, place - 1)] <= low and high <= grid[min(len(grid) - 1, place + 1)] and low:
            step = math.log((1.0 - high) / (1.0 - low)) / (_FINER + 1)
            found += [1.0 - (1.0 - low) * math.exp(n * step) for n in range(1, _FINER + 1)]
    kept = {_keep(problem, s) for s in grid}
    return [s for s in found if _keep(problem, s) not in kept]


def cost_beside(network: Network, target: Target, times: Timing) -> Cost:
    """Return what gates take, relays among them, whatever is chosen.

    Raises
    ------
    FitError
        When what is beside the layers fits no core.
    """
    mapping = map_beside(network, target, times)
    shared = _shares(target)
    limits = target.memory.limits() if target.memory.packs else {}
    if mapping is None:
        return Cost(cores=int(shared), limits=limits)
    if misfits := mapping.misfits():
        raise FitError(f"gates: {misfits[0]}. Make the populations they hear smaller.")
    used = mapping.used if shared else {}
    return Cost(mapping.cores_used, mapping.words, used, _parts(mapping, target), limits)


def _shares(target: Target) -> bool:
    """Return whether all layers lie on one core, which is then counted beside them, once."""
    return target.memory.arrangement == "together"


def _parts(mapping: Mapping, target: Target) -> tuple[Part, ...]:
    """Return the slices where those of several layers may lie on one core."""
    if not target.memory.packs:
        return ()
    return tuple(Part(core.usage.used, core.delay_bits) for core in mapping.cores)


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


def costed(
    projections: tuple[CompressedProjection, ...],
    apart: Apart,
    population: Population,
    target: Target,
    times: Timing,
    sparsity: float,
) -> Candidate:
    """Return compressed weights as a candidate, with what they take on the target."""
    mapping = map_alone(apart, population, projections, target, times)
    misfits, shared = mapping.misfits(), _shares(target)
    limiting = max((core.limiting() for core in mapping.cores), key=lambda pair: pair[1])[0]
    last = population.name == apart.network.output.name
    return Candidate(
        sparsity=sparsity,
        bits=projections[0].bits,
        cores=0 if shared else mapping.cores_used,
        words=mapping.words,
        loss=projections[0].relative_loss["total"],
        # Hundreds of candidates are held at once; only their codes may be needed again.
        projections=tuple(replace(p, pruned=None) for p in projections),
        limiting=limiting,
        fault=misfits[0] if misfits else "",
        used=mapping.used if shared else {},
        parts=_parts(mapping, target),
        fixed=target.memory.fixed() if last else {},
    )


def left_out(problems: Sequence[LayerProblem]) -> Iterator[Deviation]:
    """Say which points of the grid are too costly to try."""
    for problem in problems:
        missing = set(SPARSITIES) - set(affordable_sparsities(problem))
        if missing and problem.compressible:
            yield Deviation(
                "compress",
                problem.name,
                f"too large to rank densely, so fit did not try {min(missing):.0%} to "
                f"{max(missing):.0%} sparsity",
            )
