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
from osbc_deploy.compress.tiles import FEW, LONG, ROWS, WIDE, take_tile
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


@compiled
def take(C: Any, row: int, A: Any, column: int, B: Any, k0: int, k1: int, j0: int, j1: int) -> None:
    """Take ``A[k, column] * B[k, j0:j1]`` from ``C[row, j0:j1]``, for k from k0 to k1 in turn."""
    long, few = LONG // C.itemsize, FEW // C.itemsize
    j = j0
    while j + long <= j1:
        take_tile(1, LONG, C, row, A, column, B, k0, k1, j)
        j += long
    while j + few <= j1:
        take_tile(1, FEW, C, row, A, column, B, k0, k1, j)
        j += few
    while j < j1:
        take_tile(1, 0, C, row, A, column, B, k0, k1, j)
        j += 1


@compiled
def subtract(
    C: Any, A: Any, B: Any, i0: int, i1: int, k0: int, k1: int, j0: int, j1: int, upper: bool
) -> None:
    """Take ``A[k0:k1, i0:i1]^T B[k0:k1, j0:j1]`` from ``C[i0:i1, j0:j1]``.

    Of a symmetric `C` the `upper` triangle is enough; then less of what is below it changes.
    """
    wide, few = WIDE // C.itemsize, FEW // C.itemsize
    for k in range(k0, k1, BLOCK):
        stop = min(k + BLOCK, k1)
        j = j0
        while j < j1:
            # So many columns of the second factor stay in the first cache for all rows.
            left = j1 - j
            columns = wide if left >= wide else few if left >= few else 1
            last = min(i1, j + columns) if upper else i1
            i = i0
            while i + ROWS <= last:
                if columns == wide:
                    take_tile(ROWS, WIDE, C, i, A, i, B, k, stop, j)
                elif columns == few:
                    take_tile(ROWS, FEW, C, i, A, i, B, k, stop, j)
                else:
                    take_tile(ROWS, 0, C, i, A, i, B, k, stop, j)
                i += ROWS
            while i < last:
                if columns == wide:
                    take_tile(1, WIDE, C, i, A, i, B, k, stop, j)
                elif columns == few:
                    take_tile(1, FEW, C, i, A, i, B, k, stop, j)
                else:
                    take_tile(1, 0, C, i, A, i, B, k, stop, j)
                i += 1
            j += columns


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


def gathered(H: FloatArray, columns: IntArray, *, upper: bool = False) -> FloatArray:
    """Return the block of a matrix with some of its rows and columns.

    Of a symmetric one the `upper` triangle may be enough; then what is below it is anything.
    """
    block = np.empty((len(columns), len(columns)))
    _gather(H, columns, block, upper)
    return block


@compiled
def _gather(H: Any, columns: Any, block: Any, upper: bool) -> None:
    for i in range(len(columns)):
        row, seen = block[i], H[columns[i]]
        for j in range(i if upper else 0, len(columns)):
            row[j] = seen[columns[j]]


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
    """Write the inverse of ``U^T U`` to the upper triangle of `out`."""
    n, columns = len(U), LONG // U.itemsize
    turned = np.zeros((n, n), U.dtype)
    factors, panel = np.empty((n, 1), U.dtype), np.empty((n, columns), U.dtype)
    # The inverse of U, some columns after the other, each from its last row on.
    for start in range(0, n, columns):
        stop = min(start + columns, n)
        panel[:stop] = 0.0
        for i in range(stop - 1, -1, -1):
            if i >= start:
                panel[i, i - start] = 1.0
            for k in range(i + 1, stop):
                factors[k, 0] = U[i, k]
            take(panel, i, factors, 0, panel, i + 1, stop, 0, columns)
            for j in range(columns):
                panel[i, j] /= U[i, i]
        for j in range(start, stop):
            for i in range(j + 1):
                turned[j, i] = panel[i, j - start]
    out[:] = 0.0
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        subtract(out, turned, turned, 0, stop, start, n, start, stop, True)
    for i in range(n):
        for j in range(i, n):
            out[i, j] = -out[i, j]
