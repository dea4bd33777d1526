"""The best weights on a given support, and the loss of any weights."""

from __future__ import annotations

from functools import partial

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.compress.exact import product, quadratic
from osbc_deploy.compress.kernels import factorized, gathered, solve
from osbc_deploy.compress.rows import Workspace

__all__ = ["least_squares", "loss"]


def loss(W: FloatArray, W2: FloatArray, H: FloatArray) -> FloatArray:
    """Return the loss ``(w - w2)^T H (w - w2)`` of every row."""
    return quadratic(W - W2, H)


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
