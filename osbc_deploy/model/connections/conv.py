"""Convolutions: their geometry, which integer networks share, and those of the float network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.jit import compiled
from osbc_deploy.model.connections.base import Connection
from osbc_deploy.model.windows import AvgPool, Axis, Pair, Shape, reached, window_count

__all__ = ["Conv", "Convolution"]


class Convolution:
    """The geometry of a cross-correlation with zero padding, as torch defines Conv2d."""

    weight: NDArray[Any]
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def output_shape(self, shape: Shape) -> Shape:
        """Return (c_out, rows, columns) for a source of (c_in, H, W)."""
        (out, _, kh, kw), (_, h, w) = self.weight.shape, shape
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        return out, window_count(h, kh, sh, ph, dh), window_count(w, kw, sw, pw, dw)

    def by_input(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of the weights' shape as (c_in, kh, kw, c_out / groups)."""
        out, per_group, kh, kw = values.shape
        grouped = values.reshape(self.groups, out // self.groups, per_group, kh, kw)
        return np.asarray(
            grouped.transpose(0, 2, 3, 4, 1).reshape(self.groups * per_group, kh, kw, -1)
        )

    def axes(self, shape: Shape) -> tuple[Axis, Axis]:
        """Return rows, and columns, as :func:`.windows.reached` takes them."""
        rows, cols = zip(
            shape[1:],
            self.weight.shape[2:],
            self.stride,
            self.padding,
            self.dilation,
            self.output_shape(shape)[1:],
            strict=True,
        )
        return rows, cols

    def reached(self, shape: Shape) -> tuple[IntArray, IntArray]:
        """Return for rows, and for columns, what :func:`.windows.reached` does."""
        rows, cols = (reached(*axis) for axis in self.axes(shape))
        return rows, cols

    def fan_out(self, kept: BoolArray, shape: Shape) -> IntArray:
        """Return the synapses (c_in * H * W,) of every neuron of the source."""
        rows, cols = (np.asarray(axis >= 0, np.int64) for axis in self.reached(shape))
        each = np.einsum("cij,yi,xj->cyx", self.by_input(kept).sum(axis=3), rows, cols)
        return np.asarray(each.ravel())


@dataclass(frozen=True, eq=False)
class Conv(Convolution, Connection):
    """Two-dimensional cross-correlation, as torch defines Conv2d, with zero padding.

    Attributes
    ----------
    weight : ndarray (c_out, c_in / groups, kh, kw)
    bias : ndarray (c_out,) or None
        Current added in every time step.
    stride, padding, dilation : (int, int)
        As (rows, columns).
    groups : int
    """

    kind: ClassVar[str] = "conv"
    convolutional: ClassVar[bool] = True

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        wanted = self.weight.shape[1] * self.groups
        if len(shape) != 3:
            return f"takes (C, H, W), gets {shape}"
        if shape[0] != wanted:
            return f"takes ({wanted}, H, W), gets {shape}"
        if len(self.weight) % self.groups:
            return f"has {len(self.weight)} output channels in {self.groups} groups"
        if min(self.output_shape(shape)) < 1:
            return f"its window is larger than its input {shape}"
        return ""

    def share(self, outputs: slice) -> tuple[Conv, slice]:
        if self.groups == 1:
            return self, slice(None)
        size, per_group = len(self.weight) // self.groups, self.weight.shape[1]
        start, stop, _ = outputs.indices(len(self.weight))
        first, last = start // size, stop // size
        return replace(self, groups=last - first), slice(first * per_group, last * per_group)

    def unfolded(self, frames: FloatArray) -> FloatArray:
        """Return the rows (groups, m * positions, fan_in) that the weights are multiplied with."""
        _, per_group, kh, kw = self.weight.shape
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        padded = np.pad(frames, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        reach = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
        windows = sliding_window_view(padded, reach, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
        m, channels, rows, cols = windows.shape[:4]
        grouped = windows.reshape(m, channels // per_group, per_group, rows, cols, kh, kw)
        ordered = grouped.transpose(1, 0, 3, 4, 2, 5, 6)
        return np.asarray(ordered.reshape(channels // per_group, m * rows * cols, -1))

    def unfolded_at(self, frame: FloatArray, places: IntArray) -> FloatArray:
        """Return the rows (groups, k, fan_in) of some positions of one frame (*source shape)."""
        found = np.empty((self.groups, len(places), self.fan_in))
        rows, cols = np.divmod(places, self.output_shape(frame.shape)[2])
        size = self.weight.shape[2:]
        _unfold(frame, rows, cols, size, self.stride, self.padding, self.dilation, found)
        return found

    def _reach(self) -> Pair:
        """Return how many rows and columns a place sees."""
        kh, kw = self.weight.shape[2:]
        return self.dilation[0] * (kh - 1) + 1, self.dilation[1] * (kw - 1) + 1

    def shape_followed_by(self, pool: AvgPool) -> Shape:
        """Return the shape of the weights that :meth:`followed_by` makes."""
        out, channels = self.weight.shape[:2]
        rows, cols = self._reach()
        (sh, sw), (kh, kw) = self.stride, pool.kernel
        return out, channels, rows + sh * (kh - 1), cols + sw * (kw - 1)

    def followed_by(self, pool: AvgPool) -> Conv:
        """Return the single convolution that does what this one and a pooling after it do.

        Pooling averages the currents of shifted windows, so the kernels add up at their shifts:
        kernel ``d (k - 1) + 1 + s (p - 1)``, stride ``s`` times the pooling's.
        """
        (sh, sw), (dh, dw) = self.stride, self.dilation
        reach = self._reach()
        kernel = np.zeros(self.shape_followed_by(pool))
        for y in range(0, sh * pool.kernel[0], sh):
            for x in range(0, sw * pool.kernel[1], sw):
                kernel[:, :, y : y + reach[0] : dh, x : x + reach[1] : dw] += self.weight
        share = pool.kernel[0] * pool.kernel[1] / pool.divisor
        return Conv(
            weight=(kernel / pool.divisor).astype(self.weight.dtype),
            bias=None if self.bias is None else (self.bias * share).astype(self.bias.dtype),
            stride=(sh * pool.stride[0], sw * pool.stride[1]),
            padding=self.padding,
            groups=self.groups,
        )


@compiled
def _unfold(
    frame: Any,
    rows: Any,
    cols: Any,
    size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    found: Any,
) -> None:
    """Write what windows at some places see, zero beyond the border."""
    channels, height, width = frame.shape
    groups = len(found)
    per_group = channels // groups
    for k in range(len(rows)):
        top = rows[k] * stride[0] - padding[0]
        left = cols[k] * stride[1] - padding[1]
        for g in range(groups):
            row = found[g, k]
            at = 0
            for c in range(g * per_group, (g + 1) * per_group):
                for i in range(size[0]):
                    y = top + i * dilation[0]
                    for j in range(size[1]):
                        x = left + j * dilation[1]
                        inside = 0 <= y < height and 0 <= x < width
                        row[at] = frame[c, y, x] if inside else 0.0
                        at += 1
