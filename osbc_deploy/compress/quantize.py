"""Quantization on the grid the chip stores: symmetric integers times a scale per output.

A scale per output costs nothing in weights, because the neuron's threshold and bias absorb it;
but every distinct threshold is a neuron group of the core, so the number of different scales is
limited and they are chosen together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray

__all__ = ["choose_scales", "levels", "quantize_rows", "quantize_widths", "round_to_grid"]

_STEPS_PER_OCTAVE = 6
_OCTAVES = 6


def levels(bits: int) -> int:
    """Return the largest code of a symmetric grid: ``2^(bits-1) - 1``, and 1 for one bit.

    One bit is the sign alone, codes -1 and +1.
    """
    return max(1, (1 << (bits - 1)) - 1)


def round_to_grid(w: FloatArray, scale: FloatArray, bits: int) -> FloatArray:
    """Return the nearest codes of `w` on the grid of `scale` (broadcast), as floats."""
    if bits == 1:
        return np.where(w < 0, -1.0, 1.0)
    top = levels(bits)
    return np.clip(np.rint(w / scale), -top, top)


def choose_scales(
    W: FloatArray, mask: BoolArray, importance: FloatArray, bits: int, groups: int
) -> FloatArray:
    """Choose the scale of every row from at most `groups` different values.

    The error of rounding to nearest, weighted by `importance`, is tabulated for a geometric range
    of candidate scales; candidates are then added one by one, and exchanged while that helps, so
    that the sum over rows of each row's best error is least.

    Parameters
    ----------
    W : ndarray (rows, n)
    mask : ndarray of bool (rows, n)
        Weights that are kept; the others do not count.
    importance : ndarray (rows, n) or broadcastable
        Weight of each squared error: the diagonal of the Hessian.
    bits : int
        1 to 8.
    groups : int
        Number of different scales allowed, at least 1.

    Returns
    -------
    ndarray (rows,)
        Positive scales.
    """
    kept = np.where(mask, np.abs(W), 0.0)
    largest = float(kept.max(initial=0.0))
    if largest == 0.0:
        return np.ones(len(W))
    count = _STEPS_PER_OCTAVE * _OCTAVES
    top = largest / levels(bits)
    candidates = top * 2.0 ** (-np.arange(count) / _STEPS_PER_OCTAVE)
    weighting = np.where(mask, importance, 0.0)
    errors = np.empty((len(W), count))
    for k, scale in enumerate(candidates):
        rounded = round_to_grid(W, scale, bits) * scale
        errors[:, k] = (weighting * (W - rounded) ** 2).sum(axis=1)
    chosen = _codebook(errors, min(groups, len(W)))
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
    scale: FloatArray,
    bits: int,
    *,
    workspace: int = 256 * 1024**2,
) -> IntArray:
    """Quantize to one width; see :func:`quantize_widths`.

    Returns
    -------
    ndarray of int8 (rows, n)
    """
    return np.asarray(quantize_widths(W, H, mask, [scale], [bits], workspace=workspace)[0])


def quantize_widths(
    W: FloatArray,
    H: FloatArray,
    mask: BoolArray,
    scales: Sequence[FloatArray],
    widths: Sequence[int],
    *,
    workspace: int = 256 * 1024**2,
) -> IntArray:
    """Quantize weight by weight, the error of each fed forward to the weights still free.

    Inputs are visited in order of falling ``H_ii``. On each row's support, with ``U`` the upper
    Cholesky factor of ``(H_SS)^-1``, rounding weight i leaves the error ``e = (w_i - q_i)/U_ii``,
    and the remaining weights change by ``-e U_i,:`` (Frantar et al. 2022, GPTQ, eq. 2-3). The
    factor depends on the support alone, so all widths share it.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    mask : ndarray of bool (rows, n)
        Weights outside stay 0.
    scales : sequence of ndarray (rows,)
        One for each width.
    widths : sequence of int
        Bits, each 1 to 8.
    workspace : int
        Bytes a batch of rows may take.

    Returns
    -------
    ndarray of int8 (widths, rows, n)
        Codes; the quantized weight is ``scale * code``.
    """
    rows, n = W.shape
    codes = np.zeros((len(widths), rows, n), np.int8)
    by_importance = np.argsort(-np.diagonal(H), kind="stable")
    if mask.all():
        upper = _upper(H[np.ix_(by_importance, by_importance)][None])
        for k, (scale, bits) in enumerate(zip(scales, widths, strict=True)):
            codes[k][:, by_importance] = _feed_forward(W[:, by_importance], upper, scale, bits)
        return codes
    ordered = mask[:, by_importance]
    most = int(ordered.sum(axis=1).max(initial=0))
    if most == 0:
        return codes
    batch = max(1, workspace // (3 * 8 * most * most))
    for start in range(0, rows, batch):
        part = slice(start, min(start + batch, rows))
        # A stable sort of "not kept" lists each row's support first, in order of importance.
        place = np.argsort(~ordered[part], axis=1, kind="stable")[:, :most]
        inside = np.take_along_axis(ordered[part], place, axis=1)
        columns = by_importance[place]
        block = H[columns[:, :, None], columns[:, None, :]]
        both = inside[:, :, None] & inside[:, None, :]
        upper = _upper(np.where(both, block, np.eye(most)))
        values = np.take_along_axis(W[part], columns, axis=1) * inside
        for k, (scale, bits) in enumerate(zip(scales, widths, strict=True)):
            done = _feed_forward(values, upper, scale[part], bits) * inside
            np.put_along_axis(codes[k, part], columns, done.astype(np.int8), axis=1)
    return codes


def _upper(H: FloatArray) -> FloatArray:
    return np.asarray(np.swapaxes(np.linalg.cholesky(np.linalg.inv(H)), -1, -2))


def _feed_forward(W: FloatArray, U: FloatArray, scale: FloatArray, bits: int) -> FloatArray:
    w = W.astype(np.float64)
    codes = np.zeros_like(w)
    for i in range(w.shape[1]):
        codes[:, i] = round_to_grid(w[:, i], scale, bits)
        error = (w[:, i] - codes[:, i] * scale) / U[:, i, i]
        w[:, i:] -= error[:, None] * U[:, i, i:]
    return codes
