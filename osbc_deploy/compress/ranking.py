"""Rank the weights of a layer, in the way that costs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.damping import DampedHessian
from osbc_deploy.compress.elimination import eliminate, elimination_bytes, elimination_work
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.paths import Path, allocate
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.selection import (
    forward_columns,
    hybrid_work,
    select_forward,
    select_hybrid,
)

__all__ = ["Ranking", "expected_work", "rank_rows", "ranking_work"]

_EXACT_WORK = 3e9
"""Multiplications up to which all weights are ranked whatever is kept (a fraction of a second)."""

_HYBRID_WORK = 1e14
"""Multiplications up to which a forward selection is gone over again (about an hour)."""

_DEPTH = 1.25
"""How many times the layer's average a row may keep before it is looked at more deeply. Half as
much again takes half as long again and loses no less (at 90 and 97 %, 0.2 % more)."""

_SPARE = 32


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which a layer's weights are worth keeping.

    Attributes
    ----------
    selection : str
        "magnitude", "elimination", "hybrid" or "forward".
    paths : tuple of Path
        One for each group.
    """

    selection: str
    paths: tuple[Path, ...]

    @property
    def partial(self) -> bool:
        """Whether some weights were not ranked."""
        return self.selection in ("hybrid", "forward")

    def curve(self, whole: float, size: int, points: int = 41) -> tuple[tuple[float, float], ...]:
        """Return (sparsity, relative loss) along the order in which all rows together are filled.

        Parameters
        ----------
        whole : float
            Loss without any weight.
        size : int
            Number of weights.
        points : int
        """
        value = np.concatenate([path.value.ravel() for path in self.paths])
        drop = np.concatenate([path.drop.ravel() for path in self.paths])
        order = np.argsort(-value, kind="stable")
        left = whole - np.concatenate([[0.0], np.cumsum(np.maximum(drop[order], 0.0))])
        sparsity = np.linspace(1.0, 0.0, points)
        keep = np.rint((1.0 - sparsity) * size).astype(int)
        # Elimination ranks all weights; the others know nothing of weights that they did not rank.
        known = len(order) if self.selection == "elimination" else np.count_nonzero(value)
        inside = keep <= known
        share = np.clip(left[keep[inside]], 0.0, None) / max(whole, 1e-300)
        return tuple(zip(sparsity[inside].tolist(), share.tolist(), strict=True))


def ranking_work(blocks: FloatArray, damped: Sequence[DampedHessian], keep: int) -> float:
    """Return the multiplications it takes to rank a layer for `keep` weights."""
    exact = _exact_work(blocks, damped)
    return exact if exact <= _EXACT_WORK else min(exact, _hybrid_work(blocks, damped, keep))


def expected_work(groups: int, rows: int, n: int, keep: int, *, exact: bool) -> float:
    """Return the multiplications it takes to rank a layer none of whose inputs is dead.

    They are those of updates by many columns at once: what is slower counts more (measured).

    Parameters
    ----------
    groups, rows, n : int
        Of its weights.
    keep : int
    exact : bool
        Whether all weights are ranked, whatever it takes.
    """
    whole = elimination_work(groups * rows, n)
    depth = _depth(keep / (groups * rows), n)
    if exact or whole <= max(_EXACT_WORK, hybrid_work(groups * rows, n, depth)):
        return 1.4 * whole
    return groups * rows * (forward_columns(rows, n, depth) * depth**2 * 0.75 + 2.0 * depth**3)


def rank_rows(
    blocks: FloatArray,
    damped: Sequence[DampedHessian],
    keep: int,
    space: Workspace,
    targets: Sequence[FloatArray] | None = None,
    *,
    given: BoolArray | None = None,
    exact: bool = False,
) -> Ranking:
    """Rank the weights of all groups so that up to `keep` of them can be chosen.

    Parameters
    ----------
    blocks : ndarray (groups, rows, fan_in)
        0 where no weight is given.
    damped : sequence of DampedHessian
        One for each group.
    keep : int
    space : Workspace
    targets : sequence of ndarray (rows, live), optional
        ``W H`` of the live inputs, where it is known.
    given : ndarray of bool (groups, rows, fan_in), optional
        Weights that may be kept; all of them by default. The others come last.
    exact : bool
        Whether all weights are ranked, whatever it takes.

    Returns
    -------
    Ranking
    """
    all_of_it, hybrid = _exact_work(blocks, damped), _hybrid_work(blocks, damped, keep)
    pairs = list(zip(blocks, damped, strict=True))
    if exact or (_fits(damped, space.memory) and all_of_it <= max(_EXACT_WORK, hybrid)):
        paths = [_dead_last(eliminate(W[:, d.live], d.H, space), W, d) for W, d in pairs]
        if given is not None:
            # A weight of 0 costs nothing to remove, so all others were removed as if alone.
            paths = [_given_first(p, may) for p, may in zip(paths, given, strict=True)]
        return Ranking("elimination", tuple(paths))
    selection, select = (
        ("hybrid", select_hybrid) if hybrid <= _HYBRID_WORK else ("forward", select_forward)
    )
    if targets is None:
        targets = [product(W[:, d.live], d.H) for W, d in pairs]
    return Ranking(selection, _deep_enough(pairs, targets, given, keep, select, space))


