"""Where the values that a forward sees lie in what a node of the graph gives.

Forwards flatten, turn, cut and repeat the axes of a sample: tokens (N, D) in place of maps
(D, H, W), heads, halves. Nothing of that is computed on a chip, so it is no node. A layout says
which of a node's values each value that is seen is, and what hears it finds its way back with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.frameworks.phases import blocks_of, by_phase, taps_of
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import AvgPool, Connection, Conv, Dense, Shape

__all__ = ["Layout", "columns_of", "spread", "summed", "whole_of"]

_WEIGHT = 16
"""Bytes of a weight while it is put together."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A signal as it is seen.

    Attributes
    ----------
    shape : tuple of int
        Of what the node gives.
    index : ndarray of int
        Of the shape that is seen: positions in what the node gives, flattened.
    """

    shape: Shape
    index: IntArray

    @property
    def seen(self) -> Shape:
        """The shape that is seen."""
        return tuple(self.index.shape)

    @cached_property
    def ordered(self) -> bool:
        """Whether it is everything in its order, whatever the shape."""
        size = math.prod(self.shape)
        return self.index.size == size and bool((self.index.ravel() == np.arange(size)).all())

    @cached_property
    def whole(self) -> bool:
        """Whether each of the node's values is seen once."""
        size = math.prod(self.shape)
        counts = np.bincount(self.index.ravel(), minlength=size)
        return self.index.size == size and bool((counts == 1).all())

    @cached_property
    def mixed(self) -> bool:
        """Whether what is seen as several maps lies in one of the node's."""
        if len(self.shape) != 3 or self.index.ndim != 3:
            return False
        own = self.index.reshape(len(self.index), -1) // math.prod(self.shape[1:])
        return sum(len(np.unique(one)) for one in own) > len(np.unique(own))

    def same(self, other: Layout) -> bool:
        """Tell whether two nodes' values are seen in the same places."""
        return self.shape == other.shape and np.array_equal(self.index, other.index)

    def inner(self, index: IntArray) -> Layout:
        """Return the layout of a part or turn of what is seen, by positions in it."""
        return Layout(self.shape, self.index.ravel()[index])

    def values(self, values: FloatArray) -> FloatArray:
        """Return what broadcasts to the shape that is seen, in the shape of the node.

        The layout must be whole.
        """
        if values.size == 1:
            return values.reshape(())
        found = np.empty(math.prod(self.shape), values.dtype)
        found[self.index.ravel()] = np.broadcast_to(values, self.seen).ravel()
        return found.reshape(self.shape)

    def own(self) -> Layout:
        """Return where the values that are seen lie once others than these are left out.

        Whole channels are picked of maps; of anything else nothing is left out.
        """
        if len(self.shape) != 3 or self.whole:
            return self
        channel, place = np.divmod(self.index, math.prod(self.shape[1:]))
        used, number = np.unique(channel, return_inverse=True)
        shape = (len(used), *self.shape[1:])
        found = Layout(shape, number.reshape(self.seen) * math.prod(shape[1:]) + place)
        return found if found.whole else self

    def has_channels(self, axis: int) -> bool:
        """Tell whether an axis is the channels of a node (C, H, W), and all else its places."""
        if len(self.shape) != 3 or not self.seen or self.seen[axis] != self.shape[0]:
            return False
        moved = np.moveaxis(self.index, axis, 0)
        return Layout(self.shape, moved).ordered

    def with_channels(self, count: int, axis: int) -> Layout:
        """Return the layout behind a map of each place's channels."""
        places = self.seen[:axis] + self.seen[axis + 1 :] if axis >= 0 else self.seen[:axis]
        shape = (count, *self.shape[1:])
        index = np.arange(math.prod(shape)).reshape(count, *places)
        return Layout(shape, np.moveaxis(index, 0, axis))


def whole_of(shape: Shape, seen: Shape | None = None) -> Layout:
    """Return the layout of everything in its order."""
    return Layout(shape, np.arange(math.prod(shape)).reshape(shape if seen is None else seen))


def spread(source: Layout, target: Layout, name: str = "mask") -> Connection | None:
    """Return what brings a signal to where another lies; None where it lies there.

    Parameters
    ----------
    source, target : Layout
        What is seen of the first broadcasts to what is seen of the second, which is whole.
    name : str
        Of what asks for it.

    Raises
    ------
    ValueError
        That says why no connection does.
    """
    positions = np.empty(math.prod(target.shape), np.int64)
    positions[target.index.ravel()] = np.broadcast_to(source.index, target.seen).ravel()
    if source.shape == target.shape and (positions == np.arange(len(positions))).all():
        return None
    if len(target.shape) == 1:
        made = (len(positions), math.prod(source.shape))
        remedy = "Give smaller maps, or have them lie in one order"
        Allowance(name, remedy=remedy).take(array_bytes(made, _WEIGHT))
        weight = np.zeros(made)
        weight[np.arange(len(positions)), positions] = 1.0
        return Dense(weight)
    conv = _spread_maps(source.shape, target.shape, positions)
    conv = conv or _spread_blocks(source.shape, target.shape, positions, name)
    if conv is None:
        raise ValueError(
            f"brings values {source.seen} to others {target.seen} that lie otherwise; only masks "
            "of whole channels, places, rows or columns can be"
        )
    return conv


