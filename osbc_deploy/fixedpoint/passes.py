"""How projections are laid out for the kernels: by presynaptic neuron, one layout for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csc_array

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedProjection
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape

__all__ = ["Pass", "passes_of"]

_DENSE_FROM = 0.08
"""Density from which adding whole rows is faster than following lists (measured)."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Synapses that a kernel can deliver at one go.

    `direct` ones add to the activation itself; the others to a sum of their own, which is
    shifted right by `exponent`, wrapped and reordered on its way.
    """

    post: int
    graded: bool
    latency: int
    push: Callable[..., None]
    tables: tuple[Any, ...]
    bound: int
    exponent: int = 0
    wrap: int = 0
    channels: int = 1

    @property
    def direct(self) -> bool:
        """Whether it adds to the activation itself."""
        return not (self.exponent or self.wrap) and self.channels == 1


Made: TypeAlias = Callable[..., Pass]


def passes_of(
    projection: FixedProjection, post: int, network: FixedPointNetwork, peak: int
) -> list[Pass]:
    """Return a projection as the kernels take it.

    Its exponent is folded into its weights where no bit is lost.

    Parameters
    ----------
    projection : FixedProjection
    post : int
        Number of the population it leads to.
    network : FixedPointNetwork
    peak : int
        Largest magnitude of a graded input.
    """
    weight, right = _folded(projection.connection.weight.astype(np.int64), projection.weight_exp)
    bound = widest_sum(weight) * (peak if projection.graded else 1)
    latency = network.latency(projection)

    def made(push: Any, tables: tuple[Any, ...], late: int = 0, **rest: Any) -> Pass:
        # A sum that cannot reach the limit need not be wrapped.
        limit = network.formats.state_limit
        wrap = limit if projection.connection.wraps and bound >= limit else 0
        return Pass(
            post, projection.graded, latency + late, push, tables, bound, right, wrap, **rest
        )

    return _laid_out(projection.connection, weight, network.shape_of(projection.pre), right, made)


@singledispatch
def _laid_out(
    connection: FixedConnection, weight: IntArray, shape: Shape, right: int, made: Made
) -> list[Pass]:
    """Return the passes of a connection.

    Parameters
    ----------
    connection : FixedConnection
    weight : ndarray of int64
        Its weights, with the exponent folded in.
    shape : tuple of int
        Of the source.
    right : int
        Places that sums are still shifted right.
    made : callable
        Completes a pass of a kernel and its tables.
    """
    raise no_such_kind(connection, "the engine")


@_laid_out.register(FixedDense)
def _dense(dense: FixedDense, weight: IntArray, shape: Shape, right: int, made: Made) -> list[Pass]:
    """Take rows where most synapses are there, lists where few are."""
    delay = dense.delay
    if delay is None or not delay.any():
        return [made(*_dense_tables(weight))]
    if right == 0:
        return [made(kernels.push_delayed, _delayed_tables(weight, delay))]
    # Sums are shifted for each delay on its own.
    return [
        made(*_dense_tables(np.where(delay == d, weight, 0)), late=int(d)) for d in np.unique(delay)
    ]


@_laid_out.register(FixedConv)
def _conv(conv: FixedConv, weight: IntArray, shape: Shape, right: int, made: Made) -> list[Pass]:
    """Take the kernel around each spike, channels last."""
    return [made(kernels.push_conv, _conv_tables(conv, weight, shape), channels=len(weight))]


def _folded(weight: IntArray, exponent: int) -> tuple[IntArray, int]:
    """Return weights with the exponent in them, and the right shift that is left to do."""
    if exponent >= 0:
        return weight << exponent, 0
    if (weight & ((1 << -exponent) - 1)).any():
        return weight, -exponent
    return weight >> -exponent, 0


def _narrow(weight: IntArray) -> IntArray:
    """Return the weights in the smallest type: less to fetch for every spike."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for kind in (np.int8, np.int16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(weight, kind)
    return np.ascontiguousarray(weight, np.int64)


def _index_type(size: int) -> type:
    return np.uint16 if size <= 2**16 else np.uint32


def _dense_tables(weight: IntArray) -> tuple[Any, tuple[Any, ...]]:
    if np.count_nonzero(weight) >= _DENSE_FROM * weight.size:
        return kernels.push_dense, (_narrow(weight.T),)
    columns = csc_array(weight)
    columns.sort_indices()
    return kernels.push_sparse, (
        columns.indptr.astype(np.int64),
        columns.indices.astype(_index_type(len(weight))),
        _narrow(columns.data),
    )


def _delayed_tables(weight: IntArray, delay: IntArray) -> tuple[Any, ...]:
    pre, post = np.nonzero(weight.T)
    start = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=weight.shape[1]))])
    return (
        start.astype(np.int64),
        post.astype(_index_type(len(weight))),
        _narrow(weight[post, pre]),
        delay[post, pre].astype(np.int64),
    )


def _conv_tables(conv: FixedConv, weight: IntArray, shape: Shape) -> tuple[Any, ...]:
    out, per_group, kh, kw = weight.shape
    share = out // conv.groups
    _, height, width = shape
    cols = conv.output_shape(shape)[2]
    # Columns reversed: what one spike touches lies together.
    kernel = conv.by_input(weight)[:, :, ::-1].reshape(-1, kh, kw * share)
    down, across = (_rising(axis) for axis in conv.reached(shape))
    sizes = (height, width, cols * out, per_group, share)
    return _narrow(kernel), down, _runs(*across, kw, share, out), tuple(int(x) for x in sizes)


def _rising(reached: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return where the entries of each place of the source start; their places and their taps."""
    # From the last tap to the first, so that places rise.
    found = reached[:, ::-1]
    valid = found >= 0
    start = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
    tap = reached.shape[1] - 1 - np.nonzero(valid)[1]
    return start.astype(np.int64), found[valid], tap


def _runs(
    start: IntArray, reached: IntArray, tap: IntArray, taps: int, share: int, channels: int
) -> tuple[IntArray, ...]:
    """Join taps that lie side by side both in the kernel and in the result."""
    reversed_tap = taps - 1 - tap
    first = np.ones(len(reached), bool)
    if share == channels:
        first[1:] = (np.diff(reached) != 1) | (np.diff(reversed_tap) != 1)
        first[start[:-1][start[:-1] < len(first)]] = True
    run = np.cumsum(first) - 1
    length = np.bincount(run, minlength=int(first.sum()))
    counts = np.concatenate([[0], np.cumsum(first)])
    return (
        counts[start].astype(np.int64),
        (reached[first] * channels).astype(np.int64),
        (reversed_tap[first] * share).astype(np.int64),
        (length * share).astype(np.int64),
    )
