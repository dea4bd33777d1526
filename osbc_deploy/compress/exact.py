"""Sums and products of matrices that come out the same whoever computes them.

A library adds up a sum of floating-point numbers in an order of its own, which depends on the
processor and the number of threads, and each order rounds differently. Whole numbers below 2^53
are added without rounding, in any order. So sums are made of whole numbers, and factors of
products are cut into slices of few enough digits first (Ozaki, Ogita, Oishi, Rump 2012).
"""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray

__all__ = ["FLOAT_BITS", "WHOLE_BITS", "WholeSum", "log2", "product", "quadratic"]

FLOAT_BITS = 53
"""Whole numbers up to this power of two are exact in double precision."""

WHOLE_BITS = 62
"""And up to this one in 64-bit integers, with one to spare."""

_COLUMNS = 512
"""Of a product made at once, so that its slices take little memory."""


class WholeSum:
    """A sum of arrays of whole numbers.

    Parameters
    ----------
    shape : tuple of int
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._recent = np.zeros(shape)
        self._bound = 0
        self._before: IntArray | None = None

    def add(self, value: FloatArray, bound: int) -> None:
        """Add whole numbers whose size is `bound` at most, up to 2^53."""
        if self._bound + bound > 2**FLOAT_BITS:
            self._settle()
        self._recent += value
        self._bound += bound

    def merge(self, other: WholeSum) -> None:
        """Add another sum of the same shape; the order in which sums are added is no matter."""
        if other._before is not None:
            self._settle()
            assert self._before is not None  # noqa: S101 - it was just made
            self._before += other._before
        self.add(other._recent, other._bound)

    def _settle(self) -> None:
        if self._before is None:
            self._before = np.zeros(self._recent.shape, np.int64)
        np.add(self._before, self._recent, out=self._before, dtype=np.int64, casting="unsafe")
        self._recent[:] = 0.0
        self._bound = 0

    def finish(self) -> FloatArray:
        """Return the sum, which must be below 2^63, rounded once; nothing more can be added."""
        if self._before is not None:
            self._settle()
            self._recent[:] = self._before
            self._before = None
        return self._recent


def log2(number: int) -> int:
    """Return the exponent of the least power of two that is not below `number`."""
    return (number - 1).bit_length()


def product(a: FloatArray, b: FloatArray, *, coarse: bool = False) -> FloatArray:
    """Return the product of matrices (m, k) and (k, n) as every machine computes it.

    Rows of `a` and columns of `b` are rounded to twice ``(53 - log2 k) / 2`` bits of their largest
    number: 40 for a thousand terms. Where `coarse`, to half of that, in a third of the time.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    bits = (FLOAT_BITS - log2(max(1, a.shape[1]))) // 2
    left = _slices(a, 1, bits, coarse=coarse)
    result = np.empty((len(a), b.shape[1]))
    for start in range(0, b.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        right = _slices(b[:, part], 0, bits, coarse=coarse)
        result[:, part] = left[0] @ right[0]
        if not coarse:
            result[:, part] += left[0] @ right[1] + left[1] @ right[0]
    return result


def quadratic(d: FloatArray, H: FloatArray) -> FloatArray:
    """Return ``d^T H d`` of every row of `d`."""
    if not d.any():
        return np.zeros(len(d))
    return np.asarray((product(d, H) * d).sum(axis=1))


def _slices(a: FloatArray, axis: int, bits: int, *, coarse: bool) -> list[FloatArray]:
    """Return `a` as a sum of one or two matrices with few digits along an axis."""
    _, exponent = np.frexp(np.abs(a).max(axis=axis, keepdims=True, initial=0.0))
    unit = np.ldexp(1.0, exponent - bits)
    first = np.rint(a / unit) * unit
    if coarse:
        return [first]
    return [first, np.rint((a - first) / (unit * 2.0**-bits)) * (unit * 2.0**-bits)]
