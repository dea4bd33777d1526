"""The order in which the weights of a layer are worth keeping, and what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray

__all__ = ["Path", "allocate", "joined", "path_mask"]


@dataclass(frozen=True, eq=False)
class Path:
    """The order in which the weights of every row are worth keeping.

    Any number of weights kept is a prefix of the order, so one path holds the solution for every
    sparsity.

    Attributes
    ----------
    order : ndarray of int (rows, k)
        Columns, most valuable first.
    drop : ndarray of float64 (rows, k)
        By how much the loss falls when the weight joins those before it, all at their best values:
        a row's loss without any weight less the sum of its first j drops is its loss with j kept.
        0 for weights that were not looked at; below 0 for those on dead inputs, which change
        nothing, the larger first.
    """

    order: IntArray
    drop: FloatArray

    @property
    def value(self) -> FloatArray:
        """What keeping each weight is worth: at least as much as any weight that comes later.

        A row keeps a prefix of its order, so a weight also pays for what it opens the way to.
        """
        return np.maximum.accumulate(self.drop[:, ::-1], axis=1)[:, ::-1]


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
        size = path.order.size
        counts.append(chosen[offset : offset + size].reshape(path.order.shape).sum(axis=1))
        offset += size
    return counts


def path_mask(path: Path, kept: IntArray, n: int) -> BoolArray:
    """Return the mask (rows, n) that keeps the first ``kept[r]`` weights of each row's path."""
    mask = np.zeros((len(path.order), n), bool)
    within = np.arange(path.order.shape[1])[None] < kept[:, None]
    np.put_along_axis(mask, path.order, within, axis=1)
    return mask


def joined(paths: Sequence[Path]) -> Path:
    """Return the paths of all rows from those of parts of them."""
    if len(paths) == 1:
        return paths[0]
    return Path(
        np.concatenate([path.order for path in paths]),
        np.concatenate([path.drop for path in paths]),
    )
