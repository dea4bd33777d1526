"""Quantization on the grid the chip stores: symmetric integers times a scale per output.

A scale per output costs nothing in weights, because the neuron's threshold and bias absorb it;
but every distinct threshold is a neuron group of the core, so the number of different scales is
limited and they are chosen together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.kernels import factorized, gathered
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.jit import compiled

__all__ = [
    "choose_scales",
    "levels",
    "nearest_code",
    "quantize_rows",
    "round_to_grid",
    "search_scales",
    "windows",
]

_OCTAVE = (1.0, 0.890899, 0.793701, 0.707107, 0.629961, 0.561231)
"""Steps down from a scale to half of it, about equal. Numbers, not powers: libraries differ in the
last bit of a power."""

_OCTAVES = 6
"""Scales reach this far down from the one that holds the largest weight of the smallest row."""

_SPREAD = 10
"""Most octaves between the scales of a layer's rows. Thresholds differ as scales do, and have to be
integers: beyond that the smallest threshold would be too coarse."""

_MOST_CANDIDATES = 12
"""Scales of a row tried with error feedback; a range of two octaves."""

_BLOCK = 64
_POLISH = 3
"""Rounds of single-code improvements after feedback; the third rarely finds any."""

_SHARED_ROWS = 256
"""Rows of a batch that share one factor."""


def levels(bits: int) -> int:
    """Return the largest code of a symmetric grid: ``2^(bits-1) - 1``, and 1 for one bit.

    One bit is the sign alone, codes -1 and +1.
    """
    return max(1, (1 << (bits - 1)) - 1)


def round_to_grid(w: FloatArray, scale: FloatArray, bits: int, *, full: bool = False) -> FloatArray:
    """Return the nearest codes of `w` on the grid of `scale` (broadcast), as floats.

    All that two's complement holds are codes where `full`: one more below zero.
    """
    if bits == 1:
        return np.where(w < 0, -1.0, 1.0)
    top = levels(bits)
    return np.clip(np.rint(w / scale), -top - int(full), top)


def search_scales(
    W: FloatArray, mask: BoolArray, importance: FloatArray, bits: int, *, full: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Return candidate scales and every row's error when rounded to nearest on them.

    Parameters
    ----------
    W : ndarray (rows, n)
    mask : ndarray of bool (rows, n)
        Weights that are kept; the others do not count.
    importance : ndarray (rows, n) or broadcastable
        Weight of each squared error: the diagonal of the Hessian.
    bits : int
        1 to 8.
    full : bool
        As in :func:`round_to_grid`.

    Returns
    -------
    candidates : ndarray (c,)
        Positive, geometric, the largest first.
    errors : ndarray (rows, c)
    """
    weighting = np.where(mask, importance, 0.0)
    # A weight that changes nothing may be clipped.
    largest = np.where(weighting > 0, np.abs(W), 0.0).max(axis=1, initial=0.0)
    top = float(largest.max(initial=0.0))
    if top == 0.0:
        return np.ones(1), np.zeros((len(W), 1))
    spread = round(math.log2(top / largest[largest > 0].min()), 6)
    count = int(len(_OCTAVE) * (min(spread, _SPREAD) + _OCTAVES))
    octave, step = np.divmod(np.arange(count), len(_OCTAVE))
    candidates = top / levels(bits) * np.ldexp(np.array(_OCTAVE)[step], -octave)
    errors = np.empty((len(W), count))
    for start in range(0, len(W), _SHARED_ROWS):
        part = slice(start, start + _SHARED_ROWS)
        for k, scale in enumerate(candidates):
            rounded = round_to_grid(W[part], scale, bits, full=full) * scale
            errors[part, k] = (weighting[part] * (W[part] - rounded) ** 2).sum(axis=1)
    return candidates, errors


