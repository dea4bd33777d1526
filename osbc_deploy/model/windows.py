"""Windows that slide over rows and columns: those of convolutions and of poolings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray

__all__ = ["AvgPool", "Pair", "Shape", "pair", "reached", "window_count"]

T = TypeVar("T", bound=np.generic)
Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, ...]


def pair(value: Any, along: int = 1, *, flat: bool = False) -> Pair:
    """Return a size for two axes, as torch's layers take it: one number, or one for each axis.

    Of a single axis, or one number where the layer is `flat`, the other takes `along`.
    """
    if not isinstance(value, tuple | list):
        value = (value,) if flat else (value, value)
    first, second = value if len(value) == 2 else (along, *value)
    return int(first), int(second)


def window_count(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Return how many windows of a convolution or pooling fit along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


Axis: TypeAlias = tuple[int, int, int, int, int, int]
"""Size of a source along an axis, then kernel, stride, padding, dilation and outputs."""


def reached(
    size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int
) -> IntArray:
    """Return the output that each place of the source reaches by each tap, along one axis.

    Returns
    -------
    ndarray of int64 (size, kernel)
        -1 where there is none.
    """
    output, off = np.divmod(
        np.arange(size)[:, None] + padding - dilation * np.arange(kernel)[None], stride
    )
    return np.where((off == 0) & (output >= 0) & (output < outputs), output, -1)


@dataclass(frozen=True)
class AvgPool:
    """Average pooling of presynaptic activity (C, H, W), zero padding counted in the average.

    Attributes
    ----------
    kernel, stride, padding : (int, int)
        Window, step and zero padding in pixels, as (rows, columns).
    divisor : int
        What the window's sum is divided by; ``kernel[0] * kernel[1]`` unless overridden.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    divisor: int = 0

    def __post_init__(self) -> None:
        if not self.divisor:
            object.__setattr__(self, "divisor", math.prod(self.kernel))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the pooled shape of (C, H, W)."""
        c, h, w = shape
        rows = window_count(h, self.kernel[0], self.stride[0], self.padding[0])
        cols = window_count(w, self.kernel[1], self.stride[1], self.padding[1])
        return c, rows, cols

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        if len(shape) != 3:
            return f"takes (C, H, W), gets {shape}"
        if min(self.output_shape(shape)) < 1:
            return f"its window is larger than its input {shape}"
        return ""

    def sums(self, maps: NDArray[T]) -> NDArray[T]:
        """Return the sums of all windows of maps (..., H, W), before they are divided."""
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        padded = np.pad(maps, (*[(0, 0)] * (maps.ndim - 2), (ph, ph), (pw, pw)))
        windows = sliding_window_view(padded, (kh, kw), axis=(-2, -1))[..., ::sh, ::sw, :, :]
        total: NDArray[Any] = np.zeros(windows.shape[:-2], maps.dtype)
        for i in range(kh):
            for j in range(kw):
                total += windows[..., i, j]
        return total
