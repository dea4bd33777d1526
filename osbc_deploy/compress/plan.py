"""How many weights and bits the layers of a network get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.allocation import (
    lamps_allocation,
    largest_allocation,
    mixed_widths,
    uniform_allocation,
)
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.layer import prune_layer, quantize_layer
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.compress.shared import Shared
from osbc_deploy.compress.shares import global_shares
from osbc_deploy.compress.state import SolverState
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.simulate import FloatRun
from osbc_deploy.progress import Progress, task

__all__ = ["Cost", "pattern_of", "plan", "shared_weights", "shared_widths"]

Cost: TypeAlias = Callable[[str, Sequence[CompressedProjection]], int]
"""What the compressed weights into a population take on a chip, in whole words of its memory."""

_WIDTHS = range(1, 9)


def pattern_of(network: Network, population: Population, options: CompressionOptions) -> Pattern:
    """Return the pattern of one population's weights, which not every population can have."""
    pattern = Pattern.parse(options.pattern)
    trained = all(p.compressible for p in network.afferents(population.name))
    # The network's own outputs are its classes: none of them may go.
    classes = pattern.kind == "outputs" and population is network.output
    return Pattern() if classes or not trained else pattern


def plan(
    network: Network,
    calibration: SpikeArray,
    run: FloatRun,
    options: CompressionOptions,
    store: SolverState | None,
    progress: Progress,
    cost: Cost | None = None,
    shared: Shared | None = None,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many weights and bits every population's weights get."""
    done = store.load_plan() if store else None
    if done is not None:
        return done["keep"], done["bits"]
    trained = {
        p.name: network.afferents(p.name)
        for p in network.trained
        if all(q.compressible for q in network.afferents(p.name))
    }
    sizes = {name: sum(q.connection.weight.size for q in a) for name, a in trained.items()}
    named = {
        name: next(options.layers[q.name] for q in a if q.name in options.layers)
        for name, a in trained.items()
        if any(q.name in options.layers for q in a)
    }
    keep = {
        name: max(1, sizes[name] - round(c.sparsity * sizes[name])) for name, c in named.items()
    }
    bits = {p.name: options.bits for p in network.populations}
    bits |= {name: choice.bits for name, choice in named.items()}
    left = [name for name in sizes if name not in keep]
    problems: dict[str, LayerProblem] = {}
    if left and options.joint:
        # The samples have their copies already.
        as_they_are = replace(options, augment="none")
        found = collect(network, calibration, as_they_are, shared=shared, progress=progress)
        plain = found.problems
        by_name = {p.afferents[0].post: p for p in plain}
        problems = {name: by_name[name] for name in left}
    if left:
        weights = {
            name: np.concatenate([q.connection.weight.ravel() for q in trained[name]])
            for name in left
        }
        keep |= shared_weights(weights, problems, options)
    if problems and options.mixed:
        patterns = {n: pattern_of(network, _population(network, n), options) for n in problems}
        bits |= shared_widths(problems, keep, patterns, options, progress, cost)
    if store:
        store.save_plan({"keep": keep, "bits": bits})
    return keep, bits


def _population(network: Network, name: str) -> Population:
    return next(p for p in network.populations if p.name == name)


def shared_weights(
    weights: Mapping[str, FloatArray],
    problems: Mapping[str, LayerProblem],
    options: CompressionOptions,
) -> dict[str, int]:
    """Return how many weights each layer keeps of all that layers share.

    Parameters
    ----------
    weights : dict of ndarray
        Of each layer.
    problems : dict of LayerProblem
        Of the same layers; needed where the loss decides.
    options : CompressionOptions
    """
    counts = [weight.size for weight in weights.values()]
    if options.allocation == "uniform":
        found = uniform_allocation(counts, options.sparsity)
    elif options.allocation == "global" and options.method == "magnitude":
        found = largest_allocation(list(weights.values()), options.sparsity)
    elif options.allocation in ("auto", "lamps"):  # Whoever can judge has tried before.
        found = lamps_allocation(list(weights.values()), options.sparsity)
    else:
        return global_shares(problems, options.sparsity, options.space())[0]
    return dict(zip(weights, found, strict=True))


def shared_widths(
    problems: Mapping[str, LayerProblem],
    keep: Mapping[str, int],
    patterns: Mapping[str, Pattern],
    options: CompressionOptions,
    progress: Progress,
    cost: Cost | None = None,
) -> dict[str, int]:
    """Return the bits of each layer that take no more than the bits asked for would everywhere.

    What they take is counted as the chip stores them, by `cost`; without one, the bits of all
    weights that were kept count.
    """
    space = options.space()
    losses, costs = [], []
    with task(progress, "mixed precision", len(problems)):
        for name, problem in problems.items():
            pruned = prune_layer(problem, keep[name], pattern=patterns[name], space=space)
            found = quantize_layer(problem, pruned, _WIDTHS, options.scale_groups, space)
            losses.append({f[0].bits: f[0].relative_loss["total"] for f in found})
            costs.append(
                {
                    f[0].bits: f[0].bits * sum(p.kept for p in f) if cost is None else cost(name, f)
                    for f in found
                }
            )
            progress.advance()
    room = sum(taken[options.bits] for taken in costs)
    return dict(zip(problems, mixed_widths(losses, costs, room), strict=True))