def windows(errors: FloatArray) -> IntArray:
    """Return for every row the few candidates worth trying with error feedback, (rows, few)."""
    best = errors.argmin(axis=1)
    count = min(_MOST_CANDIDATES, errors.shape[1])
    # Feedback prefers slightly smaller scales than rounding: it can afford to clip.
    first = np.clip(best - count // 3, 0, errors.shape[1] - count)
    return np.asarray(first[:, None] + np.arange(count))


def choose_scales(candidates: FloatArray, errors: FloatArray, groups: int) -> FloatArray:
    """Choose the scale of every row from at most `groups` different values.

    Candidates are added one by one, and exchanged while that helps, so that the sum over rows of
    each row's best error is least.

    Parameters
    ----------
    candidates : ndarray (c,)
    errors : ndarray (rows, c)
    groups : int
        Number of different scales allowed, at least 1.

    Returns
    -------
    ndarray (rows,)
    """
    chosen = _codebook(errors, min(groups, len(errors)))
    return np.asarray(candidates[chosen[errors[:, chosen].argmin(axis=1)]])


def _codebook(errors: FloatArray, size: int) -> IntArray:
    """Return at most `size` columns whose row-wise minimum has a small sum (add, then swap)."""
    chosen: list[int] = []
    best = np.full(len(errors), np.inf)
    while len(chosen) < size:
        totals = np.minimum(best[:, None], errors).sum(axis=0)
        pick = int(totals.argmin())
        if pick in chosen:
            break
        chosen.append(pick)
        best = np.minimum(best, errors[:, pick])
    improved = len(chosen) > 1
    while improved:
        improved = False
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            rest = errors[:, others].min(axis=1)
            totals = np.minimum(rest[:, None], errors).sum(axis=0)
            pick = int(totals.argmin())
            if totals[pick] < totals[chosen[place]] * (1.0 - 1e-12):
                chosen[place] = pick
                improved = True
    return np.array(sorted(set(chosen)))


def quantize_rows(
    W: FloatArray,
    H: FloatArray,
    mask: BoolArray,
    scales: Sequence[FloatArray],
    widths: Sequence[int],
    space: Workspace | None = None,
    *,
    polish: bool = True,
    full: bool = False,
) -> tuple[IntArray, FloatArray]:
    """Quantize weight by weight, the error of each made up for by the weights still free.

    Inputs are visited in order of falling ``H_ii``. With ``R^T R`` the Cholesky factorization of
    `H` on a row's support in the opposite order, a weight's code is the nearest to

    ``w_i + sum_j R_ij (w_j - q_j) / R_ii``, j the weights done already,

    which is what GPTQ's updates (Frantar, Ashkboos, Hoefler, Alistarh 2022) amount to, without an
    inverse: the nearest-plane walk of Babai 1986. The factor depends on the support alone, so all
    scales and widths share it. At last single codes move to where the loss is least, given all
    others, until none does (coordinate descent).

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    mask : ndarray of bool (rows, n)
        Weights outside stay 0.
    scales : sequence of ndarray (rows,)
        One for each result wanted.
    widths : sequence of int
        Bits of each, 1 to 8.
    space : Workspace
    polish : bool
        Whether to improve single codes at the end.
    full : bool
        As in :func:`round_to_grid`.

    Returns
    -------
    codes : ndarray of int8 (results, rows, n)
        The quantized weight is ``scale * code``.
    losses : ndarray (results, rows)
        Against `W` where `mask` holds; 0 elsewhere.
    """
    space = space or Workspace()
    codes = np.zeros((len(widths), *W.shape), np.int8)
    lost = np.zeros((len(widths), len(W)))
    # Falling importance is walked from the end of the rising order.
    rising = np.argsort(np.diagonal(H), kind="stable")
    if not W.size:
        return codes, lost
    tops = np.array([0 if bits == 1 else levels(bits) for bits in widths], np.float64)
    extra = float(full)
    by_row = np.stack([np.broadcast_to(scale, len(W)) for scale in scales], axis=1)
    if mask.all():
        ordered = gathered(H, rising)
        factor = factorized(ordered.copy())

        def together(batch: slice) -> None:
            for start in range(batch.start * _SHARED_ROWS, batch.stop * _SHARED_ROWS, _SHARED_ROWS):
                part = slice(start, min(start + _SHARED_ROWS, len(W)))
                values = np.array(W[part][:, rising], np.float64)
                for k, top in enumerate(tops):
                    scale = np.ascontiguousarray(by_row[part, k])
                    q, found = _walk_shared(values, factor, scale, -top - extra, top)
                    if polish:
                        q, found = _polish_shared(values, ordered, q, scale, widths[k], full=full)
                    codes[k, part][:, rising] = q
                    lost[k, part] = found

        shared = -(-len(W) // _SHARED_ROWS)
        space.batches(together, shared, 64 * _SHARED_ROWS * W.shape[1])
        return codes, lost

    def apart(batch: slice) -> None:
        for row in range(batch.start, batch.stop):
            columns = rising[mask[row][rising]]
            block = gathered(H, columns)
            values = np.array(W[row, columns], np.float64)
            q = np.empty((len(tops), len(columns)))
            found = np.empty(len(tops))
            factor = factorized(block.copy())
            _quantize(values, block, factor, by_row[row], tops, extra, polish, q, found)
            codes[:, row, columns] = q
            lost[:, row] = found

    most = int(mask.sum(axis=1).max())
    space.batches(apart, len(W), 24 * most * most + 32 * len(tops) * most + 1)
    return codes, lost


@compiled
def nearest_code(w: float, scale: float, low: float, top: float) -> float:
    """Return :func:`round_to_grid` of a number; `top` is 0 for one bit."""
    if top == 0.0:
        return -1.0 if w < 0.0 else 1.0
    return float(min(max(np.rint(w / scale), low), top))


@compiled
def _quantize(
    w: Any,
    H: Any,
    U: Any,
    scales: Any,
    tops: Any,
    extra: float,
    polish: bool,
    codes: Any,
    lost: Any,
) -> None:
    """Quantize one row (n,) on each grid; `H` (n, n) with its factor `U` are those of its support.

    Writes codes (grids, n) and losses (grids,).
    """
    n = len(w)
    turned = U.T.copy()
    fed, slope = np.empty(n), np.empty(n)
    for k in range(len(tops)):
        scale, top, q = scales[k], tops[k], codes[k]
        low = -top - extra
        fed[:] = 0.0
        total = 0.0
        for i in range(n - 1, -1, -1):
            q[i] = nearest_code(w[i] + fed[i] / U[i, i], scale, low, top)
            error = w[i] - q[i] * scale
            left = U[i, i] * error + fed[i]
            total += left * left
            rest, row = fed[:i], turned[i, :i]
            for j in range(i):
                rest[j] = rest[j] + error * row[j]
        if polish:
            slope[:] = 0.0
            for i in range(n):
                error, row = w[i] - q[i] * scale, H[i]
                for j in range(n):
                    slope[j] = slope[j] + error * row[j]
            for _ in range(_POLISH):
                moved = False
                for i in range(n):
                    wanted = nearest_code(scale * q[i] + slope[i] / H[i, i], scale, low, top)
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


def _walk_shared(
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


def _polish_shared(
    W: FloatArray,
    H: FloatArray,
    codes: FloatArray,
    scale: FloatArray,
    bits: int,
    *,
    full: bool,
) -> tuple[FloatArray, FloatArray]:
    """Move one code at a time to its best place; return codes and losses."""
    slope = product(W - codes * scale[:, None], H)
    diagonal = np.diagonal(H)
    for _ in range(_POLISH):
        moved = False
        for i in range(codes.shape[1]):
            here = codes[:, i]
            wanted = round_to_grid(scale * here + slope[:, i] / diagonal[i], scale, bits, full=full)
            rows = np.flatnonzero(wanted != here)
            if len(rows):
                moved = True
                slope[rows] -= (scale[rows] * (wanted - here)[rows])[:, None] * H[i]
                codes[rows, i] = wanted[rows]
        if not moved:
            break
    return codes, (slope * (W - codes * scale[:, None])).sum(axis=1)
