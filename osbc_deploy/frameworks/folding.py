"""Fold what is linear between a connection and its neurons into the connection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.connections import Connection, Conv
from osbc_deploy.model.windows import AvgPool

__all__ = ["as_array", "batch_norm_factors", "fold_batch_norm", "pooling_weights"]


def batch_norm_factors(norm: Any) -> tuple[FloatArray, FloatArray]:
    """Return the factor and the offset (channels,) of inference-time batch normalization."""
    factor = 1.0 / np.sqrt(as_array(norm.running_var).astype(np.float64) + norm.eps)
    if norm.weight is not None:
        factor = factor * as_array(norm.weight)
    offset = -as_array(norm.running_mean).astype(np.float64) * factor
    return factor, offset if norm.bias is None else offset + as_array(norm.bias)


def fold_batch_norm(connection: Connection, norm: Any) -> Connection:
    """Fold inference-time batch normalization into weights and bias (in float64)."""
    dtype = connection.weight.dtype
    factor, offset = batch_norm_factors(norm)
    if connection.bias is not None:
        offset = offset + connection.bias * factor
    shape = (-1,) + (1,) * (connection.weight.ndim - 1)
    weight = connection.weight * factor.reshape(shape)
    return replace(connection, weight=weight.astype(dtype), bias=offset.astype(dtype))


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
