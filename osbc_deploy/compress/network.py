"""Compress every projection of a network against what it saw in calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.budget import (
    global_budget,
    lamps_budget,
    mixed_widths,
    uniform_budget,
)
from osbc_deploy.compress.hessian import shares_kernel
from osbc_deploy.compress.layer import (
    CompressedProjection,
    LayerProblem,
    prune_layer,
    quantize_layer,
    rank_layer,
)
from osbc_deploy.compress.memory import check_memory
from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.rows import DEFAULT_MEMORY, Workspace
from osbc_deploy.compress.state import State
from osbc_deploy.compress.tuning import HELD_OUT, MIN_HELD_OUT, Scene, adapted, tune
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.simulate import FloatRun, simulate
from osbc_deploy.progress import SILENT, Progress, task

__all__ = [
    "BUDGETS",
    "METHODS",
    "CompressedNetwork",
    "CompressedProjection",
    "CompressionOptions",
    "LayerChoice",
    "Statistics",
    "assemble",
    "collect",
    "compress",
]

Method = Literal["osbc", "obc", "magnitude"]
METHODS: tuple[str, ...] = get_args(Method)

Budget = Literal["lamps", "uniform", "global"]
BUDGETS: tuple[str, ...] = get_args(Budget)

_WIDTHS = range(1, 9)


@dataclass(frozen=True)
class LayerChoice:
    """Sparsity and bits of one layer, in place of the network's."""

    sparsity: float
    bits: int


@dataclass(frozen=True)
class CompressionOptions:
    """What is asked of the compression.

    Attributes
    ----------
    sparsity : float
        Share of all weights removed, 0 <= sparsity < 1.
    bits : int
        Bits per weight, 1 to 8.
    method : str
        "osbc" (membrane Hessian), "obc" (input-current Hessian) or "magnitude".
    damping : float
        Added to the Hessian's diagonal, relative to its mean; 3 % leaves the least loss on
        held-out calibration samples of the bundled networks (GPTQ's 1 % leaves 1 % more).
    scale_groups : int
        Different weight scales allowed per layer: the neuron groups of a core.
    layers : dict of LayerChoice
        By projection name; layers that are not named share `sparsity`.
    budget : str
        How layers share `sparsity`: "lamps" (Lee et al. 2021), "uniform", or "global" (least sum
        of relative losses).
    pattern : str
        "weights", "inputs", "outputs", or N:M such as "2:4".
    mixed : bool
        Whether `bits` is an average over the weights kept, shared for the least loss.
    tune : bool
        Whether each population is compressed for the spikes that arrive from compressed layers,
        in the way that held-out calibration samples favour; see :mod:`.tuning`.
    memory : int
        Bytes that the Hessians of a layer may take, and once more what is worked on beside them.
    threads : int
        0 for one per core.
    """

    sparsity: float = 0.9
    bits: int = 4
    method: str = "osbc"
    damping: float = 0.03
    scale_groups: int = 8
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    budget: str = "lamps"
    pattern: str = "weights"
    mixed: bool = False
    tune: bool = True
    memory: int = DEFAULT_MEMORY
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise UsageError(
                f"sparsity: {self.sparsity:g} is outside 0 <= sparsity < 1. Give the "
                "share of weights to remove, such as 0.9."
            )
        if not 1 <= self.bits <= 8:
            raise UsageError(
                f"bits: {self.bits} is outside 1 to 8. Give the bits per weight, such as 4."
            )
        if self.method not in METHODS:
            raise UsageError(f"method: {self.method!r} is none of {', '.join(METHODS)}.")
        if self.budget not in BUDGETS:
            raise UsageError(f"budget: {self.budget!r} is none of {', '.join(BUDGETS)}.")
        if not (np.isfinite(self.damping) and self.damping >= 0.0):
            raise UsageError(f"damping: {self.damping:g} is not a number of at least 0.")
        if self.memory < 1:
            raise UsageError(f"memory: {self.memory} B is less than 1.")
        pattern = Pattern.parse(self.pattern)
        if pattern.kind != "weights" and self.budget == "global":
            raise UsageError(
                f"budget: global ranks single weights, the pattern is {self.pattern}. "
                "Use lamps or uniform with it."
            )
        if self.method == "magnitude" and pattern.kind != "weights":
            raise UsageError(
                f"pattern: {self.pattern} needs a Hessian. Use method osbc or obc with it."
            )


@dataclass(frozen=True, eq=False)
class CompressedNetwork:
    """A float network with compressed weights.

    Attributes
    ----------
    original : Network
    projections : dict of CompressedProjection
        By projection name.
    options : CompressionOptions
    deviations : tuple of Deviation
    rates : dict of float
        Mean spikes per neuron and step in calibration, by population.
    """

    original: Network
    projections: Mapping[str, CompressedProjection]
    options: CompressionOptions
    deviations: tuple[Deviation, ...]
    rates: Mapping[str, float]

    @cached_property
    def network(self) -> Network:
        """The float network with the compressed weights, biases and thresholds."""
        return adapted(self.original, self.projections)

    @property
    def sparsity(self) -> float:
        """Share of all weights that are 0."""
        nonzero = sum(p.nonzero for p in self.projections.values())
        return 1.0 - nonzero / self.original.weights


