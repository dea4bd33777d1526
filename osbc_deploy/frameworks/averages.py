"""Averages over windows of several sizes: adaptive pooling, padding left out, rounding up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.graph import Shape

__all__ = ["Averages", "adaptive_windows", "pooling_windows"]


@dataclass(frozen=True, eq=False)
class Averages:
    """Windows that are averaged, as what each row and each column adds to each.

    Only a matrix behind takes them in: a convolution has the same weights for all places.

    Attributes
    ----------
    rows, columns : ndarray of float (outputs, size)
    """

    rows: FloatArray
    columns: FloatArray

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        takes = (self.rows.shape[1], self.columns.shape[1])
        if len(shape) == 3 and shape[1:] == takes:
            return ""
        return f"takes (C, {takes[0]}, {takes[1]}), gets {shape}"

    @property
    def alone(self) -> str:
        """Why nothing but a matrix may follow."""
        (after, before), (wide, high) = self.rows.shape, self.columns.shape
        return (
            f"averages {before} x {high} places to {after} x {wide} in windows of several sizes; "
            "only a Linear may follow that, behind spikes"
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the averages of (C, H, W)."""
        return shape[0], len(self.rows), len(self.columns)

    def before(self, weight: FloatArray) -> FloatArray:
        """Return the weights (n, C * H * W) that do what `weight` does behind the averages."""
        kept = weight.reshape(len(weight), -1, len(self.rows), len(self.columns))
        # One axis after the other, in float64.
        spread = np.einsum("ncij,ih->nchj", kept, self.rows)
        spread = np.einsum("nchj,jw->nchw", spread, self.columns)
        return np.asarray(spread.reshape(len(weight), -1))


def adaptive_windows(size: int, outputs: int) -> FloatArray:
    """Return what torch's adaptive average pooling does along an axis, (outputs, size)."""
    found = np.zeros((outputs, size))
    for number in range(outputs):
        start, stop = number * size // outputs, -(-(number + 1) * size // outputs)
        found[number, start:stop] = 1.0 / (stop - start)
    return found


def pooling_windows(
    size: int, kernel: int, stride: int, padding: int, *, up: bool, counted: bool
) -> FloatArray:
    """Return what torch's average pooling does along an axis, (outputs, size).

    Parameters
    ----------
    size, kernel, stride, padding : int
    up : bool
        Whether a window that is not whole at the end counts (``ceil_mode``).
    counted : bool
        Whether padding counts in the average (``count_include_pad``).
    """
    room = size + 2 * padding - kernel
    outputs = (room + (stride - 1 if up else 0)) // stride + 1
    # A window that starts in the padding behind is left out.
    outputs -= up and (outputs - 1) * stride >= size + padding
    found = np.zeros((max(outputs, 0), size))
    for number in range(len(found)):
        start = number * stride - padding
        stop = min(start + kernel, size + padding)
        inside = (max(start, 0), min(stop, size))
        count = stop - start if counted else inside[1] - inside[0]
        found[number, slice(*inside)] = 1.0 / count
    return found
