"""Convolutions in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
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

    def heard(self, post: BoolArray, shape: Shape) -> BoolArray:
        """Return which neurons (n_pre,) of a source of `shape` project to any of some neurons."""
        found = np.zeros(shape, bool)
        rows, cols = self.reached(shape)
        targets = post.reshape(self.groups, -1, *self.output_shape(shape)[1:])
        taps = self.by_input(self.weight != 0)
        per_group = self.weight.shape[1]
        for channel, tap in enumerate(taps):
            into = targets[channel // per_group]
            for i in range(tap.shape[0]):
                for j in range(tap.shape[1]):
                    any_of = into[tap[i, j]].any(axis=0)
                    hits = any_of[rows[:, i][:, None], cols[:, j][None]]
                    inside = (rows[:, i] >= 0)[:, None] & (cols[:, j] >= 0)[None]
                    found[channel] |= hits & inside
        return found.ravel()

    def bound(self, pre: BoolArray, post: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Keep groups of channels whole, as all have as many."""
        if self.groups == 1:
            return pre, post
        stay = pre.reshape(self.groups, -1).any(axis=1) | post.reshape(self.groups, -1).any(axis=1)
        return np.repeat(stay, len(pre) // self.groups), np.repeat(stay, len(post) // self.groups)

    def part(self, pre: BoolArray, post: BoolArray) -> FixedConv:
        """Return the kernels from some channels to some."""
        weight = self.weight[post]
        if self.groups == 1:
            return replace(self, weight=weight[:, pre])
        return replace(self, weight=weight, groups=int(pre.sum()) // self.weight.shape[1])

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
