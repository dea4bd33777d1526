"""Compress every projection of a network against what it saw in calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, SpikeArray, frozen
from osbc_deploy.compress.budget import lamps_budget
from osbc_deploy.compress.hessian import membrane_hessian, shares_kernel
from osbc_deploy.compress.quantize import choose_scales, quantize_rows, round_to_grid
from osbc_deploy.compress.solver import (
    DampedHessian,
    Path,
    allocate,
    damp,
    eliminate,
    least_squares,
    loss,
    path_mask,
    select_forward,
)
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.network.graph import INPUT, Conv, Network, Projection
from osbc_deploy.network.simulate import simulate
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["METHODS", "CompressedNetwork", "CompressedProjection", "CompressionOptions", "compress"]

Method = Literal["osbc", "obc", "magnitude"]
METHODS: tuple[str, ...] = get_args(Method)

_ELIMINATION_BUDGET = 2e10
"""Multiplications up to which a layer is pruned by exact elimination (some ten seconds)."""

_FORWARD_MARGIN = 3.0
"""How many times the layer's average a single row may keep in forward selection."""


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
    """

    sparsity: float = 0.9
    bits: int = 4
    method: str = "osbc"
    damping: float = 0.01
    scale_groups: int = 8

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
class CompressedProjection:
    """The compressed weights of one projection: ``weight = scale * codes``.

    Attributes
    ----------
    name : str
    codes : ndarray of int8, shape of the weight
        0 where pruned or rounded to zero.
    scale : ndarray of float64 (n_post or c_out,)
    bits : int
    kept : int
        Weights kept by pruning (a few of them may have the code 0).
    relative_loss : dict
        Loss over that of removing all weights: "pruned", and "total" after quantization.
    selection : str
        How the mask was chosen: "none", "magnitude", "elimination" or "forward".
    dead_inputs : int
        Inputs (of one output) never active in calibration.
    curve : tuple of (float, float)
        Sparsity and relative loss predicted for it, as far as the selection looked; empty where
        nothing was selected.
    """

    name: str
    codes: IntArray
    scale: FloatArray
    bits: int
    kept: int
    relative_loss: Mapping[str, float]
    selection: str
    dead_inputs: int
    curve: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", frozen(self.codes, np.int8))
        object.__setattr__(self, "scale", frozen(self.scale, np.float64))

    @property
    def weight(self) -> FloatArray:
        """The weights the codes stand for."""
        shape = (-1,) + (1,) * (self.codes.ndim - 1)
        return self.codes * self.scale.reshape(shape)

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.codes))


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


def compress(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions | None = None,
    *,
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
    batch_size : int
        Samples simulated side by side.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all.
    """
    options = options or CompressionOptions()
    if not calibration.any():
        raise ArtefactError(
            "calibration: all spikes are 0, at least one active input is needed. "
            "Check how the events were binned."
        )
    sources = {p.pre for p in network.projections}
    run = simulate(
        network,
        calibration,
        record=sources,
        batch_size=batch_size,
        progress=progress,
        title="calibrate",
    )
    deviations = [
        Deviation("compress", name, "no neuron of this population fired in calibration")
        for name, rate in run.rates.items()
        if rate == 0.0
    ]
    trained = [p for p in network.projections if p.compressible]
    budget = (
        dict(
            zip(
                (p.name for p in trained),
                lamps_budget([p.connection.weight for p in trained], options.sparsity),
                strict=True,
            )
        )
        if trained
        else {}
    )
    results = {}
    with task(progress, "compress", len(network.projections) * len(calibration)):
        for projection in network.projections:
            keep = budget.get(projection.name, projection.connection.weight.size)
            spikes = calibration if projection.pre == INPUT else run.spikes[projection.pre]
            results[projection.name] = _compress_projection(
                network, projection, spikes, keep, options, deviations, progress
            )
    return CompressedNetwork(network, results, options, tuple(deviations), run.rates)


