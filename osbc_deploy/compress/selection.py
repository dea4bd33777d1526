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

import numpy as np
from scipy.linalg.blas import dgemm

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.paths import Path
from osbc_deploy.compress.rows import Workspace

__all__ = [
    "eliminate",
    "eliminate_to_pattern",
    "elimination_bytes",
    "elimination_work",
    "forward_work",
    "hybrid_work",
    "select_forward",
    "select_hybrid",
]

_BLOCK = 64
"""Removals that are gathered before the inverse is updated, as one product of matrices."""

_SHRINK = 0.8
"""The inverse is compacted when this share of it is left."""

_SINGLE_WORK = 1e9
"""Multiplications from which forward selection compares candidates in single precision."""


def elimination_work(rows: int, n: int) -> float:
    """Return the multiplications of :func:`eliminate`."""
    return rows * float(n) ** 3 / 3.0


def elimination_bytes(n: int) -> int:
    """Return the working memory of one row in :func:`eliminate`."""
    return 8 * n * (2 * n + _BLOCK)


def forward_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_forward`, in those of elimination.

    Its products of a matrix with a vector wait for memory, where elimination's products of
    matrices do not: each counts twice (measured).
    """
    return rows * float(n) * float(k) ** 2


def hybrid_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_hybrid`, in those of elimination."""
    return forward_work(rows, n, k) + rows * 5.0 / 6.0 * float(k) ** 3


def eliminate(W: FloatArray, H: FloatArray, space: Workspace | None = None) -> Path:
    """Remove all weights of every row one by one, the least harmful first.

    Each step removes the weight with the smallest ``w_p^2 / Hinv_pp`` and gives the others their
    best values (Frantar, Singh, Alistarh 2022, eq. 3 and lemma 1). The inverse is not updated at
    every step: its removed columns are kept as factors from which the diagonal and the next column
    follow, and 64 of them are applied at once (the Woodbury identity). The order is that of
    step-by-step updates.

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
    space = space or Workspace()
    inverse = np.linalg.inv(H)
    parts = space.batches(
        lambda part: _eliminate_rows(
            W[part], np.repeat(inverse[None], part.stop - part.start, axis=0), W.shape[1]
        ),
        *(len(W), elimination_bytes(W.shape[1])),
    )
    return _joined(parts, W.shape)


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
    space = space or Workspace()
    inverse = np.linalg.inv(H)
    steps = int(np.maximum(np.bincount(group) - n_of, 0).sum()) if len(group) else 0
    parts = space.batches(
        lambda part: _eliminate_rows(
            W[part],
            np.repeat(inverse[None], part.stop - part.start, axis=0),
            steps,
            (group, n_of),
        ),
        *(len(W), elimination_bytes(W.shape[1])),
    )
    return _joined(parts, (len(W), steps))


