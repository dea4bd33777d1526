"""Compress one projection: statistics once, then any sparsity and bits from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, SpikeArray, frozen
from osbc_deploy.compress.hessian import membrane_hessian, shares_kernel
from osbc_deploy.compress.quantize import choose_scales, quantize_widths, round_to_grid
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
from osbc_deploy.network.graph import Conv, Population, Projection

__all__ = [
    "CompressedProjection",
    "LayerProblem",
    "Pruned",
    "Ranking",
    "affordable",
    "forward_work",
    "prepare_layer",
    "prune_layer",
    "quantize_layer",
    "rank_layer",
]

_ELIMINATION_BUDGET = 2e10
"""Multiplications up to which a layer is pruned by exact elimination (some ten seconds)."""

_FORWARD_MARGIN = 3.0
"""How many times the layer's average a single row may keep in forward selection."""


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
class LayerProblem:
    """A projection's weights with the Hessian of what they see.

    Attributes
    ----------
    projection : Projection
    spiking : bool
        Whether the neurons behind it fire; a readout's potentials must share one scale.
    method : str
        "osbc", "obc" or "magnitude".
    blocks : ndarray (groups, rows, fan_in)
        The weights, one block for each group of a convolution.
    hessian : ndarray (groups, fan_in, fan_in)
    damped : tuple of DampedHessian
    deviations : tuple of Deviation
    """

    projection: Projection
    spiking: bool
    method: str
    blocks: FloatArray
    hessian: FloatArray
    damped: tuple[DampedHessian, ...]
    deviations: tuple[Deviation, ...]

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(self.blocks.size)


