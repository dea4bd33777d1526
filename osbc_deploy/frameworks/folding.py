"""Fold what is linear between a connection and its neurons into the connection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.graph import AvgPool, Conv, Dense

__all__ = ["as_array", "fold_batch_norm", "pooled_convolution", "pooling_weights"]


def fold_batch_norm(connection: Dense | Conv, norm: Any) -> Dense | Conv:
    """Fold inference-time batch normalization into weights and bias (in float64)."""
    dtype = connection.weight.dtype
    variance = as_array(norm.running_var).astype(np.float64)
    factor = 1.0 / np.sqrt(variance + norm.eps)
    if norm.weight is not None:
        factor = factor * as_array(norm.weight)
    offset = -as_array(norm.running_mean).astype(np.float64) * factor
    if norm.bias is not None:
        offset = offset + as_array(norm.bias)
    if connection.bias is not None:
        offset = offset + connection.bias * factor
    shape = (-1,) + (1,) * (connection.weight.ndim - 1)
    weight = connection.weight * factor.reshape(shape)
    return replace(connection, weight=weight.astype(dtype), bias=offset.astype(dtype))


def pooled_convolution(conv: Conv, pool: AvgPool) -> Conv:
    """Return the single convolution equal to `conv` followed by an average pooling.

    Pooling averages the currents of shifted windows, so the kernels add up at their shifts:
    kernel ``d (k - 1) + 1 + s (p - 1)``, stride ``s`` times the pooling's.
    """
    out, channels, kh, kw = conv.weight.shape
    size = [
        d * (k - 1) + 1 + s * (p - 1)
        for d, k, s, p in zip(conv.dilation, (kh, kw), conv.stride, pool.kernel, strict=True)
    ]
    kernel = np.zeros((out, channels, *size))
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            y, x = i * conv.stride[0], j * conv.stride[1]
            window = kernel[
                :,
                :,
                y : y + conv.dilation[0] * (kh - 1) + 1 : conv.dilation[0],
                x : x + conv.dilation[1] * (kw - 1) + 1 : conv.dilation[1],
            ]
            window += conv.weight
    share = pool.kernel[0] * pool.kernel[1] / pool.divisor
    return Conv(
        weight=(kernel / pool.divisor).astype(conv.weight.dtype),
        bias=None if conv.bias is None else (conv.bias * share).astype(conv.bias.dtype),
        stride=(conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1]),
        padding=conv.padding,
        groups=conv.groups,
    )


def pooling_weights(pool: AvgPool, channels: int) -> Conv:
    """Return the depthwise convolution that an average pooling is."""
    weight = np.full((channels, 1, *pool.kernel), 1.0 / pool.divisor, np.float32)
    return Conv(weight, None, pool.stride, pool.padding, groups=channels)


def as_array(value: Any) -> FloatArray:
    """Return a tensor or number as an array in single or double precision."""
    if not isinstance(value, torch.Tensor):
        return np.asarray(value, np.float64)
    wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
    array: FloatArray = wide.detach().cpu().numpy()
    return array
