r"""Which weights to keep: second-order selection, exact losses included. Arrays in, arrays out.

Letters are the papers': `W (rows, n)` weights with one output neuron per row, `H (n, n)` the
positive definite Hessian. The loss of changing a row by `d` is :math:`\frac12 d^T H d`; factors
that are the same for all choices are left out, so losses here are :math:`d^T H d`.

Three ways to the same kind of :class:`Path`, for n weights in a row of which k are looked at:

=============  ==========================  ======================================================
way            multiplications of a row    idea
=============  ==========================  ======================================================
elimination    n^3 / 3                     remove the least harmful weight until none is left
                                           (Hassibi, Stork 1993; Frantar, Singh, Alistarh 2022)
forward        n k^2 / 2                   add the most useful weight until k are there
                                           (orthogonal least squares: Chen, Cowan, Grant 1991)
hybrid         n k^2 / 2 + 5 k^3 / 6       forward to k, then elimination among those
=============  ==========================  ======================================================

Elimination ranks all weights; the others rank the first k, for a fraction of the work where few
are kept. Going back and forth, hybrid ends with smaller losses than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.kernels import (
    BLOCK,
    factorized,
    gathered,
    halfway,
    invert,
    solve,
    subtract,
    take,
)
from osbc_deploy.compress.paths import Path
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.jit import compiled

__all__ = [
    "eliminate",
    "eliminate_to_pattern",
    "elimination_bytes",
    "elimination_work",
    "forward_columns",
    "forward_work",
    "hybrid_work",
    "select_forward",
    "select_hybrid",
]

_SHRINK = 0.8
"""The inverse is compacted when this share of it is left."""

_SINGLE_WORK = 1e9
"""Multiplications from which forward selection compares candidates in single precision."""

_NARROW_WORK = 1e13
"""Multiplications from which forward selection gives up the candidates that are worth least."""

_CANDIDATES = 8
"""So many stay for each weight that is still to be chosen. With six, selections lost up to 1 % more
than those from all, and from 2 % less to 0.6 % more than elimination."""


def elimination_work(rows: int, n: int) -> float:
    """Return the multiplications of :func:`eliminate`."""
    return rows * float(n) ** 3 / 3.0


def elimination_bytes(n: int) -> int:
    """Return the working memory of one row in :func:`eliminate`."""
    return 8 * n * (n + BLOCK + 6)


def forward_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_forward`, in those of elimination.

    Its products of a matrix with a vector wait for memory, where elimination's products of
    matrices do not: each counts twice (measured).
    """
    return rows * float(n) * float(k) ** 2


