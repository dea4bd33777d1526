"""Merge the pooling in front of a connection into its weights, exactly, and take it out again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.network import FixedConnection, FixedConv, FixedDense, Pooling
from osbc_deploy.model.graph import AvgPool, Conv, Pair, Projection, Shape

__all__ = ["expand", "pooling_of", "separate", "shifted"]


def expand(projection: Projection, codes: IntArray, shape: Shape) -> tuple[FixedConnection, int]:
    """Merge the pooling in front of a connection into its weights.

    A pooling adds up spikes, so its window is repeated weights: a dense weight is copied to every
    spike of its window, a kernel grows to ``s_p (d (k - 1)) + k_p`` with stride ``s_p s``.

    Returns
    -------
    connection : FixedDense or FixedConv
        Of plain codes.
    divisor : int
        By which the pooling divides; it goes into the scale.
    """
    connection, pool = projection.connection, projection.pool
    plain: FixedConnection = FixedDense(codes)
    if isinstance(connection, Conv):
        plain = FixedConv(
            codes, connection.stride, connection.padding, connection.dilation, connection.groups
        )
    if pool is None:
        return plain, 1
    if isinstance(connection, Conv):
        _check_pool_then_conv(projection.name, pool, connection, shape)
    return _merged(plain, pool, shape), pool.divisor


def pooling_of(projection: Projection) -> Pooling | None:
    """Return the pooling that :func:`expand` merges, if its windows tile the source."""
    connection, pool = projection.connection, projection.pool
    if pool is None or pool.kernel != pool.stride or any(pool.padding):
        return None
    return Pooling(pool.kernel, connection.dilation if isinstance(connection, Conv) else (1, 1))


def separate(connection: FixedConnection, pooling: Pooling, shape: Shape) -> FixedConnection:
    """Return the connection as it is behind its pooling.

    Parameters
    ----------
    connection : FixedDense or FixedConv
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
    (rows, cols), (dy, dx) = pooling.window, pooling.dilation
    c, h, w = pool.output_shape(shape)
    plain: FixedConnection
    if isinstance(connection, FixedConv):
        # Every window starts with a weight of its own.
        plain = FixedConv(
            connection.weight[:, :, :: rows * dy, :: cols * dx],
            (connection.stride[0] // rows, connection.stride[1] // cols),
            (connection.padding[0] // rows, connection.padding[1] // cols),
            pooling.dilation,
            connection.groups,
        )
        possible = _merged_kernel(plain, pool) == connection.weight.shape[2:]
    else:
        spread = connection.weight.reshape(-1, *shape)
        inside = spread[:, :, : h * rows : rows, : w * cols : cols]
        plain = FixedDense(inside.reshape(len(spread), c * h * w))
        possible = rows <= shape[1] and cols <= shape[2]
    # What is impossible may be too large to try.
    if not possible or not _same(_merged(plain, pool, shape), connection):
        raise ValueError(f"weights are not those of a pooling of {rows} x {cols}")
    return plain


def _same(one: FixedConnection, other: FixedConnection) -> bool:
    geometry = ("stride", "padding", "dilation")
    return np.array_equal(one.weight, other.weight) and all(
        getattr(one, name, None) == getattr(other, name, None) for name in geometry
    )


def _merged_kernel(plain: FixedConv, pool: AvgPool) -> Pair:
    """Return rows and columns of a kernel with a pooling merged."""
    rows, cols = (
        s * d * (k - 1) + p
        for s, d, k, p in zip(
            pool.stride, plain.dilation, plain.weight.shape[2:], pool.kernel, strict=True
        )
    )
    return rows, cols


def _merged(plain: FixedConnection, pool: AvgPool, shape: Shape) -> FixedConnection:
    """Return a connection that does what the pooling and a plain one do one after the other."""
    weight, (sh, sw), (ph, pw) = plain.weight, pool.stride, pool.padding
    if isinstance(plain, FixedConv):
        kernel = np.zeros((*weight.shape[:2], *_merged_kernel(plain, pool)), np.int64)
        rows, cols = (size - k + 1 for size, k in zip(kernel.shape[2:], pool.kernel, strict=True))
        dh, dw = plain.dilation
        for i in range(pool.kernel[0]):
            for j in range(pool.kernel[1]):
                kernel[:, :, i : i + rows : sh * dh, j : j + cols : sw * dw] += weight
        return FixedConv(
            kernel,
            (sh * plain.stride[0], sw * plain.stride[1]),
            (ph + sh * plain.padding[0], pw + sw * plain.padding[1]),
            (1, 1),
            plain.groups,
        )
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


def _check_pool_then_conv(name: str, pool: AvgPool, connection: Conv, shape: Shape) -> None:
    """Refuse the poolings whose merge with a padded convolution would not be exact."""
    overlapping = any(k > s for k, s in zip(pool.kernel, pool.stride, strict=True))
    gaps = any(
        (size + 2 * p - k) % s
        for size, p, k, s in zip(shape[1:], pool.padding, pool.kernel, pool.stride, strict=True)
    )
    if overlapping or (any(connection.padding) and (gaps or any(pool.padding))):
        raise UnsupportedModelError(
            "network: a pooling that cannot be merged into the convolution after it",
            [
                f"{name}: AvgPool2d(kernel {pool.kernel}, stride {pool.stride}, padding "
                f"{pool.padding}) of {shape} before Conv2d(padding {connection.padding})"
            ],
            "Use pooling windows that tile their input, or a convolution without padding.",
        )


def shifted(connection: FixedConnection, amount: int) -> FixedConnection:
    """Return the connection with all weights shifted left."""
    return replace(connection, weight=connection.weight.astype(np.int64) << amount)
