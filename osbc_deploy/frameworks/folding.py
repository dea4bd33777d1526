"""What torch's tensors and normalizations are in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from osbc_deploy.arrays import FloatArray

__all__ = ["as_array", "batch_norm_factors"]


def batch_norm_factors(norm: Any) -> tuple[FloatArray, FloatArray]:
    """Return the factor and the offset (channels,) of inference-time batch normalization."""
    factor = 1.0 / np.sqrt(as_array(norm.running_var).astype(np.float64) + norm.eps)
    if norm.weight is not None:
        factor = factor * as_array(norm.weight)
    offset = -as_array(norm.running_mean).astype(np.float64) * factor
    return factor, offset if norm.bias is None else offset + as_array(norm.bias)


def as_array(value: Any) -> FloatArray:
    """Return a tensor or number as an array in single or double precision."""
    if not isinstance(value, torch.Tensor):
        return np.asarray(value, np.float64)
    wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
    array: FloatArray = wide.detach().cpu().numpy()
    return array
