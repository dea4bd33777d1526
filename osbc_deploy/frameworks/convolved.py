"""A convolution and what follows it, another one or a matrix, as one that computes the same.

Behind a convolution of stride s, a tap of the second one that is d places further on sees what lies
s d places further on in the source. The taps of both add up to a kernel of the source::

    stride s1 s2,  padding p1 + s1 p2,  taps at d1 i + s1 d2 j   (i of the first, j of the second)

That holds wherever the second one sees results of the first. Where it pads, it sees zeros, while
the single one goes on with the taps of the first; they are equal only where those see nothing of
the source either, and where the first adds nothing. A matrix sees nothing but results, each with
weights of its own, so it can always be multiplied with the convolution, place by place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.model.connections import Conv
from osbc_deploy.model.windows import Shape

__all__ = [
    "behind_constant",
    "border_fault",
    "channels_seen",
    "convolved",
    "convolved_matrix",
    "convolved_shape",
    "trimmed",
]


def channels_seen(conv: Conv) -> IntArray:
    """Return the channels of the source (c_out, c_in / groups) that each output channel sees."""
    outputs, width = conv.weight.shape[:2]
    # Output channel o of group g sees input channels g * width to (g + 1) * width - 1.
    group = np.arange(outputs) // (outputs // conv.groups)
    return np.asarray(group[:, None] * width + np.arange(width))


def behind_constant(conv: Conv, values: FloatArray) -> FloatArray:
    """Return what a convolution makes of a constant in each channel, away from its padding.

    Parameters
    ----------
    conv : Conv
    values : ndarray of float64 (c_in,)

    Returns
    -------
    ndarray of float64 (c_out,)
    """
    taps = conv.weight.astype(np.float64).sum(axis=(2, 3))
    return np.asarray((taps * values[channels_seen(conv)]).sum(axis=1))


def border_fault(first: Conv, second: Conv, shape: Shape, *, constant: bool) -> str:
    """Say why two convolutions in a row are not one where the second pads; empty if they are.

    Parameters
    ----------
    first, second : Conv
    shape : tuple of int
        (C, H, W) of the source.
    constant : bool
        Whether a constant is added to what the first gives.
    """
    if not any(second.padding):
        return ""
    if constant:
        return "the constant added in front of it (bias, BatchNorm) is missing where it pads"
    between = first.output_shape(shape)
    for own, other in zip(first.axes(shape), second.axes(between), strict=True):
        size, kernel, stride, padding, dilation, results = own
        _, taps, step, pads, apart, outputs = other
        # One result before the first one would see the source with its last tap, one behind the
        # last with its first tap, if the second convolution asks for that.
        before = pads and dilation * (kernel - 1) - padding - stride >= 0
        asked = (outputs - 1) * step + apart * (taps - 1) - pads >= results
        if before or (asked and stride * results - padding < size):
            return "it pads with zeros where the layer in front of it would give more"
    return ""


def convolved_shape(first: Conv, second: Conv) -> Shape:
    """Return the shape of the weights of two convolutions in a row, as one."""
    channels = first.weight.shape[1] * first.groups // _groups(first, second)
    return len(second.weight), channels, *(axis.size for axis in _axes(first, second))


def convolved(first: Conv, second: Conv) -> Conv:
    """Return one convolution, without bias, of the weights of two in a row.

    Its groups are whole groups of both: a depthwise and a pointwise convolution give a full one,
    in which every output channel has a weight for every input channel, zero or not.

    Parameters
    ----------
    first, second : Conv
        Between which there is no :func:`border_fault`. Their biases are left out.

    Returns
    -------
    Conv
        Its weights are float64, of :func:`convolved_shape`.
    """
    groups, (rows, cols) = _groups(first, second), _axes(first, second)
    weight = np.zeros(convolved_shape(first, second))
    before, after = first.weight.astype(np.float64), second.weight.astype(np.float64)
    middle, (given, taken) = len(before), after.shape[:2]
    made, source = middle // first.groups, before.shape[1]
    # Stretches of the channels between the two that belong to one group of either.
    cuts = sorted({*range(0, middle, made), *range(0, middle, taken), middle})
    for start, stop in pairwise(cuts):
        group = start // taken * (given // second.groups)
        outputs = slice(group, group + given // second.groups)
        begin = start // made * source - start * groups // middle * weight.shape[1]
        part = weight[outputs, begin : begin + source]
        mixed = after[outputs, start % taken : start % taken + stop - start]
        for y, x in np.ndindex(mixed.shape[2:]):
            taps = np.tensordot(mixed[:, :, y, x], before[start:stop], 1)
            part[:, :, rows.reached(y), cols.reached(x)] += taps
    (down, right), (high, wide) = first.stride, second.stride
    (top, left), (above, beside) = first.padding, second.padding
    return Conv(
        weight,
        None,
        (down * high, right * wide),
        (top + down * above, left + right * beside),
        (rows.dilation, cols.dilation),
        groups,
    )


def trimmed(conv: Conv) -> Conv:
    """Return a convolution without the taps at both ends of its window that are zero in all."""
    weight, padding = conv.weight, list(conv.padding)
    for axis, (pad, apart) in enumerate(zip(conv.padding, conv.dilation, strict=True)):
        used = np.flatnonzero(np.moveaxis(weight, 2 + axis, 0).any(axis=(1, 2, 3)))
        if not len(used):
            continue
        # As many at either end, as both are padded alike.
        ends = min(int(used[0]), weight.shape[2 + axis] - 1 - int(used[-1]), pad // apart)
        weight = np.take(weight, np.arange(ends, weight.shape[2 + axis] - ends), 2 + axis)
        padding[axis] -= ends * apart
    return replace(conv, weight=weight, padding=(padding[0], padding[1]))


def convolved_matrix(conv: Conv, weight: FloatArray, shape: Shape) -> FloatArray:
    """Return the matrix that does what a convolution and a matrix behind it do.

    Parameters
    ----------
    conv : Conv
        Its bias is left out.
    weight : ndarray (n, c_out * rows * columns)
        Of the matrix that hears all results of the convolution, flattened.
    shape : tuple of int
        (C, H, W) of the convolution's source.

    Returns
    -------
    ndarray of float64 (n, C * H * W)
    """
    behind = weight.astype(np.float64).reshape(len(weight), *conv.output_shape(shape))
    found = np.zeros((len(weight), *shape))
    rows, cols = conv.reached(shape)
    given, taken = len(conv.weight) // conv.groups, conv.weight.shape[1]
    for y, x in np.ndindex(conv.weight.shape[2:]):
        # Places of the source that a tap sees, and the results that it sees them for.
        (down,), (right,) = np.nonzero(rows[:, y] >= 0), np.nonzero(cols[:, x] >= 0)
        heard = behind[:, :, rows[down, y][:, None], cols[right, x]]
        for group in range(conv.groups):
            outputs = slice(group * given, (group + 1) * given)
            tap = conv.weight[outputs, :, y, x].astype(np.float64)
            sums = np.tensordot(heard[:, outputs], tap, (1, 0))
            inputs = np.arange(group * taken, (group + 1) * taken)
            where = np.ix_(np.arange(len(found)), inputs, down, right)
            found[where] += np.moveaxis(sums, 3, 1)
    return found.reshape(len(found), -1)


def _groups(first: Conv, second: Conv) -> int:
    return math.gcd(first.groups, second.groups)


@dataclass(frozen=True)
class _Axis:
    """A kernel of two along an axis.

    Attributes
    ----------
    taps : int
        Of the first.
    own, other : int
        Steps from tap to tap of the first, and of the second, as places of the source.
    reach : int
        From the first place that is seen to the last.
    """

    taps: int
    own: int
    other: int
    reach: int

    @property
    def dilation(self) -> int:
        """Places from tap to tap of both together."""
        return math.gcd(self.own, self.other) or 1

    @property
    def size(self) -> int:
        """Taps of both together."""
        return self.reach // self.dilation + 1

    def reached(self, tap: int) -> slice:
        """Return which taps of both the first one's are, behind a tap of the second."""
        start, step = tap * self.other // self.dilation, self.own // self.dilation or 1
        return slice(start, start + step * (self.taps - 1) + 1, step)


def _axes(first: Conv, second: Conv) -> tuple[_Axis, _Axis]:
    """Return rows and columns. A kernel of 1 has no steps."""
    rows, cols = (
        _Axis(before, own, other, own * (before - 1) + other * (after - 1))
        for before, after, own, other in (
            (before, after, d * (before > 1), s * e * (after > 1))
            for before, after, s, d, e in zip(
                first.weight.shape[2:],
                second.weight.shape[2:],
                first.stride,
                first.dilation,
                second.dilation,
                strict=True,
            )
        )
    )
    return rows, cols
