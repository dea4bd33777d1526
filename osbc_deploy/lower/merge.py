"""Merge the pooling in front of a connection into its weights, exactly, and take it out again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import singledispatch

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.connections import KINDS, FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.network import Pooling
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.windows import AvgPool, Pair, Shape

__all__ = ["expand", "inexact", "merged_size", "pooling_of", "separate", "shifted"]


def expand(projection: Projection, codes: IntArray, shape: Shape) -> tuple[FixedConnection, int]:
    """Merge the pooling in front of a connection into its weights.

    A pooling adds up spikes, so its window is repeated weights: a dense weight is copied to every
    spike of its window, a kernel grows to ``s_p (d (k - 1)) + k_p`` with stride ``s_p s``.

    Returns
    -------
    connection : FixedConnection
        Of plain codes.
    divisor : int
        By which the pooling divides; it goes into the scale.
    """
    connection, pool = projection.connection, projection.pool
    plain = KINDS[connection.kind](codes, **connection.geometry)
    if pool is None:
        return plain, 1
    if pool.kernel == pool.stride == (1, 1) and not any(pool.padding):
        return plain, pool.divisor
    if inexact(projection, shape):
        raise ChipLimitError(
            "network: a pooling that cannot be merged into the convolution after it",
            [
                f"{projection.name}: AvgPool2d(kernel {pool.kernel}, stride {pool.stride}, padding "
                f"{pool.padding}) of {shape} before Conv2d(padding "
                f"{connection.geometry['padding']})"
            ],
            "Use pooling windows that tile their input, or a convolution without padding.",
        )
    return _merged(plain, pool, shape), pool.divisor


def pooling_of(projection: Projection) -> Pooling | None:
    """Return the pooling that :func:`expand` merges, if its windows tile the source."""
    pool = projection.pool
    if pool is None or pool.kernel != pool.stride or any(pool.padding):
        return None
    if pool.kernel == (1, 1):
        return None
    return Pooling(pool.kernel, projection.connection.geometry.get("dilation", (1, 1)))


def separate(connection: FixedConnection, pooling: Pooling, shape: Shape) -> FixedConnection:
    """Return the connection as it is behind its pooling.

    Parameters
    ----------
    connection : FixedConnection
        With the pooling merged.
    pooling : Pooling
    shape : (channels, rows, columns)
        Of the source, before the pooling.

    Raises
    ------
    ValueError
        When these weights are not what merging that pooling makes.
    """
    pool = AvgPool(pooling.window, pooling.window)
    plain = _behind(connection, pooling, shape)
    # What is impossible may be too large to try.
    if plain is None or not _same(_merged(plain, pool, shape), connection):
        rows, cols = pooling.window
        raise ValueError(f"weights are not those of a pooling of {rows} x {cols}")
    return plain


def _same(one: FixedConnection, other: FixedConnection) -> bool:
    return np.array_equal(one.weight, other.weight) and one.geometry == other.geometry


@singledispatch
def _behind(connection: FixedConnection, pooling: Pooling, shape: Shape) -> FixedConnection | None:
    """Return what may be the connection behind a pooling; None where none can be."""
    return None


@_behind.register(FixedDense)
def _(dense: FixedDense, pooling: Pooling, shape: Shape) -> FixedConnection | None:
    rows, cols = pooling.window
    c, h, w = AvgPool(pooling.window, pooling.window).output_shape(shape)
    spread = dense.weight.reshape(-1, *shape)
    inside = spread[:, :, : h * rows : rows, : w * cols : cols]
    plain = FixedDense(inside.reshape(len(spread), c * h * w))
    return plain if rows <= shape[1] and cols <= shape[2] else None


@_behind.register(FixedConv)
def _(conv: FixedConv, pooling: Pooling, shape: Shape) -> FixedConnection | None:
    (rows, cols), (dy, dx) = pooling.window, pooling.dilation
    # Every window starts with a weight of its own.
    plain = FixedConv(
        conv.weight[:, :, :: rows * dy, :: cols * dx],
        (conv.stride[0] // rows, conv.stride[1] // cols),
        (conv.padding[0] // rows, conv.padding[1] // cols),
        pooling.dilation,
        conv.groups,
    )
    pool = AvgPool(pooling.window, pooling.window)
    return (
        plain
        if _merged_kernel(plain.weight.shape[2:], plain.dilation, pool) == conv.weight.shape[2:]
        else None
    )


@singledispatch
def _merged(connection: FixedConnection, pool: AvgPool, shape: Shape) -> FixedConnection:
    """Return a connection that does what the pooling and a plain one do one after the other."""
    raise no_such_kind(connection, "the merging of poolings")


@_merged.register(FixedDense)
def _(dense: FixedDense, pool: AvgPool, shape: Shape) -> FixedConnection:
    weight, (sh, sw), (ph, pw) = dense.weight, pool.stride, pool.padding
    c, h, w = shape
    _, rows, cols = pool.output_shape(shape)
    pooled = weight.reshape(len(weight), c, rows, cols).astype(np.int64)
    spread = np.zeros((len(weight), c, h + 2 * ph, w + 2 * pw), np.int64)
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            spread[:, :, i : i + sh * (rows - 1) + 1 : sh, j : j + sw * (cols - 1) + 1 : sw] += (
                pooled
            )
    inside = spread[:, :, ph : ph + h, pw : pw + w]
    return FixedDense(inside.reshape(len(weight), -1))


@_merged.register(FixedConv)
def _(conv: FixedConv, pool: AvgPool, shape: Shape) -> FixedConnection:
    weight, (sh, sw), (ph, pw) = conv.weight, pool.stride, pool.padding
    kernel = np.zeros(
        (*weight.shape[:2], *_merged_kernel(weight.shape[2:], conv.dilation, pool)), np.int64
    )
    rows, cols = (size - k + 1 for size, k in zip(kernel.shape[2:], pool.kernel, strict=True))
    dh, dw = conv.dilation
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            kernel[:, :, i : i + rows : sh * dh, j : j + cols : sw * dw] += weight
    return FixedConv(
        kernel,
        (sh * conv.stride[0], sw * conv.stride[1]),
        (ph + sh * conv.padding[0], pw + sw * conv.padding[1]),
        (1, 1),
        conv.groups,
    )


def _merged_kernel(kernel: Shape, dilation: Pair, pool: AvgPool) -> Pair:
    """Return rows and columns of a kernel with a pooling merged."""
    rows, cols = (
        s * d * (k - 1) + p
        for s, d, k, p in zip(pool.stride, dilation, kernel, pool.kernel, strict=True)
    )
    return rows, cols


def inexact(projection: Projection, shape: Shape) -> bool:
    """Tell whether no single connection does what a pooling of `shape` and the one behind it do.

    A merged kernel sees windows at the places where a convolution pads with zeros; they must not
    reach into the source.
    """
    pool, connection = projection.pool, projection.connection
    if pool is None or not connection.convolutional:
        return False
    padding = connection.geometry["padding"]
    windows = pool.output_shape(shape)[1:]
    axes = zip(shape[1:], windows, padding, pool.stride, pool.padding, strict=True)
    # So begins the window behind the last; one before the first reaches in only if that does, too.
    return any(
        padded and stride * count - before < size for size, count, padded, stride, before in axes
    )


def merged_size(projection: Projection, shape: Shape) -> int:
    """Return how many weights a connection has with the pooling before it merged."""
    pool, weight = projection.pool, projection.connection.weight
    if pool is None:
        return int(weight.size)
    if not projection.connection.convolutional:
        return len(weight) * math.prod(shape)
    kernel = _merged_kernel(weight.shape[2:], projection.connection.geometry["dilation"], pool)
    return int(math.prod(weight.shape[:2]) * math.prod(kernel))


def shifted(connection: FixedConnection, amount: int) -> FixedConnection:
    """Return the connection with all weights shifted left."""
    return replace(connection, weight=connection.weight.astype(np.int64) << amount)
