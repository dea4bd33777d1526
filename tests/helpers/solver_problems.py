"""Small layers with a Hessian of correlated inputs, and their losses by numpy's own solver."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def problem(seed: int, rows: int, n: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    samples = max(60, 2 * n)
    x = (rng.random((samples, n)) < 0.4) @ (np.eye(n) + 0.8 * rng.random((n, n)) / np.sqrt(n))
    H = 2 * x.T @ x / samples
    return rng.normal(size=(rows, n)), H + 0.01 * np.diagonal(H).mean() * np.eye(n)


def best_on(w: Array, H: Array, support: tuple[int, ...]) -> float:
    """Loss of one row with the best weights on a support."""
    index = list(support)
    best = np.zeros_like(w)
    if index:
        best[index] = np.linalg.solve(H[np.ix_(index, index)], (H @ w)[index])
    return float((w - best) @ H @ (w - best))
