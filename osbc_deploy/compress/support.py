"""The best weights on a given support, and the loss of any weights."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.rows import Workspace

__all__ = ["least_squares", "loss", "supports"]


def loss(W: FloatArray, W2: FloatArray, H: FloatArray) -> FloatArray:
    """Return the loss ``(w - w2)^T H (w - w2)`` of every row."""
    d = W - W2
    return np.asarray(np.einsum("ri,ri->r", d @ H, d))


def supports(mask: BoolArray) -> tuple[IntArray, BoolArray]:
    """Return each row's support first, padded with columns outside of it.

    Returns
    -------
    columns : ndarray of int (rows, k)
        With k the largest support.
    inside : ndarray of bool (rows, k)
        Whether a column belongs to the support.
    """
    most = int(mask.sum(axis=1).max(initial=0))
    columns = np.argsort(~mask, axis=1, kind="stable")[:, :most]
    return columns, np.take_along_axis(mask, columns, axis=1)


def support_blocks(H: FloatArray, columns: IntArray, inside: BoolArray) -> FloatArray:
    """Return `H` on each row's support (rows, k, k), the identity on the padding."""
    block = H[columns[:, :, None], columns[:, None, :]]
    both = inside[:, :, None] & inside[:, None, :]
    return np.where(both, block, np.eye(columns.shape[1]))


def least_squares(
    W: FloatArray, H: FloatArray, mask: BoolArray, space: Workspace | None = None
) -> FloatArray:
    """Return the best weights on a given support: ``w_S = (H_SS)^-1 H_S: w`` for every row.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    mask : ndarray of bool (rows, n)
    space : Workspace
    """
    space = space or Workspace()
    if mask.all():
        return np.array(W, np.float64)
    target = np.asarray(W, np.float64) @ H
    result = np.zeros_like(target)
    # Rows of like size share a batch, so little is padded.
    by_size = np.argsort(mask.sum(axis=1), kind="stable")
    most = int(mask.sum(axis=1).max(initial=0))

    def work(part: slice) -> None:
        rows = by_size[part]
        columns, inside = supports(mask[rows])
        right = np.take_along_axis(target[rows], columns, axis=1) * inside
        block = support_blocks(H, columns, inside)
        solved = np.linalg.solve(block, right[..., None])[..., 0]
        result[rows[:, None], columns] = np.where(inside, solved, 0.0)

    space.batches(work, len(W), 40 * most * most + 1)
    return result
