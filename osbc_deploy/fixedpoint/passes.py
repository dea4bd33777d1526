"""How projections are laid out for the kernels: by presynaptic neuron, without their zeros.

A spike adds a list of weights to the sums of the neurons it reaches. A convolution has one list for
a channel and each way in which its taps meet the stride, which all places share; or its weights
meet whole maps of spikes (:mod:`.maps`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.lanes import LANES, WIDE
from osbc_deploy.fixedpoint.maps import maps_of
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedProjection
from osbc_deploy.fixedpoint.packing import BLOCK, Codes, Lists, Pass, listed, made, number, packed
from osbc_deploy.fixedpoint.sites import NO_MARGIN, Margin, Site
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape, reached

__all__ = ["margin_of", "passes_into"]

_ROW = 0.4
"""Time to add as much of a whole row as a block (measured; see :mod:`.packing`)."""

_PART = 1 << 22
"""Bytes of weights that are fetched again and again while samples run through them."""

_BEYOND = 1.5
"""How much more than what arrives may be added before what lies beyond the border is left out."""


def passes_into(
    network: FixedPointNetwork, name: str, sites: Mapping[str, Site], peak: int
) -> list[Pass]:
    """Return the projections into a population as the kernels take them.

    Parameters
    ----------
    network : FixedPointNetwork
    name : str
        The population.
    sites : dict of Site
        Of all populations and the input.
    peak : int
        Largest magnitude of a graded input.
    """
    found = [_codes(p, peak, network.formats.state_limit) for p in network.afferents(name)]
    least = min((c.exponent for c in found if c.shared), default=0)
    return [
        part
        for codes in (c.lowered(least) for c in found)
        for part in _laid_out(
            codes.projection.connection,
            codes,
            sites[codes.projection.pre],
            sites[name],
            network.latency(codes.projection),
        )
    ]


def _codes(projection: FixedProjection, peak: int, limit: int) -> Codes:
    weight = projection.connection.weight
    # The lowest bit that any weight has.
    used = int(np.bitwise_or.reduce(weight, axis=None))
    places = (used & -used).bit_length() - 1 if used else 0
    exponent = projection.weight_exp + places
    codes = weight >> np.int16(places)
    bound = widest_sum(codes) * (peak if projection.graded else 1)
    # A sum that cannot reach the limit need not be wrapped.
    wraps = projection.connection.wraps and bound << max(exponent, 0) >= limit
    return Codes(projection, codes, exponent, bound, limit if wraps else 0)


def margin_of(connection: FixedConnection, shape: Shape) -> Margin:
    """Return the margin that sums of a connection from a source of `shape` take."""
    return _margin(connection, shape)


@singledispatch
def _margin(connection: FixedConnection, shape: Shape) -> Margin:
    return NO_MARGIN


@_margin.register(FixedConv)
def _(conv: FixedConv, shape: Shape) -> Margin:
    down, across = _axes(conv, shape, beyond=True)
    return Margin(*down.beyond, *across.beyond)


@singledispatch
def _laid_out(
    connection: FixedConnection, codes: Codes, pre: Site, post: Site, latency: int
) -> list[Pass]:
    """Return the passes of a connection."""
    raise no_such_kind(connection, "the engine")


@_laid_out.register(FixedDense)
def _(dense: FixedDense, codes: Codes, pre: Site, post: Site, latency: int) -> list[Pass]:
    delay = dense.delay
    if delay is not None and delay.any() and codes.exponent < 0:
        # Sums are shifted for each delay on its own.
        apart = [(int(d), np.where(delay == d, codes.codes, 0)) for d in np.unique(delay)]
    elif delay is None or not delay.any():
        apart = [(0, codes.codes)]
    else:
        return [_dense(codes, codes.codes, delay, pre, post, latency)]
    return [_dense(codes, part, None, pre, post, latency + late) for late, part in apart]


def _dense(
    codes: Codes, weight: IntArray, delay: IntArray | None, pre: Site, post: Site, late: int
) -> Pass:
    """Take rows where most synapses are there, lists where few are."""
    kind = number(codes)
    rows = weight.T[pre.order]
    latest = late + (0 if delay is None else int(delay.max(initial=0)))
    listed = int(np.count_nonzero(rows))
    # Blocks cost at least this; no need to lay them out to know.
    least = BLOCK * max(listed / LANES, min(listed, len(rows)))
    if delay is None and _ROW * len(rows) * post.pitch / LANES <= least:
        return _by_rows(codes, rows, post, late)
    source, place = np.nonzero(rows)
    offset = post.places[place]
    if delay is not None:
        offset = offset + post.pitch * delay.T[pre.order][source, place].astype(np.int64)
    order = np.lexsort((offset, source))
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(rows)))])
    lists = Lists(start, offset[order], rows[source, place][order].astype(kind))
    push, tables, cost = packed(lists, alike=codes.projection.pooling is not None)
    if delay is None and _ROW * len(rows) * post.pitch / LANES <= cost:
        return _by_rows(codes, rows, post, late)
    zero = np.zeros(1, np.int32)
    return made(codes, late, latest, push, ((len(rows), 1, False, zero, zero), tables))


def _by_rows(codes: Codes, rows: IntArray, post: Site, late: int) -> Pass:
    kind = number(codes)
    wide = np.zeros((len(rows) + 1, post.pitch), kind)
    wide[:-1, post.places] = rows
    row_of = np.arange(len(rows))
    if codes.projection.pooling is not None:
        # Neurons in one window of a pooling have the same weights.
        kept, row_of = np.unique(wide[:-1], axis=0, return_inverse=True)
        wide = np.concatenate([kept, wide[-1:]])
    fits = _PART // wide[:, 0].nbytes // WIDE
    width = WIDE * max(1, min(fits, -(-post.pitch // WIDE)))
    parts = -(-post.pitch // width)
    cut = np.zeros((len(wide), parts * width), kind)
    cut[:, : post.pitch] = wide
    apart = np.ascontiguousarray(cut.reshape(len(wide), parts, width).swapaxes(0, 1))
    return made(codes, late, late, kernels.push_rows, (row_of.astype(np.int32).ravel(), apart))


@_laid_out.register(FixedConv)
def _(conv: FixedConv, codes: Codes, pre: Site, post: Site, latency: int) -> list[Pass]:
    out, per_group, _, _ = conv.weight.shape
    channels, share = per_group * conv.groups, out // conv.groups
    down, across = _axes(conv, pre.shape, beyond=post.turned)
    kernel = conv.by_input(codes.codes)
    group = np.arange(channels) // per_group * share
    by_channel, by_row, by_col = post.strides
    parts = []
    for rows, row_taps in down.kinds:
        for cols, col_taps in across.kinds:
            taps = kernel[:, row_taps][:, :, col_taps].reshape(channels, -1)
            to = rows[:, None] * by_row + cols * by_col
            offset = (to[..., None] + np.arange(share) * by_channel).ravel()
            channel, entry = np.nonzero(taps)
            parts.append(
                (
                    np.bincount(channel, minlength=channels),
                    group[channel] * by_channel + offset[entry],
                    taps[channel, entry],
                )
            )
    count, offset, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    lists = Lists(np.concatenate([[0], np.cumsum(count)]), offset, weight.astype(number(codes)))
    kinds = channels * (down.kind[:, None] * len(across.kinds) + across.kind)
    starts = post.start + down.first[:, None] * by_row + across.first * by_col
    source = (
        channels,
        kinds.size,
        pre.turned,
        kinds.ravel().astype(np.int32),
        starts.ravel().astype(np.int32),
    )
    alike = codes.projection.pooling is not None
    maps = None if post.turned else maps_of(conv, codes, pre, post)
    if maps is None:
        # With channels last, offsets have come in order.
        push, tables, _ = packed(lists if post.turned else lists.risen(), alike=alike)
        return [made(codes, latency, latency, push, (source, tables))]
    single = listed(lists, alike=alike)
    tables = source, single, maps.grid, maps.runs
    return [made(codes, latency, latency, kernels.push_maps, tables, maps.places)]


class _Axis(NamedTuple):
    """Rows or columns of a source: for each the first that it reaches and its kind.

    `kinds` hold how far behind the first the others lie, and the taps that lead there; `beyond`,
    how many are reached before the first and behind the last that there is.
    """

    first: IntArray
    kind: IntArray
    kinds: list[tuple[IntArray, IntArray]]
    beyond: tuple[int, int]


def _axes(conv: FixedConv, shape: Shape, *, beyond: bool) -> tuple[_Axis, _Axis]:
    """Return rows and columns; `beyond`: with what lies beyond the border, unless that is most."""
    inside = [int(np.count_nonzero(axis >= 0)) for axis in conv.reached(shape)]
    found = []
    for axis, there, whole in zip(conv.reached(shape), inside, conv.axes(shape), strict=True):
        size, kernel, stride, padding, dilation, outputs = whole
        # So many windows before the first one meet the source.
        before = -(-dilation * (kernel - 1) // stride)
        every = size + padding + before * stride + 1
        free = reached(size, kernel, stride, padding + before * stride, dilation, every)
        fits = beyond and np.count_nonzero(free >= 0) <= _BEYOND * there
        found.append(_axis(free, before, outputs) if fits else _axis(axis, 0, outputs))
    down, across = found
    return down, across


def _axis(found: IntArray, before: int, outputs: int) -> _Axis:
    known: dict[tuple[bytes, bytes], int] = {}
    kinds: list[tuple[IntArray, IntArray]] = []
    first, kind = [], []
    for places in found:
        # From the last tap to the first, so that places rise.
        taps = np.nonzero(places >= 0)[0][::-1]
        to = places[taps] - before
        first.append(int(to[0]) if len(to) else 0)
        behind = to - first[-1]
        key = behind.tobytes(), taps.tobytes()
        if key not in known:
            known[key] = len(kinds)
            kinds.append((behind, taps))
        kind.append(known[key])
    last = max(f + int(kinds[k][0].max(initial=0)) for f, k in zip(first, kind, strict=True))
    beyond = max(0, -min(first)), max(0, last + 1 - outputs)
    return _Axis(np.array(first), np.array(kind), kinds, beyond)