def forward_columns(rows: int, n: int, k: int) -> float:
    """Return the columns that :func:`select_forward` compares in a step, weighted by their work."""
    if forward_work(rows, n, k) <= _NARROW_WORK:
        return float(n)
    quarter, half = (min(n, _CANDIDATES * (k - k // part)) for part in (4, 2))
    return (n + 3 * quarter + 12 * half) / 16


def hybrid_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_hybrid`, in those of elimination."""
    return forward_work(rows, n, k) + rows * 5.0 / 6.0 * float(k) ** 3


def eliminate(W: FloatArray, H: FloatArray, space: Workspace | None = None) -> Path:
    """Remove all weights of every row one by one, the least harmful first.

    Each step removes the weight with the smallest ``w_p^2 / Hinv_pp`` and gives the others their
    best values (Frantar, Singh, Alistarh 2022, eq. 3 and lemma 1). The inverse is not updated at
    every step: its removed columns are kept as factors from which the diagonal and the next column
    follow, and 64 of them are applied at once (the Woodbury identity). The order is that of
    step-by-step updates; of equal weights the first is removed.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    space : Workspace

    Returns
    -------
    Path
        Covering all n weights.
    """
    n = W.shape[1]
    return _eliminated(W, H, n, np.zeros(n, np.int64), np.array([n + 1]), space)


def eliminate_to_pattern(
    W: FloatArray, H: FloatArray, group: IntArray, n_of: int, space: Workspace | None = None
) -> Path:
    """Eliminate until no group of inputs holds more than `n_of` weights of a row.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
    group : ndarray of int (n,)
        The group each input belongs to, counted from 0.
    n_of : int
        Weights that stay in every group that has as many.
    space : Workspace

    Returns
    -------
    Path
        Covering the weights removed, the last one first.
    """
    spare = np.bincount(group) - n_of if len(group) else np.zeros(1, np.int64)
    return _eliminated(W, H, int(np.maximum(spare, 0).sum()), group, spare, space)


def _eliminated(
    W: FloatArray,
    H: FloatArray,
    steps: int,
    group: IntArray,
    spare: IntArray,
    space: Workspace | None,
) -> Path:
    space = space or Workspace()
    n = W.shape[1]
    start = np.array(W, np.float64)
    inverse = np.empty((n, n))
    invert(factorized(np.array(H, np.float64)), inverse)

    work = partial(_eliminated_rows, start, inverse, group, spare, steps)
    return _joined(space.batches(work, len(W), elimination_bytes(n), elimination_work(len(W), n)))


def _eliminated_rows(
    W: FloatArray, inverse: FloatArray, group: IntArray, spare: IntArray, steps: int, part: slice
) -> Path:
    rows = W[part].copy()
    order, rise = np.empty((len(rows), steps), np.int64), np.empty((len(rows), steps))
    for row, w in enumerate(rows):
        _eliminate(w, inverse.copy(), group, spare.copy(), order[row], rise[row])
    return Path(order, rise)


def _joined(paths: Sequence[Path]) -> Path:
    """Return the paths of all rows from those of parts of them."""
    if len(paths) == 1:
        return paths[0]
    return Path(
        np.concatenate([path.order for path in paths]),
        np.concatenate([path.drop for path in paths]),
    )


@compiled
def _eliminate(w: Any, inverse: Any, group: Any, spare: Any, order: Any, rise: Any) -> None:
    """Write order and rise of the removals, the last one first; `w` and `inverse` are overwritten.

    A group of which no more may go keeps what it has: `spare` says how many may.
    """
    width, steps, done = len(w), len(order), 0
    column_of = np.arange(width)
    free = np.empty(width, np.bool_)
    for i in range(width):
        free[i] = spare[group[i]] > 0
    gone = np.zeros(width, np.bool_)
    keep = np.empty(width, np.int64)
    diagonal = np.empty(width)
    removed = np.empty((BLOCK, width))
    while done < steps:
        block = min(BLOCK, steps - done)
        for i in range(width):
            diagonal[i] = inverse[i, i]
        for k in range(block):
            p, least = -1, np.inf
            for i in range(width):
                if free[i]:
                    score = w[i] * w[i] / diagonal[i]
                    if p < 0 or score < least:
                        p, least = i, score
            column = removed[k]
            for i in range(p):
                column[i] = inverse[i, p]
            column[p:width] = inverse[p, p:width]
            take(removed, k, removed, p, removed, 0, k, 0, width)
            root = np.sqrt(diagonal[p])
            for i in range(width):
                column[i] = column[i] / root
            share = w[p] / column[p]
            for i in range(width):
                w[i] = w[i] - share * column[i]
                diagonal[i] = diagonal[i] - column[i] * column[i]
            place = steps - 1 - done - k
            order[place], rise[place] = column_of[p], least
            free[p], gone[p] = False, True
            of = group[column_of[p]]
            spare[of] -= 1
            if spare[of] == 0:
                for i in range(width):
                    if group[column_of[i]] == of:
                        free[i] = False
        done += block
        if done == steps:
            break
        subtract(inverse, removed, removed, 0, width, 0, block, 0, width, True)
        if len(w) - done < _SHRINK * width:
            left = 0
            for i in range(width):
                if not gone[i]:
                    keep[left] = i
                    left += 1
            # Upwards and to the left only, so nothing is overwritten that is still to be moved.
            for a in range(left):
                i = keep[a]
                w[a], column_of[a], free[a], gone[a] = w[i], column_of[i], free[i], False
                for b in range(a, left):
                    inverse[a, b] = inverse[i, keep[b]]
            width = left


def select_forward(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None = None,
    target: FloatArray | None = None,
) -> Path:
    """Add the `k` most useful weights of every row, one by one (orthogonal least squares).

    With target correlations ``c = H w`` and the support's Cholesky factor, each step adds the
    column with the largest drop of the loss, ``c_p^2 / d_p``, where `c` and `d` are what the
    columns already chosen leave of the correlations and of the diagonal. On large layers
    candidates are compared in single precision; the drops come from a factorization in double.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    return _selected(W, H, k, space, target, hybrid=False)


def select_hybrid(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None = None,
    target: FloatArray | None = None,
) -> Path:
    """Choose `k` weights of every row by forward selection and rank them by elimination.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    return _selected(W, H, k, space, target, hybrid=True)


def _selected(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None,
    target: FloatArray | None,
    *,
    hybrid: bool,
) -> Path:
    space = space or Workspace()
    n = W.shape[1]
    known = product(W, H) if target is None else target
    precision = _precision(W.shape, k)
    # Rounding may leave nothing, or less, of a column that the chosen ones span.
    least = (1e-6 if precision is np.float32 else 1e-12) * np.diagonal(H)

    cost = forward_work(len(W), n, k)
    candidates = _CANDIDATES if cost > _NARROW_WORK else n
    work = partial(_selected_rows, known, H, least.astype(precision), k, candidates, hybrid)
    row_bytes = np.dtype(precision).itemsize * n * k + 40 * k * k
    return _joined(space.batches(work, len(W), row_bytes, cost))


def _selected_rows(
    known: FloatArray,
    H: FloatArray,
    least: FloatArray,
    k: int,
    candidates: int,
    hybrid: bool,
    part: slice,
) -> Path:
    targets = known[part]
    order, drop = np.empty((len(targets), k), np.int64), np.empty((len(targets), k))
    factor, inverse = np.empty((k, len(H)), least.dtype), np.empty((k, k))
    every, spare = np.zeros(k, np.int64), np.array([k + 1])
    for row, target in enumerate(targets):
        _forward(target.astype(least.dtype), H, least, factor, order[row], candidates)
        chosen = order[row].copy()
        start = target[chosen]
        block = factorized(gathered(H, chosen))
        if not hybrid:
            # L z = c: each z^2 is the drop of its weight (Chen, Cowan, Grant 1991, eq. 22).
            halfway(block, start)
            drop[row] = start * start
            continue
        solve(block, start)
        invert(block, inverse)
        _eliminate(start, inverse, every, spare.copy(), order[row], drop[row])
        order[row] = chosen[order[row]]
    return Path(order, drop)


def _precision(shape: tuple[int, ...], k: int) -> type[np.floating]:
    return np.float32 if forward_work(*shape, k) > _SINGLE_WORK else np.float64  # type: ignore[call-arg]


@compiled
def _forward(c: Any, H: Any, least: Any, factor: Any, order: Any, candidates: int) -> None:
    """Write the columns chosen to `order`; all but `H` are overwritten.

    `c` and `least` (n,), `factor` (k, n). When a quarter, and when half of them are chosen, so many
    `candidates` for each that is still to come stay.
    """
    width, k = len(c), len(order)
    column_of = np.arange(width)
    d, worth = np.empty_like(c), np.empty_like(c)
    taken = np.zeros(width, np.bool_)
    for i in range(width):
        d[i] = H[i, i]
    for step in range(k):
        for i in range(width):
            worth[i] = -1.0 if taken[i] else c[i] * c[i] / max(d[i], least[i])
        if step in (k // 4, k // 2) and candidates * (k - step) < _SHRINK * width:
            # Upwards only, so nothing is overwritten that is still to be moved.
            keep = np.sort(np.argsort(-worth[:width], kind="mergesort")[: candidates * (k - step)])
            width = len(keep)
            for a in range(width):
                i = keep[a]
                c[a], d[a], least[a], worth[a] = c[i], d[i], least[i], worth[i]
                column_of[a], taken[a] = column_of[i], taken[i]
            for s in range(step):
                row = factor[s]
                for a in range(width):
                    row[a] = row[keep[a]]
        p = -1
        for i in range(width):
            if not taken[i] and (p < 0 or worth[i] > worth[p]):
                p = i
        column, seen = factor[step], H[column_of[p]]
        for i in range(width):
            column[i] = seen[column_of[i]]
        take(factor, step, factor, p, factor, 0, step, 0, width)
        root = np.sqrt(max(d[p], least[p]))
        for i in range(width):
            column[i] = column[i] / root
        share = c[p] / root
        for i in range(width):
            c[i] = c[i] - share * column[i]
            d[i] = d[i] - column[i] * column[i]
        order[step] = column_of[p]
        taken[p] = True