def _compress_projection(
    network: Network,
    projection: Projection,
    spikes: SpikeArray,
    keep: int,
    options: CompressionOptions,
    deviations: list[Deviation],
    progress: Progress,
) -> CompressedProjection:
    connection = projection.connection
    weight = connection.weight.astype(np.float64)
    groups = connection.groups if isinstance(connection, Conv) else 1
    population = next(p for p in network.populations if p.name == projection.post)
    dynamics = population.neuron.dynamics()
    if not shares_kernel(dynamics):
        deviations.append(
            Deviation(
                "compress",
                population.name,
                "neurons differ in their decays; the Hessian uses the mean",
            )
        )
    hessian = membrane_hessian(
        projection,
        None if options.method == "obc" else dynamics,
        spikes,
        on_batch=progress.advance,
    )
    blocks = weight.reshape(groups, len(weight) // groups, -1)
    damped = [damp(H, options.damping) for H in hessian]
    deviations.extend(
        Deviation(
            "compress",
            projection.name,
            f"Hessian not positive definite; damping raised to {entry.damping:g}",
        )
        for entry in damped
        if entry.attempts > 1
    )
    selection, masks, curve = _select(blocks, damped, keep, options.method)
    pruned: list[FloatArray]
    if options.method == "magnitude":
        pruned = [W * mask for W, mask in zip(blocks, masks, strict=True)]
    else:
        pruned = [
            least_squares(W, d.H, mask) for W, d, mask in zip(blocks, damped, masks, strict=True)
        ]
    scale = _scales(pruned, masks, damped, options, population.neuron.spiking)
    scales = scale.reshape(groups, -1)
    codes = [
        _quantize(W, d, mask, s, options)
        for W, d, mask, s in zip(pruned, damped, masks, scales, strict=True)
    ]
    quantized = [c * s[:, None] for c, s in zip(codes, scales, strict=True)]
    dead = sum(int(d.dead.sum()) for d in damped)
    silent = [i for i, row in enumerate(np.concatenate(codes)) if not row.any()]
    if silent:
        deviations.append(
            Deviation(
                "compress",
                projection.name,
                f"{len(silent)} of {len(weight)} outputs have no weight left",
            )
        )
    return CompressedProjection(
        name=projection.name,
        codes=np.concatenate(codes).reshape(weight.shape),
        scale=scale,
        bits=options.bits,
        kept=int(sum(mask.sum() for mask in masks)),
        relative_loss={
            "pruned": _relative(blocks, pruned, hessian),
            "total": _relative(blocks, quantized, hessian),
        },
        selection=selection,
        dead_inputs=dead,
        curve=curve,
    )


def _select(
    blocks: FloatArray, damped: Sequence[DampedHessian], keep: int, method: str
) -> tuple[str, list[BoolArray], tuple[tuple[float, float], ...]]:
    """Choose the weights to keep, over all rows of the layer together; add the loss curve."""
    groups, rows, n = blocks.shape
    if keep >= blocks.size:
        return "none", [np.ones((rows, n), bool) for _ in range(groups)], ()
    if method == "magnitude":
        order = np.argsort(-np.abs(blocks).ravel(), kind="stable")
        mask = np.zeros(blocks.size, bool)
        mask[order[:keep]] = True
        return "magnitude", list(mask.reshape(blocks.shape)), ()
    if groups * rows * n**3 <= _ELIMINATION_BUDGET:
        selection = "elimination"
        paths = [eliminate(W, d.H) for W, d in zip(blocks, damped, strict=True)]
    else:
        selection = "forward"
        most = min(n, int(_FORWARD_MARGIN * keep / (groups * rows)) + 16)
        paths = [select_forward(W, d.H, most) for W, d in zip(blocks, damped, strict=True)]
    # Weights on dead inputs have no effect: they go first, the small ones before the large.
    paths = [_dead_last(path, W, d.dead) for path, W, d in zip(paths, blocks, damped, strict=True)]
    counts = allocate(paths, keep)
    masks = [path_mask(path, count, n) for path, count in zip(paths, counts, strict=True)]
    whole = sum(loss(W, 0.0 * W, d.H).sum() for W, d in zip(blocks, damped, strict=True))
    return selection, masks, _curve(paths, float(whole), blocks.size)


def _curve(
    paths: Sequence[Path], whole: float, size: int, points: int = 41
) -> tuple[tuple[float, float], ...]:
    """Return (sparsity, relative loss) along the order in which all rows together are filled."""
    value = np.concatenate([path.value.ravel() for path in paths])
    drop = np.concatenate([path.drop.ravel() for path in paths])
    order = np.argsort(-value, kind="stable")
    left = whole - np.concatenate([[0.0], np.cumsum(np.maximum(drop[order], 0.0))])
    sparsity = np.linspace(1.0, 0.0, points)
    keep = np.rint((1.0 - sparsity) * size).astype(int)
    inside = keep < len(left)
    share = np.clip(left[keep[inside]], 0.0, None) / max(whole, 1e-300)
    return tuple(zip(sparsity[inside].tolist(), share.tolist(), strict=True))


def _dead_last(path: Path, W: FloatArray, dead: BoolArray) -> Path:
    if not dead.any():
        return path
    on_dead = dead[path.order]
    size = np.abs(np.take_along_axis(W, path.order, axis=1))
    # Values below every live one, still ordered by magnitude.
    drop = np.where(on_dead, -1.0 / (1.0 + size), path.drop)
    order = np.lexsort((np.where(on_dead, -drop, 0.0), on_dead), axis=1)
    return Path(
        np.take_along_axis(path.order, order, axis=1), np.take_along_axis(drop, order, axis=1)
    )


def _scales(
    pruned: Sequence[FloatArray],
    masks: Sequence[BoolArray],
    damped: Sequence[DampedHessian],
    options: CompressionOptions,
    spiking: bool,
) -> FloatArray:
    # Potentials of a readout are compared with each other, so they must share one scale.
    groups = options.scale_groups if spiking else 1
    plain = options.method == "magnitude"
    importance = np.concatenate(
        [
            np.broadcast_to(np.ones(W.shape[1]) if plain else np.diagonal(d.H), W.shape)
            for W, d in zip(pruned, damped, strict=True)
        ]
    )
    return choose_scales(
        np.concatenate(pruned), np.concatenate(masks), importance, options.bits, groups
    )


def _quantize(
    W: FloatArray,
    damped: DampedHessian,
    mask: BoolArray,
    scale: FloatArray,
    options: CompressionOptions,
) -> IntArray:
    if options.method == "magnitude":
        return (round_to_grid(W, scale[:, None], options.bits) * mask).astype(np.int8)
    return quantize_rows(W, damped.H, mask, scale, options.bits)


def _relative(
    blocks: Sequence[FloatArray] | FloatArray, changed: Sequence[FloatArray], hessian: FloatArray
) -> float:
    lost = sum(loss(W, V, H).sum() for W, V, H in zip(blocks, changed, hessian, strict=True))
    whole = sum(loss(W, 0.0 * W, H).sum() for W, H in zip(blocks, hessian, strict=True))
    return float(lost / whole) if whole > 0 else 0.0