def _joined(parts: list[tuple[IntArray, FloatArray]], shape: tuple[int, int]) -> Path:
    if not parts:
        return Path(np.empty(shape, np.int64), np.empty(shape))
    return Path(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _eliminate_rows(
    W: FloatArray,
    inverse: FloatArray,
    steps: int,
    limit: tuple[IntArray, int] | None = None,
) -> tuple[IntArray, FloatArray]:
    """Return order and rise of `steps` removals, the last one first; `inverse` is used up."""
    rows, n = W.shape
    # A weight of infinite size is never removed: those that are gone, and those that must stay.
    w = np.array(W, np.float64)
    column_of = np.repeat(np.arange(n)[None], rows, axis=0)
    alive = np.ones((rows, n), bool)
    order = np.empty((rows, steps), np.int64)
    rise = np.empty((rows, steps))
    each = np.arange(rows)
    if limit is not None:
        group, n_of = limit
        spare = np.repeat(np.bincount(group)[None] - n_of, rows, axis=0)
        w[spare[:, group] <= 0] = np.inf
    done = 0
    while done < steps:
        width = w.shape[1]
        block = min(_BLOCK, steps - done)
        diagonal = np.ascontiguousarray(np.einsum("rii->ri", inverse))
        diagonal[~alive] = 1.0
        removed = np.empty((rows, block, width))
        for k in range(block):
            score = w * w / diagonal
            p = score.argmin(axis=1)
            column = inverse[each, p]
            if k:
                column -= np.matmul(removed[each, :k, p][:, None], removed[:, :k])[:, 0]
            column /= np.sqrt(diagonal[each, p])[:, None]
            order[:, done + k], rise[:, done + k] = column_of[each, p], score[each, p]
            w -= (w[each, p] / column[each, p])[:, None] * column
            diagonal -= column * column
            removed[:, k] = column
            alive[each, p] = False
            w[each, p], diagonal[each, p] = np.inf, 1.0
            if limit is not None:
                of = group[column_of[each, p]]
                spare[each, of] -= 1
                full = spare[each, of] <= 0
                w[full[:, None] & (group[column_of] == of[:, None])] = np.inf
        done += block
        if done == steps:
            break
        for r in range(rows):
            factor = removed[r].T
            dgemm(-1.0, factor, factor, 1.0, inverse[r].T, trans_b=True, overwrite_c=True)
        if n - done < _SHRINK * width:
            keep = np.nonzero(alive)[1].reshape(rows, n - done)
            inverse = np.stack([inverse[r].take(keep[r], 0).take(keep[r], 1) for r in range(rows)])
            w = np.take_along_axis(w, keep, axis=1)
            column_of = np.take_along_axis(column_of, keep, axis=1)
            alive = np.ones(w.shape, bool)
    return order[:, ::-1], rise[:, ::-1]


def select_forward(W: FloatArray, H: FloatArray, k: int, space: Workspace | None = None) -> Path:
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
    space = space or Workspace()
    n = W.shape[1]
    target = np.asarray(W, np.float64) @ H

    def work(part: slice) -> tuple[IntArray, FloatArray]:
        order = _forward_rows(target[part], H, k, _precision(W.shape, k))
        block = _gathered(H, order)
        start = np.take_along_axis(target[part], order, axis=1)
        # L z = c: each z^2 is the drop of its weight (Chen, Cowan, Grant 1991, eq. 22).
        z = np.linalg.solve(np.linalg.cholesky(block), start[..., None])[..., 0]
        return order, z * z

    return _joined(space.batches(work, len(W), 8 * n * k + 24 * k * k), (len(W), k))


def select_hybrid(W: FloatArray, H: FloatArray, k: int, space: Workspace | None = None) -> Path:
    """Choose `k` weights of every row by forward selection and rank them by elimination.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    space = space or Workspace()
    n = W.shape[1]
    target = np.asarray(W, np.float64) @ H

    def work(part: slice) -> tuple[IntArray, FloatArray]:
        chosen = _forward_rows(target[part], H, k, _precision(W.shape, k))
        inverse = np.linalg.inv(_gathered(H, chosen))
        start = np.take_along_axis(target[part], chosen, axis=1)
        best = np.matmul(inverse, start[..., None])[..., 0]
        order, drop = _eliminate_rows(best, inverse, k)
        return np.take_along_axis(chosen, order, axis=1), drop

    return _joined(space.batches(work, len(W), 8 * n * k + 32 * k * k), (len(W), k))


def _precision(shape: tuple[int, ...], k: int) -> type[np.floating]:
    return np.float32 if forward_work(*shape, k) > _SINGLE_WORK else np.float64  # type: ignore[call-arg]


def _gathered(H: FloatArray, columns: IntArray) -> FloatArray:
    """Return the block (rows, k, k) of `H` of each row's columns."""
    return np.asarray(H[columns[:, :, None], columns[:, None, :]])


def _forward_rows(
    target: FloatArray, H: FloatArray, k: int, precision: type[np.floating]
) -> IntArray:
    rows, n = target.shape
    c = target.astype(precision)
    scale = np.diagonal(H).astype(precision)
    d = np.repeat(scale[None], rows, axis=0)
    # Rounding may leave nothing, or less, of a column that the chosen ones span.
    least = 1e-6 * scale if precision is np.float32 else 1e-12 * scale
    taken = np.zeros((rows, n), bool)
    factor = np.empty((rows, k, n), precision)
    order = np.empty((rows, k), np.int64)
    each = np.arange(rows)
    for step in range(k):
        score = c * c / np.maximum(d, least)
        score[taken] = -1.0
        p = score.argmax(axis=1)
        column = H[p].astype(precision)
        if step:
            done = factor[:, :step]
            column -= np.matmul(factor[each, :step, p][:, None], done)[:, 0]
        root = np.sqrt(np.maximum(d[each, p], least[p]))
        column /= root[:, None]
        c -= (c[each, p] / root)[:, None] * column
        d -= column * column
        factor[:, step] = column
        order[:, step] = p
        taken[each, p] = True
    return order
