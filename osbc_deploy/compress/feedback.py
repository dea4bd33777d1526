"""The walk from input to input that rounds each weight and feeds its error back, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.exact import product
from osbc_deploy.jit import compiled

__all__ = ["POLISH", "nearest_code", "polish_row", "walk_row", "walk_shared"]

_BLOCK = 64
POLISH = 3
"""Rounds of single-code improvements after feedback; the third rarely finds any."""


@compiled
def nearest_code(w: float, scale: float, low: float, top: float) -> float:
    """Return :func:`.round_to_grid` of a number; `top` is 0 for one bit."""
    if top == 0.0:
        return -1.0 if w < 0.0 else 1.0
    return float(min(max(np.rint(w / scale), low), top))


@compiled
def walk_row(
    w: Any,
    U: Any,
    scales: Any,
    tops: Any,
    extra: float,
    codes: Any,
    lost: Any,
) -> None:
    """Quantize one row (n,) on each grid, with the factor `U` (n, n) of its support.

    Writes codes (grids, n) and losses (grids,).
    """
    n = len(w)
    turned, fed = U.T.copy(), np.empty(n)
    for k in range(len(tops)):
        scale, top, q = scales[k], tops[k], codes[k]
        fed[:] = 0.0
        total = 0.0
        for i in range(n - 1, -1, -1):
            q[i] = nearest_code(w[i] + fed[i] / U[i, i], scale, -top - extra, top)
            error = w[i] - q[i] * scale
            left = U[i, i] * error + fed[i]
            total += left * left
            rest, row = fed[:i], turned[i, :i]
            for j in range(i):
                rest[j] = rest[j] + error * row[j]
        lost[k] = total


@compiled
def polish_row(w: Any, H: Any, scales: Any, tops: Any, extra: float, codes: Any, lost: Any) -> None:
    """Move single codes of one row (n,) to where its loss is least; `H` (n, n) of its support.

    Changes codes (grids, n) and writes losses (grids,).
    """
    n = len(w)
    slope = np.empty(n)
    for k in range(len(tops)):
        scale, top, q = scales[k], tops[k], codes[k]
        slope[:] = 0.0
        for i in range(n):
            error, row = w[i] - q[i] * scale, H[i]
            for j in range(n):
                slope[j] = slope[j] + error * row[j]
        for _ in range(POLISH):
            moved = False
            for i in range(n):
                own = scale * q[i] + slope[i] / H[i, i]
                wanted = nearest_code(own, scale, -top - extra, top)
                if wanted != q[i]:
                    moved = True
                    change, row = scale * (wanted - q[i]), H[i]
                    for j in range(n):
                        slope[j] = slope[j] - change * row[j]
                    q[i] = wanted
            if not moved:
                break
        total = 0.0
        for i in range(n):
            total += slope[i] * (w[i] - q[i] * scale)
        lost[k] = total


def walk_shared(
    W: FloatArray, U: FloatArray, scale: FloatArray, low: float, top: float
) -> tuple[FloatArray, FloatArray]:
    """Return codes and losses of rows that share a factor, from the last column to the first."""
    n = W.shape[1]
    codes, error, lost = np.zeros_like(W), np.zeros_like(W), np.zeros(len(W))
    for end in range(n, 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        fed = product(error[:, end:], U[start:end, end:].T, coarse=True)
        _walk_block(W, U, scale, low, top, start, end, fed, codes, error, lost)
    return codes, lost


@compiled
def _walk_block(
    W: Any,
    U: Any,
    scale: Any,
    low: float,
    top: float,
    start: int,
    end: int,
    fed: Any,
    codes: Any,
    error: Any,
    lost: Any,
) -> None:
    """Walk over some columns; `fed` (rows, columns) is what those behind them feed back."""
    turned = U[start:end, start:end].T.copy()
    for r in range(len(W)):
        for i in range(end - 1, start - 1, -1):
            own = fed[r, i - start]
            codes[r, i] = nearest_code(W[r, i] + own / U[i, i], scale[r], low, top)
            error[r, i] = W[r, i] - codes[r, i] * scale[r]
            left = U[i, i] * error[r, i] + own
            lost[r] += left * left
            rest, row = fed[r, : i - start], turned[i - start]
            for j in range(len(rest)):
                rest[j] = rest[j] + error[r, i] * row[j]
