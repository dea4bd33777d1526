"""Layers of maps that hear values which do not lie as maps of their own.

A forward sees flat neurons as maps (``nn.Unflatten``, ``view``), or maps on another grid than that
of what gives them (``nn.Upsample``, ``nn.PixelShuffle``, ``nn.ConvTranspose2d``). Where the values
lie in blocks that repeat, a layer of them is a convolution by phases (:mod:`.phases`). Anything
else is a matrix: a chip shares the weights of a convolution among the places of maps alone, so
there each place has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.averages import Averages
from osbc_deploy.frameworks.convolved import convolved_matrix
from osbc_deploy.frameworks.layout import Layout, columns_of, whole_of
from osbc_deploy.frameworks.operations import Flatten
from osbc_deploy.frameworks.phases import (
    WEIGHT_BYTES,
    Taps,
    blocks_of,
    by_phase,
    in_phases,
    taps_of,
    transposed_taps,
)
from osbc_deploy.frameworks.signals import takes_flat
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import INPUT, AvgPool, Conv, Dense, Shape

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.flow import Called

__all__ = ["Transposed", "put_averages", "put_maps", "put_transposed"]

_FLAT = "Have it hear fewer neurons, or give smaller maps"
_UNEVEN = (
    "Have it give a whole multiple of the maps that it hears (Upsample by a whole factor, "
    "ConvTranspose with a kernel of its stride), whose places share weights, or smaller maps"
)


@dataclass(frozen=True, eq=False)
class Transposed:
    """A transposed convolution: what the convolution `of` would be the gradient of.

    Attributes
    ----------
    of : Conv
        From maps (c_out, rows, columns) of `given` to those that it hears, without bias.
    bias : ndarray (c_out,) or None
    given : tuple of int
    """

    of: Conv
    bias: FloatArray | None
    given: Shape

    def output_shape(self, shape: Shape) -> Shape:
        """Return (c_out, rows, columns)."""
        return self.given

    def matrix(self, shape: Shape) -> FloatArray:
        """Return the weights from what it hears, flattened, to what it gives."""
        size, windows = math.prod(shape), self.of.output_shape(self.given)
        places = np.zeros((size, *windows))
        # What `output_padding` adds may hold windows more, which are no places of what it hears.
        places[:, :, : shape[1], : shape[2]] = np.eye(size).reshape(size, *shape)
        return np.asarray(convolved_matrix(self.of, places, self.given).T)

    def weight(self) -> FloatArray:
        """Return the weights (c_out, c_in / groups, kh, kw)."""
        own, groups = self.of.weight, self.of.groups
        split = own.reshape(groups, len(own) // groups, *own.shape[1:])
        return np.asarray(split.swapaxes(1, 2).reshape(-1, len(own) // groups, *own.shape[2:]))

    def taps(self, axis: int, seen: int) -> Taps:
        """Return what it hears along rows (0) or columns (1)."""
        return transposed_taps(*_geometry(self.of, axis), seen)


@dataclass(frozen=True, eq=False)
class _Plain:
    """A convolution, with the same methods."""

    of: Conv

    @property
    def bias(self) -> FloatArray | None:
        return self.of.bias

    def output_shape(self, shape: Shape) -> Shape:
        return self.of.output_shape(shape)

    def matrix(self, shape: Shape) -> FloatArray:
        made = math.prod(self.output_shape(shape))
        return convolved_matrix(self.of, np.eye(made), shape)

    def weight(self) -> FloatArray:
        return self.of.weight

    def taps(self, axis: int, seen: int) -> Taps:
        return taps_of(*_geometry(self.of, axis), seen)


def _geometry(of: Conv, axis: int) -> tuple[int, int, int, int]:
    """Return kernel, stride, padding and dilation along rows (0) or columns (1)."""
    return of.weight.shape[2 + axis], of.stride[axis], of.padding[axis], of.dilation[axis]


def put_maps(
    builder: Builder,
    called: Called,
    conv: Conv,
    pool: AvgPool | None = None,
    name: str | None = None,
) -> None:
    """Put a convolution behind what a call hears, or a pooling that is the same."""
    name = name or called.name
    layout = builder.layout(called.sources[0])
    flat = layout is not None and len(layout.shape) == 1
    if layout is None or builder.settles(called) or (flat and builder.heard(called) == [INPUT]):
        if builder.settled(called):
            builder.put(called, name, conv if pool is None else pool)
        return
    _put(builder, called, _Plain(conv), layout, name)
    if pool is not None:
        builder.fixed.add(called.name)


def put_averages(builder: Builder, called: Called, averages: Averages) -> None:
    """Put averages over windows of several sizes behind what a call hears.

    A Linear behind takes them into its weights; in front of anything else they are a matrix.
    """
    source = called.sources[0]
    hearing = [c for c in builder.flow.calls if any(s.called is called for s in c.sources)]
    taken = bool(hearing) and all(takes_flat(c) for c in hearing)
    if taken and builder.unmixed(source) and builder.settles(called):
        builder.settled(called)
        builder.put(called, called.name, averages)
        return
    layout = builder.placed(source)
    made = averages.output_shape(builder.shape(layout.seen))

    def matrix() -> FloatArray:
        return averages.before(np.eye(math.prod(made)))

    _put_matrix(builder, called, layout, made, matrix, None, called.name)
    builder.fixed.add(called.name)


def put_transposed(builder: Builder, called: Called, layer: Transposed) -> None:
    """Put a transposed convolution behind what a call hears."""
    if builder.layout(called.sources[0]) is not None and builder.settles(called):
        builder.settled(called)
        shape = called.sources[0].shape
        _put(builder, called, layer, whole_of(builder.shape(shape), shape), called.name)
        return
    _put(builder, called, layer, builder.placed(called.sources[0]), called.name)


def _put(
    builder: Builder, called: Called, layer: Transposed | _Plain, layout: Layout, name: str
) -> None:
    """Put a layer behind maps that lie otherwise: by phases where that takes fewer weights."""
    shape = builder.shape(layout.seen)
    made = layer.output_shape(shape)
    if len(layout.shape) == 3 and _put_phases(builder, called, layer, layout, name):
        return
    if builder.heard(called) == [INPUT] and not builder.settles(called):
        # Says what to do with the input.
        builder.settled(called)
        return
    bias = None if layer.bias is None else np.repeat(layer.bias, math.prod(made[1:]))
    dtype = layer.of.weight.dtype
    _put_matrix(
        builder, called, layout, made, lambda: layer.matrix(shape).astype(dtype), bias, name
    )


def _put_matrix(
    builder: Builder,
    called: Called,
    layout: Layout,
    made: Shape,
    of_seen: Callable[[], FloatArray],
    bias: FloatArray | None,
    name: str,
) -> None:
    """Put the matrix of a layer that gives `made`, from what `of_seen` gives for what is seen."""
    seen = called.shape
    size, most = math.prod(made), max(layout.index.size, math.prod(layout.shape))
    # Whatever makes it begins with one of what is given, or of what is heard.
    room = (max(size, layout.index.size), max(size, most))
    remedy = _FLAT if len(layout.shape) == 1 else _UNEVEN
    Allowance(called.name, remedy=remedy).take(array_bytes(room, WEIGHT_BYTES))
    weight = columns_of(of_seen(), layout, called.name)
    if len(layout.shape) > 1:
        builder.put(called, f"{name}.flat", Flatten())
    builder.put(called, name, Dense(weight, bias))
    builder.lies(called, whole_of((size,), seen))
    what = "flat values" if len(layout.shape) == 1 else f"{layout.shape}"
    builder.note(
        f"{called.name}: hears {what} as {layout.seen} and gives {seen}, so it becomes a matrix of "
        f"{weight.size:,} weights; of maps, all places share theirs"
    )


def _put_phases(
    builder: Builder, called: Called, layer: Transposed | _Plain, layout: Layout, name: str
) -> bool:
    """Put a layer as a convolution by phases, unless a matrix takes fewer weights."""
    shape = builder.shape(layout.seen)
    made = layer.output_shape(shape)
    seen = called.shape
    index = layout.index.reshape(shape)
    blocks = blocks_of(layout.shape, index)
    if max(one.count for one in blocks) == 1:
        return False
    taps = (layer.taps(0, blocks[0].seen), layer.taps(1, blocks[1].seen))
    phases = (taps[0].phases, taps[1].phases)
    conv = by_phase(
        layer.weight(),
        layer.of.groups,
        (layout.shape, index),
        blocks,
        taps,
        (made[1], made[2]),
        Allowance(called.name, remedy="Have it hear or give fewer channels"),
        most=math.prod(made) * math.prod(layout.shape),
    )
    if conv is None:
        return False
    if layer.bias is not None:
        conv = replace(conv, bias=np.repeat(layer.bias, math.prod(phases)))
    builder.put(called, name, conv)
    whole, places = in_phases(made, phases)
    builder.lies(called, Layout(whole, places.reshape(seen)))
    if phases != (1, 1):
        builder.note(
            f"{called.name}: gives {seen}, which lie as {whole}: a channel for each place of "
            f"blocks of {phases[0]} x {phases[1]}"
        )
    return True
