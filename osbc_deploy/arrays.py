"""Array types and the read-only rule that all frozen data of the package follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BoolArray", "FloatArray", "InputArray", "IntArray", "SpikeArray",
    "blocks", "frozen", "peak_of",
]  # fmt: skip

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
SpikeArray: TypeAlias = NDArray[np.uint8]
InputArray: TypeAlias = NDArray[Any]
"""Samples: spikes of uint8, 0 or 1; whole numbers of a signed type; real values of float32."""


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield all values of an array in its dtype, in pieces (m,) of at most a million.

    What is computed of a piece takes little memory, however large the array is.
    """
    yield from np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=2**20)


def frozen(array: Any, dtype: Any = None) -> NDArray[Any]:
    """Return `array` as a read-only, C-contiguous array that no one else can write.

    Parameters
    ----------
    array : array_like
        Values; copied unless already read-only, contiguous and of `dtype`.
    dtype : dtype, optional
        Wanted dtype; the array's own by default.
    """
    given = np.asarray(array, dtype=dtype)
    if isinstance(array, np.ndarray) and not np.may_share_memory(given, array):
        # The conversion was a copy already.
        given.flags.writeable = False
    if not given.flags.writeable and given.flags.c_contiguous:
        return given
    copy = np.array(given, order="C", copy=True)
    copy.flags.writeable = False
    return copy


@overload
def peak_of(array: IntArray) -> int: ...
@overload
def peak_of(array: NDArray[Any]) -> int | float: ...
def peak_of(array: NDArray[Any]) -> int | float:
    """Return the largest size of a value, a whole number where the values are; 0 for none."""
    if array.dtype.kind == "f":
        return max(float(array.max(initial=0)), -float(array.min(initial=0)))
    return max(int(array.max(initial=0)), -int(array.min(initial=0)))
