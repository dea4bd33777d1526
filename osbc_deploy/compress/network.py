"""Compress every projection of a network against what it saw in calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.budget import lamps_budget
from osbc_deploy.compress.layer import (
    CompressedProjection,
    LayerProblem,
    prepare_layer,
    prune_layer,
    quantize_layer,
)
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.network.graph import INPUT, Network
from osbc_deploy.network.simulate import simulate
from osbc_deploy.progress import SILENT, Progress, task

__all__ = [
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
        Added to the Hessian's diagonal, relative to its mean.
    scale_groups : int
        Different weight scales allowed per layer: the neuron groups of a core.
    layers : dict of LayerChoice
        By projection name; layers that are not named share `sparsity` by LAMPS.
    """

    sparsity: float = 0.9
    bits: int = 4
    method: str = "osbc"
    damping: float = 0.01
    scale_groups: int = 8
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)

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

    @property
    def network(self) -> Network:
        """The float network with the compressed weights."""
        dtype = self.original.dtype
        return self.original.with_weights(
            {name: p.weight.astype(dtype) for name, p in self.projections.items()}
        )

    @property
    def sparsity(self) -> float:
        """Share of all weights that are 0."""
        nonzero = sum(p.nonzero for p in self.projections.values())
        return 1.0 - nonzero / self.original.weights


@dataclass(frozen=True, eq=False)
class Statistics:
    """What calibration found: the problem of every projection.

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
    if not calibration.any():
        raise ArtefactError(
            "calibration: all spikes are 0, at least one active input is needed. "
            "Check how the events were binned."
        )
    run = simulate(
        network,
        calibration,
        record={p.pre for p in network.projections},
        batch_size=batch_size,
        progress=progress,
        title="calibrate",
    )
    deviations = [
        Deviation("compress", name, "no neuron of this population fired in calibration")
        for name, rate in run.rates.items()
        if rate == 0.0
    ]
    problems = []
    with task(progress, "Hessians", len(network.projections) * len(calibration)):
        for projection, population in zip(network.projections, network.populations, strict=True):
            spikes = calibration if projection.pre == INPUT else run.spikes[projection.pre]
            problem = prepare_layer(
                projection, population, spikes, options.method, options.damping, progress.advance
            )
            deviations.extend(problem.deviations)
            problems.append(problem)
    return Statistics(tuple(problems), run.rates, tuple(deviations))


def compress(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions | None = None,
    *,
    statistics: Statistics | None = None,
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
    statistics : Statistics, optional
        Of the same network, samples and options, if they were collected already.
    batch_size : int
        Samples simulated side by side.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all.
    """
    options = options or CompressionOptions()
    statistics = statistics or collect(
        network, calibration, options, batch_size=batch_size, progress=progress
    )
    keep = _budget(network, options)
    results = {}
    with task(progress, "compress", len(statistics.problems)):
        for problem in statistics.problems:
            name = problem.projection.name
            pruned = prune_layer(problem, keep.get(name, problem.size))
            bits = options.layers[name].bits if name in options.layers else options.bits
            (results[name],) = quantize_layer(problem, pruned, [bits], options.scale_groups)
            progress.advance()
    return assemble(network, results, options, statistics)


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


def _budget(network: Network, options: CompressionOptions) -> dict[str, int]:
    """Return how many weights each trained projection keeps."""
    sizes = {p.name: p.connection.weight.size for p in network.projections if p.compressible}
    chosen = {
        name: max(1, sizes[name] - round(options.layers[name].sparsity * sizes[name]))
        for name in sizes
        if name in options.layers
    }
    shared = [p for p in network.projections if p.compressible and p.name not in chosen]
    if shared:
        counts = lamps_budget([p.connection.weight for p in shared], options.sparsity)
        chosen |= {p.name: count for p, count in zip(shared, counts, strict=True)}
    return chosen


def _silent_outputs(results: Mapping[str, CompressedProjection]) -> Iterator[Deviation]:
    for name, result in results.items():
        rows = result.codes.reshape(len(result.codes), -1)
        count = int((~rows.any(axis=1)).sum())
        if count:
            yield Deviation("compress", name, f"{count} of {len(rows)} outputs have no weight left")
