"""Convolutions without most of their weights: what is left is multiplied with whole maps of spikes.

Blocks of the weights that a spike adds are mostly zeros there, while a single weight meets the
places of a map side by side. A pooling that was merged into the weights is taken out again, as the
spikes of a window are counted once instead of a weight for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv
from osbc_deploy.fixedpoint.lanes import LANES, SPAN, SPANS
from osbc_deploy.fixedpoint.network import FixedProjection, Pooling
from osbc_deploy.fixedpoint.packing import BLOCK, SYNAPSE, Codes
from osbc_deploy.fixedpoint.sites import Site
from osbc_deploy.model.windows import Pair, Shape

__all__ = ["Maps", "Trade", "maps_of", "saved", "trade_of"]

_TAP, _RUN, _PIECE, _COUNT, _SPIKE = 0.42, 8.0, 1.0, 1.5, 2.0
"""Nanoseconds to multiply a span, to begin a run, to add a piece of a row, to count a spike and to
look up its lists (measured, as :data:`.packing.BLOCK`)."""

_OFTEN = 0.05
"""Share of a source that fires in a step, as long as that is not known."""

_HALF = 1 << 14
"""Half of what 16 bits hold of either sign."""


class Maps(NamedTuple):
    """What :func:`.kernels.push_maps` takes beside lists, and how many places its maps have."""

    grid: tuple[Any, ...]
    runs: tuple[IntArray, ...]
    places: int


class _Kernel(NamedTuple):
    """A kernel (out, channels of a group, rows, columns) behind windows whose spikes are counted.

    `stride` and `dilation` are those behind the windows.
    """

    weight: IntArray
    window: Pair
    stride: Pair
    dilation: Pair

    def reach(self, axis: int) -> int:
        """Return how far behind the first place of a map that is heard the last one lies."""
        size: int = self.weight.shape[2 + axis]
        return self.dilation[axis] * (size - 1) // self.stride[axis]


class Trade(NamedTuple):
    """What whole maps save of the time of a step, in nanoseconds.

    Attributes
    ----------
    pre : str
    spikes : float
        Times the share of `pre` that fires: what spikes would take one by one.
    maps : float
        What maps take.
    """

    pre: str
    spikes: float
    maps: float


def trade_of(projection: FixedProjection, shape: Shape) -> Trade:
    """Return what whole maps save of the time of a projection from a source of `shape`."""
    return _trade(projection.connection, projection, shape)


def saved(trades: Iterable[Trade], rates: Mapping[str, float]) -> float:
    """Return what maps save of a step's time in all, nanoseconds; negative if they cost more.

    Parameters
    ----------
    trades : iterable of Trade
        Of all projections into a population, which share its layout.
    rates : dict of float
        Share of a source that fires in a step, where it is known.
    """
    return sum(t.spikes * rates.get(t.pre, _OFTEN) - t.maps for t in trades)


@singledispatch
def _trade(connection: FixedConnection, projection: FixedProjection, shape: Shape) -> Trade:
    return Trade(projection.pre, 0.0, 0.0)


@_trade.register(FixedConv)
def _(conv: FixedConv, projection: FixedProjection, shape: Shape) -> Trade:
    if projection.graded:
        return Trade(projection.pre, 0.0, math.inf)
    kernel = _apart(conv, conv.weight, projection.pooling)
    spike = BLOCK * _blocks(conv, kernel) + (_SPIKE - _COUNT) * shape[0]
    return Trade(projection.pre, shape[1] * shape[2] * spike, _tiled(conv, kernel, shape).cost)


def maps_of(conv: FixedConv, codes: Codes, pre: Site, post: Site) -> Maps | None:
    """Return how whole maps meet the weights of a convolution; None where numbers are too narrow.

    Sums take 16 bits, places of maps 32.

    Parameters
    ----------
    conv : FixedConv
    codes : Codes
        Its weights.
    pre, post : Site
        `post` has its channels first.
    """
    kernel = _apart(conv, codes.codes, codes.projection.pooling)
    tall = kernel.window[0] * kernel.window[1]
    largest = tall * int(np.abs(kernel.weight.astype(np.int64)).max(initial=0))
    (_, height, width), (sy, sx) = post.shape, kernel.stride
    line, lines = width + kernel.reach(1), height + kernel.reach(0)
    per_group = conv.weight.shape[1]
    channels = per_group * conv.groups
    places = channels * sy * sx * lines * line
    if codes.projection.graded or largest >= _HALF or places >= 2**31:
        return None

    def found(channel: Any, y: Any, x: Any) -> Any:
        """Return where places of a channel are, one map for each way to meet the stride."""
        number = (channel * sy + y % sy) * sx + x % sx
        return (number * lines + y // sy) * line + x // sx

    c, y, x = np.ogrid[:channels, : pre.shape[1], : pre.shape[2]]
    y = (y + conv.padding[0]) // kernel.window[0]
    x = (x + conv.padding[1]) // kernel.window[1]
    # Neurons in no window are counted behind the maps.
    heard = (y // sy < lines) & (x // sx < line)
    to = np.where(heard, found(c, y, x), places).ravel()[pre.order]

    out, channel, row, col = np.nonzero(kernel.weight)
    weight = kernel.weight[out, channel, row, col]
    channel = channel + out // (len(kernel.weight) // conv.groups) * per_group
    offset = found(channel, row * kernel.dilation[0], col * kernel.dilation[1])
    run = _runs(out, tall * np.abs(weight.astype(np.int64)))
    first = np.nonzero(np.diff(run, prepend=-1))[0]
    tiled = _tiled(conv, kernel, pre.shape)
    single = np.count_nonzero(codes.codes) / (channels * conv.stride[0] * conv.stride[1])
    few = tiled.cost / max(_SPIKE + SYNAPSE * single - _COUNT, 1.0)
    return Maps(
        (to.astype(np.int32), height, width, line, tiled.rows, tiled.cols, int(few) + 1),
        (
            out[first] * height * width,
            np.append(first, len(out)),
            offset.astype(np.int32),
            weight.astype(np.int16),
        ),
        places + SPAN,
    )


def _apart(conv: FixedConv, weight: IntArray, pooling: Pooling | None) -> _Kernel:
    """Take a merged pooling out of a kernel, if its weights are indeed those of one."""
    if pooling is not None and conv.dilation == (1, 1):
        rows, cols = pooling.window
        kernel = weight[:, :, ::rows, ::cols]
        tiles = not (conv.stride[0] % rows or conv.stride[1] % cols)
        if tiles and np.array_equal(kernel.repeat(rows, axis=2).repeat(cols, axis=3), weight):
            stride = conv.stride[0] // rows, conv.stride[1] // cols
            return _Kernel(kernel, pooling.window, stride, (1, 1))
    return _Kernel(weight, (1, 1), conv.stride, conv.dilation)


def _blocks(conv: FixedConv, kernel: _Kernel) -> float:
    """Return about how many blocks a spike in each channel adds, in total."""
    there = conv.by_input(kernel.weight != 0)
    lists = there.reshape(*there.shape[:2], -1)
    lists = np.pad(lists, ((0, 0), (0, 0), (0, -lists.shape[2] % LANES)))
    blocks = lists.reshape(*lists.shape[:2], -1, LANES).any(axis=3).sum()
    return float(blocks) / (kernel.stride[0] * kernel.stride[1])


class _Tiles(NamedTuple):
    """Rows and columns that are summed at a time, and the time that a step takes."""

    cost: float
    rows: int
    cols: int


def _tiled(conv: FixedConv, kernel: _Kernel, shape: Shape) -> _Tiles:
    """Return the best tiles of the maps of a convolution."""
    out, height, width = conv.output_shape(shape)
    taps, line = int(np.count_nonzero(kernel.weight)), width + kernel.reach(1)
    cols = min(width, SPANS * SPAN)
    across = -(-width // cols)
    options = []
    for rows in range(1, max(1, (SPANS * SPAN - cols) // line + 1 if across == 1 else 1) + 1):
        whole, rest = divmod(height, rows)
        tall = [rows] * whole + [rest] * (rest > 0)
        spans = sum(
            -(-((high - 1) * line + min(cols, width - x)) // SPAN)
            for high in tall
            for x in range(0, width, cols)
        )
        options.append(_Tiles(_TAP * taps * spans + _RUN * out * len(tall) * across, rows, cols))
    best = min(options)
    pieces = width // SPAN + (width % SPAN).bit_count()
    return best._replace(cost=best.cost + _PIECE * out * height * pieces)


def _runs(out: IntArray, size: IntArray) -> IntArray:
    """Return the run of each weight: one for a channel, more where its sum could leave 16 bits."""
    behind = np.cumsum(size) - size
    first = np.searchsorted(out, out)
    within = behind - behind[first] if len(out) else behind
    total = np.bincount(out, size) if len(out) else size
    part = np.where(total[out] < 2 * _HALF, 0, within // _HALF)
    return np.cumsum((np.diff(out, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
