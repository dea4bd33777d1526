"""The best weights on a given support, and the loss of any weights."""

from __future__ import annotations

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
    result = np.zeros_like(target)

    def work(part: slice) -> None:
        for row in range(part.start, part.stop):
            columns = np.flatnonzero(mask[row])
            block, best = gathered(H, columns), target[row, columns]
            factorized(block)
            solve(block, best)
            result[row, columns] = best

    most = int(mask.sum(axis=1).max(initial=0))
    space.batches(work, len(W), 8 * most * most + 1)
    return result