def _spread_maps(source: Shape, target: Shape, positions: IntArray) -> Conv | None:
    """Return the convolution that repeats maps along axes of 1, and picks channels."""
    if len(source) != 3 or len(target) != 3:
        return None
    channel, *places = np.unravel_index(positions.reshape(target), source)
    kernel, own = [], np.indices(target)[1:]
    for place, here, size, before in zip(places, own, target[1:], source[1:], strict=True):
        if (place != (here if before > 1 else 0)).any():
            return None
        kernel.append(size if before == 1 else 1)
    if (channel != channel[:, :1, :1]).any():
        return None
    rows, cols = kernel
    picked = channel[:, 0, 0]
    each, rest = divmod(target[0], source[0])
    if not rest and (picked == np.arange(target[0]) // max(1, each)).all():
        weight, groups = np.ones((target[0], 1, rows, cols)), source[0]
    else:
        weight, groups = np.zeros((target[0], source[0], rows, cols)), 1
        weight[np.arange(target[0]), picked] = 1.0
    # A window as large as the result, with the one place in the middle of its padding.
    return Conv(weight, None, (1, 1), (rows - 1, cols - 1), (1, 1), groups)


def _spread_blocks(source: Shape, target: Shape, positions: IntArray, name: str) -> Conv | None:
    """Return the convolution that takes maps apart, by a stride, into one for each phase."""
    if len(source) != 3 or len(target) != 3:
        return None
    index = positions.reshape(target)
    blocks = blocks_of(source, index)
    if any(one.seen > 1 for one in blocks):
        return None
    alone, memory = taps_of(1, 1, 0, 1, 1), Allowance(name, remedy="Give fewer channels")
    memory.take(array_bytes((target[0], target[0]), _WEIGHT))
    weight = np.eye(target[0])[:, :, None, None]
    return by_phase(weight, 1, (source, index), blocks, (alone, alone), target[1:], memory)


def columns_of(weight: FloatArray, layout: Layout, name: str) -> FloatArray:
    """Return weights (n, values) of what is seen, flat, as weights of what its node gives.

    `name` is that of the layer which asks for it.
    """
    if layout.ordered:
        return weight
    made = (math.prod(layout.shape), len(weight))
    Allowance(name, remedy="Give smaller maps, or hear all of them").take(
        array_bytes(made, _WEIGHT)
    )
    found = np.zeros(made, weight.dtype)
    np.add.at(found, layout.index.ravel(), weight.T)
    return np.asarray(found.T)


def summed(
    source: Layout, axes: tuple[int, ...], *, keep: bool, mean: bool
) -> tuple[AvgPool | Connection, Layout]:
    """Return what sums a signal along axes that are seen, and the layout behind it.

    Raises
    ------
    ValueError
        That says why no connection does.
    """
    rest = [a for a in range(len(source.seen)) if a not in axes]
    ordered = source.index.transpose(*rest, *axes)
    kept = tuple(1 if a in axes else s for a, s in enumerate(source.seen))
    seen = kept if keep else tuple(source.seen[a] for a in rest)
    parts = ordered.reshape(math.prod(seen), -1)
    share = 1.0 / parts.shape[1] if mean else 1.0
    if len(source.shape) == 1:
        made = (len(parts), source.shape[0])
        Allowance("sum", remedy="Use a smaller one").take(array_bytes(made, _WEIGHT))
        weight = np.zeros(made, np.float64)
        np.add.at(weight, (np.arange(len(parts))[:, None], parts), share)
        return Dense(weight), whole_of((len(parts),), seen)
    found = _summed_maps(source.shape, parts, mean=mean) if len(source.shape) == 3 else None
    if found is None:
        raise ValueError(
            f"sums {source.seen} along {axes} over values that are no whole windows of "
            f"{source.shape}"
        )
    operation, shape, place = found
    return operation, Layout(shape, place.reshape(seen))


def _summed_maps(
    shape: Shape, parts: IntArray, *, mean: bool
) -> tuple[AvgPool | Conv, Shape, IntArray] | None:
    """Return how maps are summed over parts (n, values): blocks of channels, rows, columns."""
    where = np.stack(np.unravel_index(parts, shape))
    low, high = where.min(axis=2), where.max(axis=2)
    sizes = high - low + 1
    size = sizes[:, 0]
    if (sizes != size[:, None]).any() or math.prod(size.tolist()) != parts.shape[1]:
        return None
    if any(s % k for s, k in zip(shape, size, strict=True)) or (low % size[:, None]).any():
        return None
    deep, rows, cols = (int(k) for k in size)
    made = tuple(s // int(k) for s, k in zip(shape, size, strict=True))
    place = np.ravel_multi_index(tuple(low // size[:, None]), made)
    # Every part is a block, if it holds each of its values once.
    if len(np.unique(parts)) != parts.size:
        return None
    own = Layout(made, place).own()
    share = 1.0 / parts.shape[1] if mean else 1.0
    if own.shape != made:
        blocks = np.unique(low[0]) // deep
        picked = np.zeros((len(blocks), shape[0], rows, cols))
        picked[np.arange(len(blocks))[:, None], blocks[:, None] * deep + np.arange(deep)] = share
        return Conv(picked, None, (rows, cols)), own.shape, own.index
    if deep == 1:
        pool = AvgPool((rows, cols), (rows, cols), divisor=0 if mean else 1)
        return pool, made, np.asarray(place)
    weight = np.full((made[0], deep, rows, cols), share)
    return Conv(weight, None, (rows, cols), (0, 0), (1, 1), made[0]), made, np.asarray(place)
