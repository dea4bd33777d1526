"""Compress the weights into one population: rank once, then any sparsity and bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.damping import DampedHessian, firmer
from osbc_deploy.compress.paper import quantize_as_published
from osbc_deploy.compress.paths import Path, allocate, path_mask
from osbc_deploy.compress.patterns import Pattern, input_order, n_of_m_mask, output_order
from osbc_deploy.compress.problem import LayerProblem, settled_bias
from osbc_deploy.compress.quantize import (
    choose_scales,
    quantize_rows,
    round_to_grid,
    search_scales,
    windows,
)
from osbc_deploy.compress.ranking import Ranking, rank_rows
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import least_squares
from osbc_deploy.model.graph import Projection

__all__ = [
    "Pruned",
    "Solver",
    "nearest",
    "prune_by_magnitude",
    "prune_layer",
    "quantize_layer",
    "rank_layer",
    "split",
]


def rank_layer(problem: LayerProblem, keep: int, space: Workspace | None = None) -> Ranking:
    """Rank the weights so that up to `keep` of them can be chosen."""
    if problem.method == "magnitude":
        return rank_by_magnitude(problem.blocks)
    space = space or Workspace()
    return rank_rows(
        problem.blocks,
        problem.damped,
        keep,
        space,
        problem.targets,
        given=None if problem.given.all() else problem.given,
        exact=problem.method == "paper",
    )


def rank_by_magnitude(blocks: FloatArray) -> Ranking:
    """Rank weights (groups, rows, fan_in) by their size."""
    order = np.argsort(-np.abs(blocks), axis=2, kind="stable")
    square = np.take_along_axis(blocks**2, order, axis=2)
    return Ranking("magnitude", tuple(Path(o, d) for o, d in zip(order, square, strict=True)))


@dataclass(frozen=True, eq=False)
class Pruned:
    """A layer after pruning.

    Attributes
    ----------
    selection : str
        "none" where every weight there was is kept.
    masks : tuple of ndarray of bool (rows, fan_in)
        One for each group.
    weights : tuple of ndarray (rows, fan_in)
    curve : tuple of (float, float)
        See :class:`.CompressedProjection`.
    """

    selection: str
    masks: tuple[BoolArray, ...]
    weights: tuple[FloatArray, ...]
    curve: tuple[tuple[float, float], ...]


def prune_layer(
    problem: LayerProblem,
    keep: int,
    ranking: Ranking | None = None,
    *,
    pattern: Pattern | None = None,
    space: Workspace | None = None,
) -> Pruned:
    """Keep the `keep` most valuable weights and give them their best values.

    Weights that are 0 in the model stay so, and count as removed.

    Parameters
    ----------
    problem : LayerProblem
    keep : int
        A pattern of whole inputs or outputs keeps the number of them that comes closest; N:M
        keeps what it says.
    ranking : Ranking, optional
        If the layer was ranked before, for at least as many.
    pattern : Pattern
    space : Workspace
    """
    n = problem.blocks.shape[2]
    pattern = pattern or Pattern()
    curve: tuple[tuple[float, float], ...] = ()
    if problem.method == "magnitude":
        return prune_by_magnitude(problem.blocks, keep, ranking)
    given = problem.given
    whole = np.count_nonzero(given) if pattern.kind == "weights" else problem.size
    if keep >= whole and pattern.kind != "n:m":
        return _whole(problem.blocks, given)
    if pattern.kind == "weights":
        ranking = ranking or rank_layer(problem, keep, space)
        selection = ranking.selection
        masks = _largest(ranking, keep, n)
        curve = ranking.curve(problem.whole, problem.size)
    else:
        selection = str(pattern)
        masks = _patterned(problem, keep, pattern, space)
    masks = tuple(mask & there for mask, there in zip(masks, given, strict=True))
    solved = []
    for W, d, target, mask in zip(
        problem.blocks, problem.damped, problem.targets, masks, strict=True
    ):
        best = W * mask
        best[:, d.live] = least_squares(W[:, d.live], d.H, mask[:, d.live], space, target)
        solved.append(best)
    return Pruned(selection, masks, tuple(solved), curve)


def prune_by_magnitude(blocks: FloatArray, keep: int, ranking: Ranking | None = None) -> Pruned:
    """Keep the `keep` largest of the weights (groups, rows, fan_in), as they are."""
    given = blocks != 0
    if keep >= np.count_nonzero(given):
        return _whole(blocks, given)
    masks = _largest(ranking or rank_by_magnitude(blocks), keep, blocks.shape[2])
    kept = tuple(W * mask for W, mask in zip(blocks, masks, strict=True))
    return Pruned("magnitude", masks, kept, ())


def _whole(blocks: FloatArray, given: BoolArray) -> Pruned:
    return Pruned("none", tuple(given), tuple(blocks), ())


def _largest(ranking: Ranking, keep: int, fan_in: int) -> tuple[BoolArray, ...]:
    counts = allocate(ranking.paths, keep)
    return tuple(path_mask(p, c, fan_in) for p, c in zip(ranking.paths, counts, strict=True))


def _patterned(
    problem: LayerProblem, keep: int, pattern: Pattern, space: Workspace | None
) -> tuple[BoolArray, ...]:
    pairs = list(zip(problem.blocks, problem.damped, strict=True))
    if pattern.kind == "n:m":
        fan_ins = [p.connection.fan_in for p in problem.afferents]
        return tuple(n_of_m_mask(W, d.H, d.live, pattern, fan_ins, space) for W, d in pairs)
    rows, n = problem.blocks.shape[1:]
    by_input = pattern.kind == "inputs"
    unit = _channel_columns(problem) if by_input else 1
    found = [
        input_order(W, d.whole(), unit) if by_input else output_order(W, d.whole())
        for W, d in pairs
    ]
    # A unit also pays for what it opens the way to, as in Path.value.
    worth = np.stack([np.maximum.accumulate(drop[::-1])[::-1] for _, drop in found])
    size = rows * unit if by_input else n
    count = max(1, round(keep / size))
    chosen = np.zeros(worth.size, bool)
    chosen[np.argsort(-worth.ravel(), kind="stable")[:count]] = True
    masks = np.zeros(problem.blocks.shape, bool)
    for g, (order, _) in enumerate(found):
        stay = order[chosen.reshape(worth.shape)[g]]
        if by_input:
            masks[g].reshape(rows, -1, unit)[:, stay] = True
        else:
            masks[g, stay] = True
    return tuple(masks)


def _channel_columns(problem: LayerProblem) -> int:
    """Return the columns that belong to one input neuron or channel."""
    found = {int(np.prod(p.connection.weight.shape[2:])) for p in problem.afferents}
    return found.pop() if len(found) == 1 else 1


def quantize_layer(
    problem: LayerProblem,
    pruned: Pruned,
    widths: Sequence[int],
    scale_groups: int,
    space: Workspace | None = None,
) -> list[tuple[CompressedProjection, ...]]:
    """Quantize a pruned layer on the grids the chip stores.

    Returns
    -------
    list of tuple of CompressedProjection
        One tuple for each width, with a projection for each afferent.
    """
    # Potentials of a readout are compared with each other, so they must share one scale.
    groups = scale_groups if problem.spiking else 1
    results = []
    for bits in widths:
        if problem.method == "magnitude":
            scale, codes = nearest(pruned, bits, groups)
        elif problem.method == "paper":
            scale, codes = quantize_as_published(
                problem.original, pruned.weights, pruned.masks, problem.damped, bits, groups
            )
        else:
            scale, codes = _quantized(problem, pruned, bits, groups, space)
        plain = split(problem.afferents, pruned, bits, scale, codes)
        results.append(_measured(problem, pruned, plain, codes * scale[:, :, None]))
    return results


@dataclass(frozen=True)
class Solver:
    """Prunes and quantizes the problems of one layer.

    Attributes
    ----------
    keep : int or None
        Weights that stay; None for all.
    bits : int
    scale_groups : int
        Different scales allowed.
    pattern : Pattern
    space : Workspace
    """

    keep: int | None
    bits: int
    scale_groups: int
    pattern: Pattern
    space: Workspace

    def __call__(self, problem: LayerProblem) -> tuple[CompressedProjection, ...]:
        """Return the compressed layer."""
        return self.coded(problem, self.pruned(problem))

    def pruned(self, problem: LayerProblem) -> Pruned:
        """Return the weights that stay, at their best values."""
        keep = problem.size if self.keep is None else self.keep
        return prune_layer(problem, keep, pattern=self.pattern, space=self.space)

    def coded(self, problem: LayerProblem, pruned: Pruned) -> tuple[CompressedProjection, ...]:
        """Return a pruned layer's codes."""
        return quantize_layer(problem, pruned, [self.bits], self.scale_groups, self.space)[0]


