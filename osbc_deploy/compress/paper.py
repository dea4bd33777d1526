"""Quantization as the method was published, a baseline to be held against.

Shi, Li, Ward-Cherrier 2025 (arXiv 2506.03996) use GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2022):
a grid of all two's-complement codes that reaches to the largest weight of each output, fixed before
anything is pruned; one order of the inputs for all outputs, by what the inverse Hessian says of
them; the error of each weight fed to those still free. What was pruned stays 0, and what feedback
brought there is fed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.damping import DampedHessian
from osbc_deploy.compress.feedback import nearest_code
from osbc_deploy.compress.kernels import factorized, gathered, invert
from osbc_deploy.compress.quantize import levels
from osbc_deploy.jit import compiled

__all__ = ["quantize_as_published"]


def quantize_as_published(
    original: FloatArray,
    weights: Sequence[FloatArray],
    masks: Sequence[BoolArray],
    damped: Sequence[DampedHessian],
    bits: int,
    groups: int,
) -> tuple[FloatArray, IntArray]:
    """Return scales (groups, rows) and codes (groups, rows, fan_in).

    Parameters
    ----------
    original : ndarray (groups, rows, fan_in)
        The float weights, which the grid is made for.
    weights, masks : sequence of ndarray (rows, fan_in)
        After pruning.
    damped : sequence of DampedHessian
    bits : int
    groups : int
        Different scales there may be. Where outputs have more, the next larger ones are shared.
    """
    # One bit is the sign alone.
    steps = 1 if bits == 1 else ((1 << bits) - 1) / 2.0
    scale = _shared(np.abs(original).max(axis=2) / steps, groups)
    top = 0.0 if bits == 1 else float(levels(bits))
    codes = np.zeros(original.shape, np.int8)
    for g, (W, mask, d) in enumerate(zip(weights, masks, damped, strict=True)):
        inverse = np.empty_like(d.H)
        invert(factorized(d.H.copy()), inverse)
        # Inputs are visited by rising diagonal of the inverse, from the end of the factor.
        order = np.argsort(-np.diagonal(inverse), kind="stable")
        columns = d.live[order]
        factor = factorized(gathered(d.H, order))
        found = np.zeros((len(W), len(order)))
        _walk(W[:, columns], mask[:, columns], factor, scale[g], -top - 1.0, top, found)
        codes[g][:, columns] = found
    return scale, codes


def _shared(scale: FloatArray, groups: int) -> FloatArray:
    """Return scales with at most this many different values, none smaller than it was."""
    found = np.where(scale > 0, scale, scale.max(initial=0.0) or 1.0)
    values = np.unique(found)
    if len(values) > groups:
        ends = (np.arange(1, groups + 1) * len(values)) // groups - 1
        found = values[ends][np.searchsorted(values[ends], found)]
    return found


@compiled
def _walk(W: Any, mask: Any, U: Any, scale: Any, low: float, top: float, codes: Any) -> None:
    rows, n = W.shape
    turned = U.T.copy()
    fed = np.empty(n)
    for r in range(rows):
        fed[:] = 0.0
        for i in range(n - 1, -1, -1):
            if mask[r, i]:
                codes[r, i] = nearest_code(W[r, i] + fed[i] / U[i, i], scale[r], low, top)
            error, row = W[r, i] - codes[r, i] * scale[r], turned[i]
            for j in range(i):
                fed[j] = fed[j] + error * row[j]