def _exact_work(blocks: FloatArray, damped: Sequence[DampedHessian]) -> float:
    return sum(elimination_work(blocks.shape[1], len(d.live)) for d in damped)


def _hybrid_work(blocks: FloatArray, damped: Sequence[DampedHessian], keep: int) -> float:
    groups, rows, n = blocks.shape
    depth = _depth(keep / (groups * rows), n)
    return sum(hybrid_work(rows, len(d.live), min(depth, len(d.live))) for d in damped)


def _fits(damped: Sequence[DampedHessian], memory: int) -> bool:
    return max(elimination_bytes(len(d.live)) for d in damped) <= memory


def _depth(average: float, n: int) -> int:
    return min(n, int(_DEPTH * average) + _SPARE)


def _deep_enough(
    pairs: Sequence[tuple[FloatArray, DampedHessian]],
    targets: Sequence[FloatArray],
    given: BoolArray | None,
    keep: int,
    select: Callable[[FloatArray, FloatArray, int, Workspace, FloatArray, BoolArray | None], Path],
    space: Workspace,
) -> tuple[Path, ...]:
    """Rank more weights of those rows that would keep all that were ranked."""
    total = sum(len(W) for W, _ in pairs)
    depths = [np.full(len(W), min(_depth(keep / total, W.shape[1]), len(d.live))) for W, d in pairs]
    todo = [np.arange(len(W)) for W, _ in pairs]
    paths = [Path(np.empty((len(W), 0), np.int64), np.empty((len(W), 0))) for W, _ in pairs]
    while any(len(rows) for rows in todo):
        for g, (W, d) in enumerate(pairs):
            if len(todo[g]):
                depth = int(depths[g][todo[g]].max())
                rows = todo[g]
                may = None if given is None else given[g][rows][:, d.live]
                found = select(W[rows][:, d.live], d.H, depth, space, targets[g][rows], may)
                paths[g] = _merged(paths[g], todo[g], found, d)
        counts = allocate(paths, keep)
        for g, (_, d) in enumerate(pairs):
            short = (counts[g] >= depths[g]) & (depths[g] < len(d.live))
            todo[g] = np.flatnonzero(short)
            depths[g] = np.where(short, np.minimum(2 * depths[g], len(d.live)), depths[g])
    return tuple(paths)


def _merged(path: Path, rows: IntArray, found: Path, d: DampedHessian) -> Path:
    """Replace rows of a path; all rows are filled up with columns that were not ranked."""
    width = max(path.order.shape[1], found.order.shape[1])
    count = len(path.order)
    order = np.empty((count, width), np.int64)
    drop = np.zeros((count, width))
    for old, into in ((path, np.setdiff1d(np.arange(count), rows)), (found, rows)):
        picked = old is found
        columns = d.live[old.order] if picked else old.order[into]
        have = columns.shape[1]
        order[into, :have] = columns
        drop[into, :have] = old.drop if picked else old.drop[into]
        if have < width:
            absent = np.ones((len(into), d.inputs), bool)
            np.put_along_axis(absent, columns, False, axis=1)
            absent[:, np.setdiff1d(np.arange(d.inputs), d.live)] = False
            rest = np.argsort(~absent, axis=1, kind="stable")[:, : width - have]
            order[into, have:] = rest
    return Path(order, drop)


def _dead_last(path: Path, W: FloatArray, d: DampedHessian) -> Path:
    """Return the path among all inputs; the dead ones come last, the larger weights first."""
    order = d.live[path.order]
    if not d.dead:
        return Path(order, path.drop)
    dead = np.setdiff1d(np.arange(d.inputs), d.live)
    size = np.abs(W[:, dead])
    by_size = np.argsort(-size, axis=1, kind="stable")
    worth = -1.0 / (1.0 + np.take_along_axis(size, by_size, axis=1))
    return Path(
        np.concatenate([order, dead[by_size]], axis=1),
        np.concatenate([path.drop, worth], axis=1),
    )


def _given_first(path: Path, given: BoolArray) -> Path:
    """Return the path with the weights that may be kept before all others."""
    late = ~np.take_along_axis(given, path.order, axis=1)
    by = np.argsort(late, axis=1, kind="stable")
    drop = np.where(late, -1.0, path.drop)
    return Path(np.take_along_axis(path.order, by, axis=1), np.take_along_axis(drop, by, axis=1))