def nearest(pruned: Pruned, bits: int, groups: int) -> tuple[FloatArray, IntArray]:
    """Round to nearest, all weights alike: scales (groups, rows), codes (groups, rows, fan_in).

    Parameters
    ----------
    pruned : Pruned
    bits : int
    groups : int
        Different scales allowed.
    """
    shape = (len(pruned.weights), *pruned.weights[0].shape)
    weights, masks = np.concatenate(pruned.weights), np.concatenate(pruned.masks)
    scale = choose_scales(*search_scales(weights, masks, np.ones(shape[2]), bits), groups)
    codes = (round_to_grid(weights, scale[:, None], bits) * masks).astype(np.int8)
    return scale.reshape(shape[:2]), codes.reshape(shape)


def _quantized(
    problem: LayerProblem, pruned: Pruned, bits: int, groups: int, space: Workspace | None
) -> tuple[FloatArray, IntArray]:
    """Return scales (groups, rows) and codes (groups, rows, fan_in)."""
    shape, full = problem.blocks.shape, problem.full
    weights, masks = np.concatenate(pruned.weights), np.concatenate(pruned.masks)
    damped = [firmer(d, problem.hold) for d in problem.damped]
    importance = np.concatenate(
        [
            np.broadcast_to(_importance(d), W.shape)
            for W, d in zip(pruned.weights, damped, strict=True)
        ]
    )
    candidates, errors = search_scales(weights, masks, importance, bits, full=full)
    lives = list(zip(pruned.weights, pruned.masks, damped, strict=True))
    near = windows(errors)
    tried = candidates[near].reshape(*shape[:2], -1)
    walks = [
        quantize_rows(
            W[:, d.live],
            d.H,
            mask[:, d.live],
            scales.T,
            [bits] * scales.shape[1],
            space,
            polish=False,
            full=full,
        )
        for (W, mask, d), scales in zip(lives, tried, strict=True)
    ]
    losses = np.concatenate([lost.T for _, lost in walks])
    # What was not tried gains from feedback as what was: rows may have to share a scale.
    rounded = np.take_along_axis(errors, near, axis=1).sum(axis=1, keepdims=True)
    errors = errors * losses.sum(axis=1, keepdims=True) / np.where(rounded > 0, rounded, 1.0)
    np.put_along_axis(errors, near, losses, axis=1)
    scale = choose_scales(candidates, errors, groups).reshape(shape[:2])
    codes = np.zeros(shape, np.int8)
    for g, (W, mask, d) in enumerate(lives):
        # Weights on dead inputs change no potential: the nearest code is all there is to say.
        codes[g] = round_to_grid(W, scale[g, :, None], bits, full=full) * mask
        same = tried[g] == scale[g, :, None]
        walked = walks[g][0][same.argmax(axis=1), np.arange(len(W))][None], same.any(axis=1)
        found, _ = quantize_rows(
            W[:, d.live], d.H, mask[:, d.live], [scale[g]], [bits], space, full=full, walked=walked
        )
        codes[g][:, d.live] = found[0]
    return scale, codes


