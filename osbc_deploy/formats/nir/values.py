"""Numbers and shapes of a NIR graph, in the axes and the precision that networks have.

A file may hold anything: what is not valid raises ValueError with the end of a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.graph import Pair, Shape

__all__ = ["bias_of", "floats", "pair", "shape_of", "span", "spread", "uniform"]


def floats(value: Any) -> FloatArray:
    """Return numbers as single or double precision."""
    found = np.asarray(value)
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float32)


def bias_of(value: Any, count: int) -> FloatArray:
    """Return a bias, one number for each output."""
    found = floats(value)
    if found.shape != (count,):
        raise ValueError(f"has a bias of shape {found.shape} for {count} outputs")
    return found


def spread(value: Any) -> FloatArray:
    """Return values in the axes that populations have: (N,), or (C, H, W) with H = 1 for (C, N)."""
    found = floats(value)
    return found.reshape(()) if found.size == 1 else found.reshape(shape_of(found.shape))


def uniform(value: Any) -> FloatArray:
    """Return one value where all are the same."""
    found = spread(value)
    return found.ravel()[:1].reshape(()) if (found == found.flat[0]).all() else found


def shape_of(shape: Sequence[int]) -> Shape:
    """Return a shape that populations have: (C, N) is (C, 1, N)."""
    sizes = tuple(int(x) for x in np.atleast_1d(shape))
    if len(sizes) == 2:
        return sizes[0], 1, sizes[1]
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        raise ValueError(f"has shape {sizes}; (N,), (C, N) and (C, H, W) are supported")
    return sizes


def pair(value: Any) -> Pair:
    """Return a number for rows and one for columns; one alone is for both."""
    numbers = [int(x) for x in np.atleast_1d(value)]
    if len(numbers) not in (1, 2):
        raise ValueError(f"has {len(numbers)} numbers where two belong")
    return numbers[0], numbers[-1]


def span(values: FloatArray) -> str:
    """Return the smallest and the largest number, for messages."""
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