@dataclass(frozen=True, eq=False)
class Statistics:
    """What calibration found: the problem of every population's weights.

    Attributes
    ----------
    problems : tuple of LayerProblem
        In network order.
    rates : dict of float
        Mean spikes per neuron and step, by population.
    deviations : tuple of Deviation
    """

    problems: tuple[LayerProblem, ...]
    rates: Mapping[str, float]
    deviations: tuple[Deviation, ...]


def collect(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions,
    *,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> Statistics:
    """Run the calibration samples through the float network and build every layer's Hessian.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all.
    """
    _check_memory(network, calibration, options, tuned=False, together=True)
    run = _float_run(network, calibration, batch_size, progress)
    deviations = list(_oddities(network, run))
    problems = []
    with task(progress, "Hessians", len(network.populations) * len(calibration)):
        for population in network.populations:
            scene = _scene(network, population, calibration, run, {}, options, progress)
            problem = scene.problem(scene.moments(cross=False, part=slice(None)), free_bias=False)
            deviations.extend(problem.deviations)
            problems.append(problem)
    return Statistics(tuple(problems), run.rates, tuple(deviations))


def compress(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions | None = None,
    *,
    state: str | Path | None = None,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> CompressedNetwork:
    """Prune and quantize a network in one shot.

    Parameters
    ----------
    network : Network
    calibration : ndarray of uint8 (n, T, *input_shape)
        Input spikes the network is typical for; labels are not used.
    options : CompressionOptions, optional
    state : path, optional
        A folder for finished layers. A run that was killed goes on from there and ends with the
        same result.
    batch_size : int
        Samples simulated side by side.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all, or the state is broken.
    UsageError
        When the state belongs to another network, other samples or other options, or the Hessians
        of a layer do not fit into the solver's memory.
    """
    options = options or CompressionOptions()
    tuned = options.tune and len(calibration) >= HELD_OUT * MIN_HELD_OUT
    together = options.budget == "global" or options.mixed
    _check_memory(network, calibration, options, tuned=tuned, together=together)
    store = None
    if state is not None:
        store = State(Path(state), _belongs_to(network, calibration, options))
    run = _float_run(network, calibration, batch_size, progress)
    deviations = list(_oddities(network, run))
    if options.tune and not tuned:
        text = (
            f"{len(calibration)} calibration samples are too few to hold some out "
            f"({HELD_OUT * MIN_HELD_OUT} are needed), so no variant was tried"
        )
        deviations.append(Deviation("compress", "calibration", text))
    keep, bits = _plan(network, calibration, run, options, store, progress)
    arriving: dict[str, SpikeArray] = {INPUT: calibration}
    results: dict[str, CompressedProjection] = {}
    for population in network.populations:
        afferents = network.afferents(population.name)
        found = store.load(population.name, afferents) if store else None
        if found is None:
            scene = _scene(network, population, calibration, run, arriving, options, progress)
            found = _compress_population(scene, keep, bits, options, progress, tuned=tuned)
            if store:
                store.save(population.name, *found)
        layer, notes = found
        deviations.extend(notes)
        results |= {p.name: p for p in layer}
        if tuned and population is not network.output:
            after = simulate(
                adapted(network, results),
                calibration,
                record={population.name},
                given=arriving,
                until=population.name,
                exact=True,
                batch_size=batch_size,
            )
            arriving |= after.spikes
    return assemble(network, results, options, Statistics((), run.rates, tuple(deviations)))


def assemble(
    network: Network,
    results: Mapping[str, CompressedProjection],
    options: CompressionOptions,
    statistics: Statistics,
) -> CompressedNetwork:
    """Return the network with these compressed projections, and what is to be said of them."""
    silent = tuple(_silent_outputs(results))
    return CompressedNetwork(
        network, results, options, statistics.deviations + silent, statistics.rates
    )


def _check_memory(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions,
    *,
    tuned: bool,
    together: bool,
) -> None:
    check_memory(
        network,
        calibration.shape[1],
        options.memory,
        method=options.method,
        tuned=tuned,
        together=together,
    )


def _float_run(
    network: Network, calibration: SpikeArray, batch_size: int, progress: Progress
) -> FloatRun:
    if not calibration.any():
        raise ArtefactError(
            "calibration: all spikes are 0, at least one active input is needed. "
            "Check how the events were binned."
        )
    return simulate(
        network,
        calibration,
        record={p.pre for p in network.projections},
        exact=True,
        batch_size=batch_size,
        progress=progress,
        title="calibrate",
    )


def _oddities(network: Network, run: FloatRun) -> Iterator[Deviation]:
    for name, rate in run.rates.items():
        if rate == 0.0:
            text = "no neuron of this population fired in calibration"
            yield Deviation("compress", name, text)
    for population in network.populations:
        if not shares_kernel(population.neuron.dynamics()):
            text = "neurons differ in their decays; the Hessian uses the mean"
            yield Deviation("compress", population.name, text)


def _scene(
    network: Network,
    population: Population,
    calibration: SpikeArray,
    run: FloatRun,
    arriving: Mapping[str, SpikeArray],
    options: CompressionOptions,
    progress: Progress,
) -> Scene:
    before = {**run.spikes, INPUT: calibration}
    names = [p.name for p in network.populations]
    upstream = [INPUT, *names[: names.index(population.name)]]
    return Scene(
        network=network,
        population=population,
        calibration=calibration,
        before=before,
        arriving={name: arriving.get(name, before[name]) for name in upstream if name in before},
        rate=run.rates.get(population.name, 0.0),
        method=options.method,
        damping=options.damping,
        memory=options.memory,
        on_samples=progress.advance,
    )


def _compress_population(
    scene: Scene,
    keep: Mapping[str, int],
    bits: Mapping[str, int],
    options: CompressionOptions,
    progress: Progress,
    *,
    tuned: bool,
) -> tuple[tuple[CompressedProjection, ...], tuple[Deviation, ...]]:
    name = scene.population.name
    space = Workspace(options.memory, options.threads)
    pattern = _pattern_of(scene.network, scene.population, options)

    def solve(problem: LayerProblem) -> tuple[CompressedProjection, ...]:
        pruned = prune_layer(problem, keep.get(name, problem.size), pattern=pattern, space=space)
        (layer,) = quantize_layer(problem, pruned, [bits[name]], options.scale_groups, space)
        return layer

    with task(progress, f"compress {name}", len(scene.calibration)):
        if tuned and all(p.compressible for p in scene.afferents):
            layer, problem = tune(scene, solve)
        else:
            problem = scene.problem(scene.moments(cross=False, part=slice(None)), free_bias=False)
            layer = solve(problem)
    return layer, problem.deviations


def _pattern_of(network: Network, population: Population, options: CompressionOptions) -> Pattern:
    pattern = Pattern.parse(options.pattern)
    trained = all(p.compressible for p in network.afferents(population.name))
    # The network's own outputs are its classes: none of them may go.
    classes = pattern.kind == "outputs" and population is network.output
    return Pattern() if classes or not trained else pattern


def _plan(
    network: Network,
    calibration: SpikeArray,
    run: FloatRun,
    options: CompressionOptions,
    store: State | None,
    progress: Progress,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many weights and bits every population's weights get."""
    done = store.load_plan() if store else None
    if done is not None:
        return done["keep"], done["bits"]
    trained = {
        p.name: network.afferents(p.name)
        for p in network.populations
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
    if shared and (options.budget == "global" or options.mixed):
        plain = collect(network, calibration, options, progress=progress).problems
        by_name = {p.afferents[0].post: p for p in plain}
        problems = {name: by_name[name] for name in shared}
    space = Workspace(options.memory, options.threads)
    if shared:
        keep |= _shared_weights(network, shared, sizes, problems, options, space)
    if problems and options.mixed:
        losses, stored = [], []
        with task(progress, "mixed precision", len(problems)):
            for name, problem in problems.items():
                pattern = _pattern_of(network, _population(network, name), options)
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
    if options.budget == "uniform":
        found = uniform_budget(counts, options.sparsity)
    elif options.budget == "lamps":
        weights = [
            np.concatenate([q.connection.weight.ravel() for q in network.afferents(name)])
            for name in shared
        ]
        found = lamps_budget(weights, options.sparsity)
    else:
        total = sum(counts)
        # No layer can keep more than all that are kept.
        most = max(1, total - round(options.sparsity * total))
        rankings = [rank_layer(problems[name], min(sizes[name], most), space) for name in shared]
        wholes = [problems[name].whole for name in shared]
        found = global_budget(rankings, wholes, counts, options.sparsity)
    return dict(zip(shared, found, strict=True))


def _belongs_to(
    network: Network, calibration: SpikeArray, options: CompressionOptions
) -> dict[str, str]:
    # How many threads solve it does not matter to the result; memory may decide the method.
    asked = replace(options, threads=0)
    samples = hashlib.sha256(repr(calibration.shape).encode() + calibration.tobytes())
    return {
        "model": network.fingerprint(),
        "calibration": samples.hexdigest(),
        "options": repr(asked),
        "version of osbc-deploy": __version__,
    }


def _silent_outputs(results: Mapping[str, CompressedProjection]) -> Iterator[Deviation]:
    for name, result in results.items():
        rows = result.codes.reshape(len(result.codes), -1)
        count = int((~rows.any(axis=1)).sum())
        if count:
            yield Deviation("compress", name, f"{count} of {len(rows)} outputs have no weight left")