def _importance(d: DampedHessian) -> FloatArray:
    importance = np.zeros(d.inputs)
    importance[d.live] = np.diagonal(d.H)
    return importance


def split(
    afferents: Sequence[Projection],
    pruned: Pruned,
    bits: int,
    scale: FloatArray,
    codes: IntArray,
) -> tuple[CompressedProjection, ...]:
    """Return a layer's codes (groups, rows, fan_in) by projection, nothing of them measured."""
    unquantized = np.stack(pruned.weights)
    found, start = [], 0
    for projection in afferents:
        connection = projection.connection
        part = slice(start, start + connection.fan_in)
        start = part.stop
        found.append(
            CompressedProjection(
                name=projection.name,
                codes=codes[:, :, part].reshape(connection.weight.shape),
                scale=scale.reshape(-1),
                bits=bits,
                kept=int(sum(mask[:, part].sum() for mask in pruned.masks)),
                relative_loss={},
                selection=pruned.selection,
                dead_inputs=0,
                curve=pruned.curve,
                pruned=unquantized[:, :, part]
                .reshape(connection.weight.shape)
                .astype(connection.weight.dtype),
            )
        )
    return tuple(found)


def _measured(
    problem: LayerProblem,
    pruned: Pruned,
    layer: Sequence[CompressedProjection],
    weights: FloatArray,
) -> tuple[CompressedProjection, ...]:
    """Add what the Hessian says of a layer whose weights (groups, rows, fan_in) are these now."""
    losses = {
        "pruned": problem.lost(pruned.weights),
        "total": problem.lost(weights),
    }
    bias = settled_bias(problem, weights)
    found, start = [], 0
    for number, (projection, done) in enumerate(zip(problem.afferents, layer, strict=True)):
        stop = start + projection.connection.fan_in
        live = (np.count_nonzero((d.live >= start) & (d.live < stop)) for d in problem.damped)
        found.append(
            replace(
                done,
                relative_loss=losses,
                dead_inputs=len(problem.damped) * (stop - start) - int(sum(live)),
                damping=max(d.damping for d in problem.damped),
                bias=bias if number == 0 else None,
            )
        )
        start = stop
    return tuple(found)
