r"""The second-order solver: arrays in, arrays out.

Letters are the papers': `W (rows, n)` weights with one output neuron per row, `H (n, n)` the
Hessian, `Hinv` its inverse. The loss of changing a row by `d` is :math:`\frac12 d^T H d`; factors
that are the same for all choices are left out, so losses here are :math:`d^T H d`.

Sources: Hassibi, Stork 1993 (optimal brain surgeon); Frantar, Singh, Alistarh 2022 (row-wise
exact elimination, quantization with error feedback); Chen, Cowan, Grant 1991 (orthogonal least
squares); Shi, Li, Ward-Cherrier 2025 (all of it on the membrane Hessian).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray

__all__ = [
    "DampedHessian",
    "Path",
    "allocate",
    "damp",
    "eliminate",
    "least_squares",
    "loss",
    "path_mask",
    "select_forward",
]

WORKSPACE = 256 * 1024**2
"""Bytes of working memory that a batch of rows may take."""


@dataclass(frozen=True, eq=False)
class DampedHessian:
    """A Hessian made positive definite.

    Attributes
    ----------
    H : ndarray (n, n)
        With damping added to its diagonal; 1 on the diagonal of dead inputs.
    dead : ndarray of bool (n,)
        Inputs that never were active: their weights have no effect on the loss.
    damping : float
        What was added, relative to the mean of the live diagonal.
    attempts : int
        1 if the first damping sufficed.
    """

    H: FloatArray
    dead: BoolArray
    damping: float
    attempts: int


def damp(H: FloatArray, fraction: float = 0.01) -> DampedHessian:
    """Take dead inputs out of `H` and damp the rest until its Cholesky factor exists.

    Parameters
    ----------
    H : ndarray (n, n)
    fraction : float
        Damping relative to the mean diagonal of the live inputs; multiplied by 10 on failure.
    """
    diagonal = np.diagonal(H)
    dead = diagonal <= 0.0
    mean = float(diagonal[~dead].mean()) if not dead.all() else 1.0
    attempts = 1
    while True:
        damped = H + np.diag(np.where(dead, 1.0, fraction * mean))
        try:
            cho_factor(damped, lower=True)
        except LinAlgError:
            fraction *= 10.0
            attempts += 1
            continue
        return DampedHessian(damped, dead, fraction, attempts)


def loss(W: FloatArray, W2: FloatArray, H: FloatArray) -> FloatArray:
    """Return the loss ``(w - w2)^T H (w - w2)`` of every row."""
    d = W - W2
    return np.asarray(np.einsum("ri,ri->r", d @ H, d))


@dataclass(frozen=True, eq=False)
class Path:
    """The order in which the weights of every row are worth keeping.

    Attributes
    ----------
    order : ndarray of int (rows, k)
        Columns, most valuable first.
    drop : ndarray (rows, k)
        By how much the loss falls when the weight joins those before it.
    """

    order: IntArray
    drop: FloatArray

    @property
    def value(self) -> FloatArray:
        """What keeping each weight is worth: at least as much as any weight that comes later.

        A row keeps a prefix of its order, so a weight also pays for what it opens the way to.
        """
        return np.maximum.accumulate(self.drop[:, ::-1], axis=1)[:, ::-1]


def eliminate(W: FloatArray, H: FloatArray) -> Path:
    """Remove all weights of every row one by one, the least harmful first.

    Each step removes the weight with the smallest ``w_p^2 / Hinv_pp``, gives the others their
    best values and updates the inverse (Frantar, Singh, Alistarh 2022, eq. 3 and lemma 1).

    Returns
    -------
    Path
        Covering all n weights.
    """
    rows, n = W.shape
    Hinv = np.linalg.inv(H)
    order = np.empty((rows, n), np.int64)
    rise = np.empty((rows, n))
    batch = max(1, WORKSPACE // (2 * 8 * n * n))
    for start in range(0, rows, batch):
        part = slice(start, min(start + batch, rows))
        order[part], rise[part] = _eliminate_batch(W[part], Hinv)
    return Path(order[:, ::-1].copy(), rise[:, ::-1].copy())


def _eliminate_batch(W: FloatArray, Hinv: FloatArray) -> tuple[IntArray, FloatArray]:
    rows, n = W.shape
    w = W.astype(np.float64)
    inverse = np.repeat(Hinv[None], rows, axis=0)
    order = np.empty((rows, n), np.int64)
    rise = np.empty((rows, n))
    alive = np.ones((rows, n), bool)
    each = np.arange(rows)
    for step in range(n):
        diagonal = np.einsum("rii->ri", inverse)
        score = np.where(alive, w * w / np.where(alive, diagonal, 1.0), np.inf)
        p = score.argmin(axis=1)
        column = inverse[each, p] / np.sqrt(diagonal[each, p])[:, None]
        w -= (w[each, p] / column[each, p])[:, None] * column
        inverse -= column[:, :, None] * column[:, None, :]
        order[:, step], rise[:, step] = p, score[each, p]
        alive[each, p] = False
        w[each, p] = 0.0
    return order, rise


def select_forward(W: FloatArray, H: FloatArray, k: int) -> Path:
    """Add the `k` most useful weights of every row, one by one (orthogonal least squares).

    With target correlations ``c = H w`` and the support's Cholesky factor, each step adds the
    column with the largest drop of the loss, ``c_p^2 / d_p``, where `c` and `d` are what the
    columns already chosen leave of the correlations and of the diagonal.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    rows, n = W.shape
    order = np.empty((rows, k), np.int64)
    drop = np.empty((rows, k))
    batch = max(1, WORKSPACE // (8 * n * (k + 4)))
    for start in range(0, rows, batch):
        part = slice(start, min(start + batch, rows))
        order[part], drop[part] = _forward_batch(W[part], H, k)
    return Path(order, drop)


def _forward_batch(W: FloatArray, H: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    rows, n = W.shape
    c = W.astype(np.float64) @ H
    d = np.repeat(np.diagonal(H)[None].astype(np.float64), rows, axis=0)
    tiny = 1e-12 * np.diagonal(H)
    factor = np.empty((rows, k, n))
    order = np.empty((rows, k), np.int64)
    drop = np.empty((rows, k))
    each = np.arange(rows)
    for step in range(k):
        score = np.where(d > tiny, c * c / np.maximum(d, tiny), -1.0)
        p = score.argmax(axis=1)
        done = factor[:, :step]
        column = H[p] - np.einsum("rsn,rs->rn", done, done[each, :, p])
        column /= np.sqrt(d[each, p])[:, None]
        c -= (c[each, p] / np.sqrt(d[each, p]))[:, None] * column
        d -= column * column
        d[each, p] = 0.0
        factor[:, step] = column
        order[:, step], drop[:, step] = p, np.maximum(score[each, p], 0.0)
    return order, drop


def allocate(paths: Sequence[Path], keep: int) -> list[IntArray]:
    """Share `keep` weights among all rows of all paths so that the loss avoided is largest.

    Returns
    -------
    list of ndarray of int (rows,)
        Weights kept in every row, one array for each path.
    """
    values = np.concatenate([path.value.ravel() for path in paths])
    keep = min(keep, len(values))
    chosen = np.zeros(len(values), bool)
    # A stable sort keeps the order along a row on ties, so every row keeps a prefix of its path.
    chosen[np.argsort(-values, kind="stable")[:keep]] = True
    counts, offset = [], 0
    for path in paths:
        size = path.value.size
        counts.append(chosen[offset : offset + size].reshape(path.value.shape).sum(axis=1))
        offset += size
    return counts


def path_mask(path: Path, kept: IntArray, n: int) -> BoolArray:
    """Return the mask (rows, n) that keeps the first ``kept[r]`` weights of each row's path."""
    mask = np.zeros((len(path.order), n), bool)
    within = np.arange(path.order.shape[1])[None] < kept[:, None]
    np.put_along_axis(mask, path.order, within, axis=1)
    return mask


def least_squares(W: FloatArray, H: FloatArray, mask: BoolArray) -> FloatArray:
    """Return the best weights on a given support: ``w_S = (H_SS)^-1 H_S: w`` for every row."""
    target = W.astype(np.float64) @ H
    result = np.zeros_like(target)
    if mask.all():
        return W.astype(np.float64)
    for row, support in enumerate(mask):
        index = np.flatnonzero(support)
        if len(index):
            factor = cho_factor(H[np.ix_(index, index)], lower=True)
            result[row, index] = cho_solve(factor, target[row, index])
    return result
