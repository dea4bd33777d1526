"""Rank the weights of a layer by removing them one by one, the least harmful first."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.kernels import BLOCK, factorized, invert, subtract, take
from osbc_deploy.compress.paths import Path, joined
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.jit import compiled

__all__ = [
    "SHRINK",
    "eliminate",
    "eliminate_to_pattern",
    "elimination_bytes",
    "elimination_work",
    "removals",
]

SHRINK = 0.8
"""What is worked on is compacted when this share of it is left."""


def elimination_work(rows: int, n: int) -> float:
    """Return the multiplications of :func:`eliminate`."""
    return rows * float(n) ** 3 / 3.0


def elimination_bytes(n: int) -> int:
    """Return the working memory of one row in :func:`eliminate`."""
    return 8 * n * (n + BLOCK + 6)


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
    invert(factorized(np.array(H, np.float64, order="C")), inverse)

    work = partial(_eliminated_rows, start, inverse, group, spare, steps)
    return joined(space.batches(work, len(W), elimination_bytes(n), elimination_work(len(W), n)))


def _eliminated_rows(
    W: FloatArray, inverse: FloatArray, group: IntArray, spare: IntArray, steps: int, part: slice
) -> Path:
    rows = W[part].copy()
    order, rise = np.empty((len(rows), steps), np.int64), np.empty((len(rows), steps))
    for row, w in enumerate(rows):
        removals(w, inverse.copy(), group, spare.copy(), order[row], rise[row])
    return Path(order, rise)


@compiled
def removals(w: Any, inverse: Any, group: Any, spare: Any, order: Any, rise: Any) -> None:
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
        if len(w) - done < SHRINK * width:
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