def prepare_layer(
    projection: Projection,
    population: Population,
    spikes: SpikeArray,
    method: str,
    damping: float,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> LayerProblem:
    """Collect what the compression of one projection needs.

    Parameters
    ----------
    projection : Projection
    population : Population
        The neurons behind it.
    spikes : ndarray of uint8 (n, T, *pre shape)
    method : str
    damping : float
        Relative to the mean diagonal.
    on_batch : callable
        Told the number of samples after each batch.
    """
    connection = projection.connection
    weight = connection.weight.astype(np.float64)
    groups = connection.groups if isinstance(connection, Conv) else 1
    dynamics = population.neuron.dynamics()
    hessian = membrane_hessian(
        projection, None if method == "obc" else dynamics, spikes, on_batch=on_batch
    )
    damped = tuple(damp(H, damping) for H in hessian)
    deviations = [
        Deviation(
            "compress",
            projection.name,
            f"Hessian not positive definite; damping raised to {entry.damping:g}",
        )
        for entry in damped
        if entry.attempts > 1
    ]
    if not shares_kernel(dynamics):
        text = "neurons differ in their decays; the Hessian uses the mean"
        deviations.append(Deviation("compress", population.name, text))
    blocks = weight.reshape(groups, len(weight) // groups, -1)
    return LayerProblem(
        projection, population.neuron.spiking, method, blocks, hessian, damped, tuple(deviations)
    )


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which a layer's weights are worth keeping.

    Attributes
    ----------
    selection : str
        "magnitude", "elimination" or "forward".
    paths : tuple of Path
        One for each group.
    """

    selection: str
    paths: tuple[Path, ...]


def affordable(problem: LayerProblem) -> bool:
    """Whether a layer is small enough for exact elimination, which ranks all of its weights."""
    return problem.size * int(problem.blocks.shape[2]) ** 2 <= _ELIMINATION_BUDGET


def forward_work(problem: LayerProblem, keep: int) -> float:
    """Return the multiplications of a forward selection from which `keep` weights are chosen."""
    return float(problem.size) * _forward_depth(problem, keep) ** 2


def _forward_depth(problem: LayerProblem, keep: int) -> int:
    """Return how many weights of each row a forward selection looks at."""
    groups, rows, n = problem.blocks.shape
    return int(min(n, int(_FORWARD_MARGIN * keep / (groups * rows)) + 16))


def rank_layer(problem: LayerProblem, keep: int) -> Ranking:
    """Rank the weights so that up to `keep` of them can be chosen."""
    pairs = list(zip(problem.blocks, problem.damped, strict=True))
    if problem.method == "magnitude":
        order = np.argsort(-np.abs(problem.blocks), axis=2, kind="stable")
        square = np.take_along_axis(problem.blocks**2, order, axis=2)
        return Ranking("magnitude", tuple(Path(o, d) for o, d in zip(order, square, strict=True)))
    if affordable(problem):
        selection = "elimination"
        paths = [eliminate(W, d.H) for W, d in pairs]
    else:
        selection = "forward"
        most = _forward_depth(problem, keep)
        paths = [select_forward(W, d.H, most) for W, d in pairs]
    # Weights on dead inputs have no effect: they go first, the small ones before the large.
    return Ranking(
        selection,
        tuple(_dead_last(p, W, d.dead) for p, (W, d) in zip(paths, pairs, strict=True)),
    )


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


@dataclass(frozen=True, eq=False)
class Pruned:
    """A layer after pruning.

    Attributes
    ----------
    selection : str
        "none" where every weight was kept.
    masks : tuple of ndarray of bool (rows, fan_in)
        One for each group.
    weights : tuple of ndarray (rows, fan_in)
    curve : tuple of (float, float)
        See :class:`CompressedProjection`.
    """

    selection: str
    masks: tuple[BoolArray, ...]
    weights: tuple[FloatArray, ...]
    curve: tuple[tuple[float, float], ...]


def prune_layer(problem: LayerProblem, keep: int, ranking: Ranking | None = None) -> Pruned:
    """Keep the `keep` most valuable weights and give them their best values."""
    n = problem.blocks.shape[2]
    if keep >= problem.size:
        everything = tuple(np.ones(W.shape, bool) for W in problem.blocks)
        return Pruned("none", everything, tuple(problem.blocks), ())
    ranking = ranking or rank_layer(problem, keep)
    counts = allocate(ranking.paths, keep)
    masks = tuple(path_mask(p, c, n) for p, c in zip(ranking.paths, counts, strict=True))
    if problem.method == "magnitude":
        kept = tuple(W * mask for W, mask in zip(problem.blocks, masks, strict=True))
        return Pruned(ranking.selection, masks, kept, ())
    solved = tuple(
        least_squares(W, d.H, mask)
        for W, d, mask in zip(problem.blocks, problem.damped, masks, strict=True)
    )
    return Pruned(ranking.selection, masks, solved, _curve(problem, ranking))


def _curve(
    problem: LayerProblem, ranking: Ranking, points: int = 41
) -> tuple[tuple[float, float], ...]:
    """Return (sparsity, relative loss) along the order in which all rows together are filled."""
    paths, size = ranking.paths, problem.size
    whole = float(
        sum(
            loss(W, 0.0 * W, d.H).sum() for W, d in zip(problem.blocks, problem.damped, strict=True)
        )
    )
    value = np.concatenate([path.value.ravel() for path in paths])
    drop = np.concatenate([path.drop.ravel() for path in paths])
    order = np.argsort(-value, kind="stable")
    left = whole - np.concatenate([[0.0], np.cumsum(np.maximum(drop[order], 0.0))])
    sparsity = np.linspace(1.0, 0.0, points)
    keep = np.rint((1.0 - sparsity) * size).astype(int)
    inside = keep < len(left)
    share = np.clip(left[keep[inside]], 0.0, None) / max(whole, 1e-300)
    return tuple(zip(sparsity[inside].tolist(), share.tolist(), strict=True))


def quantize_layer(
    problem: LayerProblem, pruned: Pruned, widths: Sequence[int], scale_groups: int
) -> list[CompressedProjection]:
    """Quantize a pruned layer on the grids the chip stores, one for each width."""
    magnitude = problem.method == "magnitude"
    importance = np.concatenate(
        [
            np.broadcast_to(np.ones(W.shape[1]) if magnitude else np.diagonal(d.H), W.shape)
            for W, d in zip(pruned.weights, problem.damped, strict=True)
        ]
    )
    weights, masks = np.concatenate(pruned.weights), np.concatenate(pruned.masks)
    # Potentials of a readout are compared with each other, so they must share one scale.
    groups = scale_groups if problem.spiking else 1
    # (widths, groups of the convolution, rows)
    scales = np.stack(
        [choose_scales(weights, masks, importance, bits, groups) for bits in widths]
    ).reshape(len(widths), len(problem.blocks), -1)
    blocks = [
        np.stack([round_to_grid(W, s[:, None], b) * mask for s, b in zip(t, widths, strict=True)])
        if magnitude
        else quantize_widths(W, d.H, mask, list(t), widths)
        for W, d, mask, t in zip(
            pruned.weights, problem.damped, pruned.masks, scales.swapaxes(0, 1), strict=True
        )
    ]
    lost = _relative(problem, pruned.weights)
    return [
        CompressedProjection(
            name=problem.projection.name,
            codes=np.concatenate([block[k] for block in blocks]).reshape(
                problem.projection.connection.weight.shape
            ),
            scale=scales[k].reshape(-1),
            bits=bits,
            kept=int(sum(mask.sum() for mask in pruned.masks)),
            relative_loss={
                "pruned": lost,
                "total": _relative(
                    problem,
                    [b[k] * s[:, None] for b, s in zip(blocks, scales[k], strict=True)],
                ),
            },
            selection=pruned.selection,
            dead_inputs=sum(int(d.dead.sum()) for d in problem.damped),
            curve=pruned.curve,
        )
        for k, bits in enumerate(widths)
    ]


def _relative(problem: LayerProblem, changed: Sequence[FloatArray]) -> float:
    pairs = list(zip(problem.blocks, problem.hessian, strict=True))
    lost = sum(loss(W, V, H).sum() for (W, H), V in zip(pairs, changed, strict=True))
    whole = sum(loss(W, 0.0 * W, H).sum() for W, H in pairs)
    return float(lost / whole) if whole > 0 else 0.0
