"""Linear algebra of the solver with its operations in one order, compiled.

Libraries for it choose their order by the processor, and with that the last bits; a decision among
thousands of weights then falls one way here and another way there, and all that follow it. These
loops add terms one after the other. They are written so that the innermost one runs along a row
and its operations do not depend on each other, which is what processors do several of at a time
without a change of the result.

Symmetric matrices are read from and left in their upper triangles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.jit import compiled

__all__ = [
    "BLOCK",
    "factorize",
    "factorized",
    "gathered",
    "halfway",
    "halfway_many",
    "invert",
    "solve",
    "solve_many",
    "subtract",
    "take",
]

BLOCK = 64
"""Rows of a panel, or removals that are gathered before a matrix is updated by all of them."""

_TILE = 256
"""Columns worked on at once: a panel of them stays in the second cache."""


@compiled
def take(C: Any, row: int, A: Any, column: int, B: Any, k0: int, k1: int, j0: int, j1: int) -> None:
    """Take ``A[k, column] * B[k, j0:j1]`` from ``C[row, j0:j1]``, for k from k0 to k1 in turn."""
    c = C[row, j0:j1]
    k = k0
    while k + 4 <= k1:
        a0, a1, a2, a3 = A[k, column], A[k + 1, column], A[k + 2, column], A[k + 3, column]
        b0, b1, b2, b3 = B[k, j0:j1], B[k + 1, j0:j1], B[k + 2, j0:j1], B[k + 3, j0:j1]
        for j in range(len(c)):
            c[j] = c[j] - a0 * b0[j] - a1 * b1[j] - a2 * b2[j] - a3 * b3[j]
        k += 4
    while k < k1:
        a0, b0 = A[k, column], B[k, j0:j1]
        for j in range(len(c)):
            c[j] = c[j] - a0 * b0[j]
        k += 1


@compiled
def subtract(
    C: Any, A: Any, B: Any, i0: int, i1: int, k0: int, k1: int, j0: int, j1: int, upper: bool
) -> None:
    """Take ``A[k0:k1, i0:i1]^T B[k0:k1, j0:j1]`` from `C`, or from its upper triangle."""
    for start in range(j0, j1, _TILE):
        stop = min(start + _TILE, j1)
        for i in range(i0, i1):
            first = max(start, i) if upper else start
            if first < stop:
                take(C, i, A, i, B, k0, k1, first, stop)


@compiled
def factorize(A: Any) -> bool:
    """Turn the upper triangle of `A` into `U` with ``U^T U = A``; False if there is none."""
    n = len(A)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(start, stop):
            take(A, j, A, j, A, start, j, j, n)
            if not A[j, j] > 0.0:
                return False
            root = np.sqrt(A[j, j])
            row = A[j, j:]
            for i in range(len(row)):
                row[i] = row[i] / root
        subtract(A, A, A, stop, n, start, stop, stop, n, True)
    return True


def factorized(A: FloatArray) -> FloatArray:
    """Turn the upper triangle of a positive definite matrix into its factor, and return it.

    Raises
    ------
    LinAlgError
        When it is not positive definite.
    """
    if not factorize(A):
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return A


def gathered(H: FloatArray, columns: IntArray) -> FloatArray:
    """Return the block of a matrix with some of its rows and columns."""
    block = np.empty((len(columns), len(columns)))
    _gather(H, columns, block)
    return block


@compiled
def _gather(H: Any, columns: Any, block: Any) -> None:
    for i in range(len(columns)):
        for j in range(len(columns)):
            block[i, j] = H[columns[i], columns[j]]


@compiled
def solve(U: Any, b: Any) -> None:
    """Turn `b` (n,) into the solution of ``U^T U x = b``."""
    halfway(U, b)
    for j in range(len(b) - 1, -1, -1):
        total = b[j]
        for i in range(j + 1, len(b)):
            total -= U[j, i] * b[i]
        b[j] = total / U[j, j]


@compiled
def halfway(U: Any, b: Any) -> None:
    """Turn `b` (n,) into the solution of ``U^T z = b``."""
    for j in range(len(b)):
        b[j] /= U[j, j]
        rest, row, z = b[j + 1 :], U[j, j + 1 :], b[j]
        for i in range(len(rest)):
            rest[i] = rest[i] - z * row[i]


@compiled
def halfway_many(U: Any, B: Any) -> None:
    """Turn `B` (n, r) into the solution of ``U^T Z = B``."""
    n, r = B.shape
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(start, stop):
            take(B, j, U, j, B, start, j, 0, r)
            B[j] /= U[j, j]
        subtract(B, U, B, stop, n, start, stop, 0, r, False)


@compiled
def solve_many(U: Any, B: Any) -> None:
    """Turn `B` (n, r) into the solution of ``U^T U X = B``."""
    n, r = B.shape
    halfway_many(U, B)
    turned = U.T.copy()
    for start in range((n - 1) // BLOCK * BLOCK, -1, -BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(stop - 1, start - 1, -1):
            take(B, j, turned, j, B, j + 1, stop, 0, r)
            B[j] /= U[j, j]
        subtract(B, turned, B, 0, start, start, stop, 0, r, False)


@compiled
def invert(U: Any, out: Any) -> None:
    """Write the inverse of ``U^T U`` to the upper triangle of `out`; `U` is overwritten."""
    n = len(U)
    turned = U.T.copy()
    # The inverse of U takes its place, from the last row on.
    for i in range(n - 1, -1, -1):
        pivot = U[i, i]
        U[i] = 0.0
        take(U, i, turned, i, U, i + 1, n, i + 1, n)
        U[i, i] = 1.0
        for j in range(i, n):
            U[i, j] /= pivot
    turned[:] = U.T
    out[:] = 0.0
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        subtract(out, turned, turned, 0, stop, start, n, start, stop, True)
    for i in range(n):
        for j in range(i, n):
            out[i, j] = -out[i, j]
