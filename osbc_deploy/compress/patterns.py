"""Masks with a structure hardware can use: N of M, whole inputs, whole outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.elimination import eliminate_to_pattern
from osbc_deploy.compress.exact import quadratic
from osbc_deploy.compress.kernels import factorize, factorized, halfway_many, invert, subtract
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.jit import compiled
from osbc_deploy.options.notation import parsed_pattern

__all__ = ["Pattern", "input_order", "n_of_m_mask", "output_order"]


@dataclass(frozen=True)
class Pattern:
    """Which weights are removed together.

    Attributes
    ----------
    kind : {"weights", "n:m", "inputs", "outputs"}
        Single weights; at most N of every M consecutive inputs of an output; whole input neurons
        or channels; whole output neurons or channels.
    n, m : int
        Of "n:m".
    """

    kind: str = "weights"
    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``weights``, ``inputs``, ``outputs`` or N:M such as ``2:4``.

        Raises
        ------
        UsageError
        """
        return cls(*parsed_pattern(text))

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.kind == "n:m" else self.kind


def n_of_m_mask(
    W: FloatArray,
    H: FloatArray,
    live: IntArray,
    pattern: Pattern,
    fan_ins: Sequence[int] = (),
    space: Workspace | None = None,
) -> BoolArray:
    """Keep at most N of every M consecutive inputs, by elimination within that limit.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (m, m)
        Of the live inputs, positive definite.
    live : ndarray of int (m,)
    pattern : Pattern
        Of kind "n:m".
    fan_ins : sequence of int
        Inputs of each projection stacked in `W`: no group holds inputs of two.
    space : Workspace

    Returns
    -------
    ndarray of bool (rows, n)
        Weights on dead inputs are kept, the larger first, where the live ones leave room.
    """
    rows, n = W.shape
    fan_ins = fan_ins or (n,)
    # Larger groups hold no more than all inputs of a projection, and take memory for it.
    m = min(pattern.m, max(fan_ins))
    own = np.concatenate([np.arange(inputs) for inputs in fan_ins])
    group = np.cumsum(own % m == 0) - 1
    slot = group * m + own % m
    # Without effect on the loss, weights on dead inputs are worth less than any other.
    rank = np.where(np.isin(np.arange(n), live), 2.0 + np.max(np.abs(W), initial=0.0), np.abs(W))
    if len(live):
        removed = eliminate_to_pattern(W[:, live], H, group[live], pattern.n, space)
        np.put_along_axis(rank, live[removed.order], -1.0, axis=1)
    padded = np.full((rows, (int(group.max(initial=-1)) + 1) * m), -1.0)
    padded[:, slot] = rank
    folded = padded.reshape(rows, -1, m)
    place = np.argsort(np.argsort(-folded, axis=2, kind="stable"), axis=2)
    return np.asarray(((place < pattern.n) & (folded >= 0.0)).reshape(rows, -1)[:, slot])


def input_order(W: FloatArray, H: FloatArray, unit: int) -> tuple[IntArray, FloatArray]:
    """Order whole inputs by how much the layer misses them, removing the least missed in turn.

    All rows lose the same columns, so one inverse serves them all: a unit u costs
    ``sum_r w_u^T (Hinv_uu)^-1 w_u`` (Frantar, Singh, Alistarh 2022, eq. 5, summed over rows).

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    unit : int
        Columns that belong to one input neuron or channel.

    Returns
    -------
    order : ndarray of int (n / unit,)
        Units, the most valuable first.
    drop : ndarray (n / unit,)
        By how much the loss of all rows falls when the unit joins those before it.
    """
    n = W.shape[1]
    count = n // unit
    inverse = np.empty((n, n))
    invert(factorized(np.array(H, np.float64, order="C")), inverse)
    w = np.array(W.T, np.float64, order="C")
    alive = np.ones(count, bool)
    order, rise = np.empty(count, np.int64), np.empty(count)
    for step in range(count - 1, -1, -1):
        order[step], rise[step] = _remove_unit(w, inverse, alive, unit)
    return order, rise


@compiled
def _remove_unit(w: Any, inverse: Any, alive: Any, unit: int) -> tuple[int, float]:
    """Remove the least missed unit from `w` (n, rows), `inverse` and `alive`; its cost."""
    n, rows = w.shape
    best, least = -1, np.inf
    part = np.empty((unit, rows))
    for u in range(len(alive)):
        if not alive[u]:
            continue
        start = u * unit
        own = inverse[start : start + unit, start : start + unit].copy()
        factorize(own)
        part[:] = w[start : start + unit]
        halfway_many(own, part)
        cost = 0.0
        for i in range(unit):
            for r in range(rows):
                cost += part[i, r] * part[i, r]
        if best < 0 or cost < least:
            best, least = u, cost
    start = best * unit
    own = inverse[start : start + unit, start : start + unit].copy()
    columns = np.empty((unit, n))
    for i in range(unit):
        columns[i, : start + i] = inverse[: start + i, start + i]
        columns[i, start + i :] = inverse[start + i, start + i :]
    factorize(own)
    part[:] = w[start : start + unit]
    halfway_many(own, part)
    halfway_many(own, columns)
    subtract(w, columns, part, 0, n, 0, unit, 0, rows, False)
    subtract(inverse, columns, columns, 0, n, 0, unit, 0, n, True)
    alive[best] = False
    return best, least


def output_order(W: FloatArray, H: FloatArray) -> tuple[IntArray, FloatArray]:
    """Order whole outputs by the potential they have, ``w^T H w``.

    Returns
    -------
    order : ndarray of int (rows,)
        The most valuable first.
    drop : ndarray (rows,)
    """
    worth = quadratic(W, H)
    order = np.argsort(-worth, kind="stable")
    return order, worth[order]
