"""Merge the pooling in front of a connection into its weights, exactly."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.network import FixedConnection, FixedConv, FixedDense
from osbc_deploy.network.graph import AvgPool, Conv, Projection, Shape

__all__ = ["expand", "shifted"]


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
    if isinstance(connection, Conv):
        conv = FixedConv(
            codes, connection.stride, connection.padding, connection.dilation, connection.groups
        )
        if pool is None:
            return conv, 1
        _check_pool_then_conv(projection.name, pool, connection, shape)
        out, channels, kh, kw = codes.shape
        (dh, dw), (sh, sw) = connection.dilation, pool.stride
        kernel = np.zeros(
            (
                out,
                channels,
                sh * dh * (kh - 1) + pool.kernel[0],
                sw * dw * (kw - 1) + pool.kernel[1],
            ),
            np.int64,
        )
        for i in range(pool.kernel[0]):
            for j in range(pool.kernel[1]):
                kernel[
                    :,
                    :,
                    i : i + sh * dh * (kh - 1) + 1 : sh * dh,
                    j : j + sw * dw * (kw - 1) + 1 : sw * dw,
                ] += codes
        merged = FixedConv(
            kernel,
            (sh * connection.stride[0], sw * connection.stride[1]),
            (
                pool.padding[0] + sh * connection.padding[0],
                pool.padding[1] + sw * connection.padding[1],
            ),
            (1, 1),
            connection.groups,
        )
        return merged, pool.divisor
    if pool is None:
        return FixedDense(codes), 1
    c, h, w = shape
    _, rows, cols = pool.output_shape(shape)
    (ph, pw), (sh, sw) = pool.padding, pool.stride
    pooled = codes.reshape(len(codes), c, rows, cols).astype(np.int64)
    spread = np.zeros((len(codes), c, h + 2 * ph, w + 2 * pw), np.int64)
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            spread[:, :, i : i + sh * (rows - 1) + 1 : sh, j : j + sw * (cols - 1) + 1 : sw] += (
                pooled
            )
    inside = spread[:, :, ph : ph + h, pw : pw + w]
    return FixedDense(inside.reshape(len(codes), -1)), pool.divisor


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
    weight = connection.weight.astype(np.int64) << amount
    if isinstance(connection, FixedDense):
        return FixedDense(weight)
    return FixedConv(
        weight, connection.stride, connection.padding, connection.dilation, connection.groups
    )
