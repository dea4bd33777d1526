"""Quantization on the grid the chip stores: symmetric integers times a scale per output.

A scale per output costs nothing in weights, because the neuron's threshold and bias absorb it;
but every distinct threshold is a neuron group of the core, so the number of different scales is
limited and they are chosen together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.feedback import POLISH, polish_row, walk_row, walk_shared
from osbc_deploy.compress.kernels import factorized, gathered
from osbc_deploy.compress.rows import Workspace

__all__ = [
    "choose_scales",
    "levels",
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

_SHARED_ROWS = 256
"""Rows of a batch that share one factor."""


def levels(bits: int) -> int:
    """Return the largest code of a symmetric grid: ``2^(bits-1) - 1``, and 1 for one bit.

    One bit is the sign alone, codes -1 and +1; with what is removed, ternary.
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
    W, weighting = _kept(mask, W, np.broadcast_to(importance, W.shape))
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


def _kept(mask: BoolArray, *arrays: FloatArray) -> list[FloatArray]:
    """Return what the rows of arrays keep, side by side, with zeros behind the last."""
    if mask.all():
        return list(arrays)
    counts = mask.sum(axis=1)
    side_by_side = np.arange(counts.max(initial=0)) < counts[:, None]
    found = [np.zeros(side_by_side.shape) for _ in arrays]
    for packed, array in zip(found, arrays, strict=True):
        packed[side_by_side] = array[mask]
    return found


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
    walked: tuple[IntArray, BoolArray] | None = None,
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
    walked : tuple of ndarray, optional
        Codes that the walk found before (results, rows, n), and for which rows (rows,): these are
        polished alone. Only rows that do not keep every weight are looked up.

    Returns
    -------
    codes : ndarray of int8 (results, rows, n)
        The quantized weight is ``scale * code``.
    losses : ndarray (results, rows)
        Against `W` where `mask` holds; 0 elsewhere.
    """
    space = space or Workspace()
    # Falling importance is walked from the end of the rising order.
    rising = np.argsort(np.diagonal(H), kind="stable")
    if not W.size:
        return np.zeros((len(widths), *W.shape), np.int8), np.zeros((len(widths), len(W)))
    tops = np.array([_top(bits) for bits in widths])
    by_row = np.stack([np.broadcast_to(scale, len(W)) for scale in scales], axis=1)
    if mask.all():
        ordered = gathered(H, rising)
        factor = factorized(ordered.copy())
        work = partial(_together, W, ordered, factor, rising, by_row, widths, polish, full)
        batches = -(-len(W) // _SHARED_ROWS)
        cost = len(tops) * float(len(W)) * W.shape[1] ** 2
        found = space.batches(work, batches, 64 * _SHARED_ROWS * W.shape[1], cost)
    else:
        counts = mask.sum(axis=1)
        most = int(counts.max())
        cost = float((counts**3 / 6.0 + len(tops) * counts**2).sum())
        row_bytes = 24 * most * most + 32 * len(tops) * most + 1
        apart = partial(_apart, W, H, mask, rising, by_row, tops, float(full), polish, walked)
        found = space.batches(apart, len(W), row_bytes, cost)
    codes, lost = zip(*found, strict=True)
    return np.concatenate(codes, axis=1), np.concatenate(lost, axis=1)


def _together(
    W: FloatArray,
    ordered: FloatArray,
    factor: FloatArray,
    rising: IntArray,
    by_row: FloatArray,
    widths: Sequence[int],
    polish: bool,
    full: bool,
    batch: slice,
) -> tuple[IntArray, FloatArray]:
    """Quantize batches of rows that all keep every weight."""
    rows = slice(batch.start * _SHARED_ROWS, min(batch.stop * _SHARED_ROWS, len(W)))
    codes = np.zeros((len(widths), rows.stop - rows.start, W.shape[1]), np.int8)
    lost = np.zeros(codes.shape[:2])
    for start in range(rows.start, rows.stop, _SHARED_ROWS):
        part = slice(start, min(start + _SHARED_ROWS, len(W)))
        into = slice(part.start - rows.start, part.stop - rows.start)
        values = np.array(W[part][:, rising], np.float64)
        for k, bits in enumerate(widths):
            top = _top(bits)
            scale = np.ascontiguousarray(by_row[part, k])
            q, found = walk_shared(values, factor, scale, -top - float(full), top)
            if polish:
                q, found = _polish_shared(values, ordered, q, scale, bits, full=full)
            codes[k, into][:, rising] = q
            lost[k, into] = found
    return codes, lost


def _apart(
    W: FloatArray,
    H: FloatArray,
    mask: BoolArray,
    rising: IntArray,
    by_row: FloatArray,
    tops: FloatArray,
    extra: float,
    polish: bool,
    walked: tuple[IntArray, BoolArray] | None,
    batch: slice,
) -> tuple[IntArray, FloatArray]:
    """Quantize rows that each keep weights of their own."""
    codes = np.zeros((len(tops), batch.stop - batch.start, W.shape[1]), np.int8)
    lost = np.zeros(codes.shape[:2])
    for into, row in enumerate(range(batch.start, batch.stop)):
        columns = rising[mask[row][rising]]
        values = np.array(W[row, columns], np.float64)
        grids = by_row[row], tops, extra
        q, found = np.empty((len(tops), len(columns))), np.empty(len(tops))
        if polish and walked is not None and walked[1][row]:
            q[:] = walked[0][:, row, columns]
        else:
            factor = factorized(gathered(H, columns, upper=True))
            walk_row(values, factor, *grids, q, found)
        if polish:
            polish_row(values, gathered(H, columns), *grids, q, found)
        codes[:, into, columns] = q
        lost[:, into] = found
    return codes, lost


def _top(bits: int) -> float:
    """Return the largest code; 0 for one bit."""
    return 0.0 if bits == 1 else float(levels(bits))


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
    for _ in range(POLISH):
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
