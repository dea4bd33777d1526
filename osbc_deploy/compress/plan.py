"""How many weights and bits the layers of a network get."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.allocation import (
    global_allocation,
    lamps_allocation,
    mixed_widths,
    uniform_allocation,
)
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.state import SolverState
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.simulate import FloatRun
from osbc_deploy.progress import Progress, task

__all__ = ["pattern_of", "plan"]

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
    shared = [name for name in sizes if name not in keep]
    problems: dict[str, LayerProblem] = {}
    if shared and (options.allocation == "global" or options.mixed):
        plain = collect(network, calibration, options, progress=progress).problems
        by_name = {p.afferents[0].post: p for p in plain}
        problems = {name: by_name[name] for name in shared}
    space = Workspace(options.solver_memory, options.threads)
    if shared:
        keep |= _shared_weights(network, shared, sizes, problems, options, space)
    if problems and options.mixed:
        losses, stored = [], []
        with task(progress, "mixed precision", len(problems)):
            for name, problem in problems.items():
                pattern = pattern_of(network, _population(network, name), options)
                pruned = prune_layer(problem, keep[name], pattern=pattern, space=space)
                found = quantize_layer(problem, pruned, _WIDTHS, options.scale_groups, space)
                losses.append({f[0].bits: f[0].relative_loss["total"] for f in found})
                stored.append(sum(p.kept for p in found[0]))
                progress.advance()
        bits |= dict(zip(problems, mixed_widths(losses, stored, options.bits), strict=True))
    if store:
        store.save_plan({"keep": keep, "bits": bits})
    return keep, bits


def _population(network: Network, name: str) -> Population:
    return next(p for p in network.populations if p.name == name)


def _shared_weights(
    network: Network,
    shared: list[str],
    sizes: Mapping[str, int],
    problems: Mapping[str, LayerProblem],
    options: CompressionOptions,
    space: Workspace,
) -> dict[str, int]:
    counts = [sizes[name] for name in shared]
    if options.allocation == "uniform":
        found = uniform_allocation(counts, options.sparsity)
    elif options.allocation == "lamps":
        weights = [
            np.concatenate([q.connection.weight.ravel() for q in network.afferents(name)])
            for name in shared
        ]
        found = lamps_allocation(weights, options.sparsity)
    else:
        total = sum(counts)
        # No layer can keep more than all that are kept.
        most = max(1, total - round(options.sparsity * total))
        rankings = [rank_layer(problems[name], min(sizes[name], most), space) for name in shared]
        wholes = [problems[name].whole for name in shared]
        found = global_allocation(rankings, wholes, counts, options.sparsity)
    return dict(zip(shared, found, strict=True))
