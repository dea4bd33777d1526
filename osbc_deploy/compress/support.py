"""The best weights on a given support, and the loss of any weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.compress.exact import product, quadratic
from osbc_deploy.compress.kernels import factorized, gathered, solve
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.jit import compiled

__all__ = ["SPARSE", "least_squares", "loss"]


SPARSE = 0.25
"""Share of weights that are left up to which pairs of them are fewer than a product's terms."""

_CLOSE = 1e-4
"""Of the loss of all weights: what is less is too small a difference of large numbers."""


def loss(
    W: FloatArray, W2: FloatArray, H: FloatArray, target: FloatArray | None = None
) -> FloatArray:
    """Return the loss ``(w - w2)^T H (w - w2)`` of every row.

    Where few weights are left it is ``w^T H w - 2 w^T H w2 + w2^T H w2``, whose last term takes
    their pairs alone.

    Parameters
    ----------
    W, W2 : ndarray (rows, n)
    H : ndarray (n, n)
        Symmetric.
    target : ndarray (rows, n), optional
        ``W H``, where it is known.
    """
    if target is None or np.count_nonzero(W2) > SPARSE * W2.size:
        return quadratic(W - W2, H)
    whole = (target * W).sum(axis=1)
    found = whole - 2.0 * (target * W2).sum(axis=1)
    pairs = np.empty(len(W2))
    _pairs(np.ascontiguousarray(W2, np.float64), H, pairs)
    found += pairs
    close = found <= _CLOSE * whole
    if close.any():
        found[close] = quadratic((W - W2)[close], H)
    return np.asarray(found)


@compiled
def _pairs(V: Any, H: Any, out: Any) -> None:
    """Write ``v^T H v`` of every row of `V`, in which most numbers are 0."""
    for r in range(len(V)):
        v, total = V[r], 0.0
        columns = np.flatnonzero(v)
        for a in range(len(columns)):
            row, inner = H[columns[a]], 0.0
            for b in range(a):
                inner += row[columns[b]] * v[columns[b]]
            own = v[columns[a]]
            total += own * (2.0 * inner + row[columns[a]] * own)
        out[r] = total


def least_squares(
    W: FloatArray,
    H: FloatArray,
    mask: BoolArray,
    space: Workspace | None = None,
    target: FloatArray | None = None,
) -> FloatArray:
    """Return the best weights on a given support: ``w_S = (H_SS)^-1 H_S: w`` for every row.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    mask : ndarray of bool (rows, n)
    space : Workspace
    target : ndarray (rows, n), optional
        ``W H``, where it is known.
    """
    space = space or Workspace()
    if mask.all():
        return np.array(W, np.float64)
    target = product(W, H) if target is None else target
    counts = mask.sum(axis=1)
    most = int(counts.max(initial=0))
    cost = float((counts.astype(np.float64) ** 3).sum()) / 6
    work = partial(_solved, target, H, mask)
    return np.concatenate(space.batches(work, len(W), 8 * most * most + 1, cost))


def _solved(target: FloatArray, H: FloatArray, mask: BoolArray, part: slice) -> FloatArray:
    """Return the best weights of some rows."""
    found = np.zeros_like(target[part])
    for row, support in enumerate(mask[part]):
        columns = np.flatnonzero(support)
        block, best = gathered(H, columns, upper=True), target[part.start + row, columns]
        factorized(block)
        solve(block, best)
        found[row, columns] = best
    return found
