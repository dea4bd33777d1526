"""Convolutions in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.fixedpoint.connections.base import FixedConnection, Ranges
from osbc_deploy.model.connections import Convolution
from osbc_deploy.model.windows import Pair, Shape

__all__ = ["FixedConv"]


@dataclass(frozen=True, eq=False)
class FixedConv(Convolution, FixedConnection):
    """Weight mantissas (c_out, c_in / groups, kh, kw) of a cross-correlation, zero padded.

    Its sum wraps to the width of a state register.
    """

    kind: ClassVar[str] = "conv"
    convolutional: ClassVar[bool] = True
    dimensions: ClassVar[int] = 4
    wraps: ClassVar[bool] = True

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def output_shape(self, shape: Shape) -> Shape:
        """Return (c_out, rows, columns); ValueError for a source that does not fit."""
        channels, _, _ = shape
        out, per_group = self.weight.shape[:2]
        if channels != per_group * self.groups or out % self.groups:
            raise ValueError(f"{per_group} channels in {self.groups} groups, source of {shape}")
        return super().output_shape(shape)

    def seen(self, shape: Shape, ranges: Ranges) -> Ranges:
        """Return the channels, rows and columns of the source that a tile sees."""
        per_group = self.weight.shape[1]
        share = len(self.weight) // self.groups
        first, last = ranges[0][0] // share, (ranges[0][1] - 1) // share
        axes = [
            (
                max(0, start * stride - padding),
                min(size, (stop - 1) * stride + dilation * (k - 1) + 1 - padding),
            )
            for (start, stop), size, stride, padding, dilation, k in zip(
                ranges[1:],
                shape[1:],
                self.stride,
                self.padding,
                self.dilation,
                self.weight.shape[2:],
                strict=True,
            )
        ]
        return ((first * per_group, (last + 1) * per_group), *axes)

    def total(self, spikes: FloatArray, weight: Any, shape: Shape) -> FloatArray:
        """Cross-correlate spikes (n, n_pre), one matrix product for each kernel offset."""
        out, per_group, kh, kw = weight.shape
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        _, rows, cols = self.output_shape(shape)
        frames = spikes.reshape(len(spikes), *shape).transpose(0, 2, 3, 1)
        padded = np.pad(frames, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
        total = np.zeros((len(spikes), rows, cols, out), frames.dtype)
        share = out // self.groups
        for group in range(self.groups):
            inputs = slice(group * per_group, (group + 1) * per_group)
            outputs = slice(group * share, (group + 1) * share)
            for i in range(kh):
                for j in range(kw):
                    window = padded[
                        :,
                        i * dh : i * dh + sh * (rows - 1) + 1 : sh,
                        j * dw : j * dw + sw * (cols - 1) + 1 : sw,
                        inputs,
                    ]
                    total[..., outputs] += window @ weight[outputs, :, i, j].T
        return np.ascontiguousarray(total.transpose(0, 3, 1, 2)).reshape(len(spikes), -1)
