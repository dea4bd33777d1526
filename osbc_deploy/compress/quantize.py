"""Quantization on the grid the chip stores: symmetric integers times a scale per output.

A scale per output costs nothing in weights, because the neuron's threshold and bias absorb it;
but every distinct threshold is a neuron group of the core, so the number of different scales is
limited and they are chosen together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import cholesky

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import loss, support_blocks, supports

__all__ = [
    "choose_scales",
    "levels",
    "quantize_rows",
    "round_to_grid",
    "search_scales",
    "windows",
]

_STEPS_PER_OCTAVE = 6
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


def round_to_grid(w: FloatArray, scale: FloatArray, bits: int) -> FloatArray:
    """Return the nearest codes of `w` on the grid of `scale` (broadcast), as floats."""
    if bits == 1:
        return np.where(w < 0, -1.0, 1.0)
    top = levels(bits)
    return np.clip(np.rint(w / scale), -top, top)


def search_scales(
    W: FloatArray, mask: BoolArray, importance: FloatArray, bits: int
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
    spread = np.log2(top / largest[largest > 0].min())
    count = int(_STEPS_PER_OCTAVE * (min(spread, _SPREAD) + _OCTAVES))
    candidates = top / levels(bits) * 2.0 ** (-np.arange(count) / _STEPS_PER_OCTAVE)
    errors = np.empty((len(W), count))
    for k, scale in enumerate(candidates):
        rounded = round_to_grid(W, scale, bits) * scale
        errors[:, k] = (weighting * (W - rounded) ** 2).sum(axis=1)
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

    Returns
    -------
    codes : ndarray of int8 (results, rows, n)
        The quantized weight is ``scale * code``.
    losses : ndarray (results, rows)
        Against `W` where `mask` holds; 0 elsewhere.
    """
    space = space or Workspace()
    rows, n = W.shape
    codes = np.zeros((len(widths), rows, n), np.int8)
    lost = np.zeros((len(widths), rows))
    # Falling importance is walked from the end of the rising order.
    rising = np.argsort(np.diagonal(H), kind="stable")
    grids = list(zip(scales, widths, strict=True))
    if mask.all() and n:
        ordered = H[np.ix_(rising, rising)]
        factor = cholesky(ordered)

        def together(batch: slice) -> None:
            for start in range(batch.start * _SHARED_ROWS, batch.stop * _SHARED_ROWS, _SHARED_ROWS):
                part = slice(start, min(start + _SHARED_ROWS, rows))
                values = W[part][:, rising]
                for k, (scale, bits) in enumerate(grids):
                    q = _walk_shared(values, factor, scale[part], bits)
                    if polish:
                        q = _polish_shared(values, ordered, q, scale[part], bits)
                    codes[k, part][:, rising] = q
                    lost[k, part] = loss(values, q * scale[part, None], ordered)

        space.batches(together, -(-rows // _SHARED_ROWS), 64 * _SHARED_ROWS * n)
        return codes, lost
    by_size = np.argsort(mask.sum(axis=1), kind="stable")
    most = int(mask.sum(axis=1).max(initial=0))

    def apart(batch: slice) -> None:
        part = by_size[batch]
        place, inside = supports(mask[part][:, rising])
        columns = rising[place]
        block = support_blocks(H, columns, inside)
        factor = np.swapaxes(np.linalg.cholesky(block), 1, 2)
        values = np.take_along_axis(W[part], columns, axis=1) * inside
        walked = _walk(values, factor, [(scale[part], bits) for scale, bits in grids])
        for k, (scale, bits) in enumerate(grids):
            q = walked[k] * inside
            if polish:
                q = _polish(values, block, q, scale[part], bits, inside)
            error = values - q * scale[part, None]
            lost[k, part] = np.einsum("ri,ri->r", np.matmul(block, error[..., None])[..., 0], error)
            codes[k, part[:, None], columns] = np.where(inside, q, 0.0)

    if most:
        space.batches(apart, rows, 32 * most * most + 16 * len(grids) * most)
    return codes, lost


def _walk_shared(W: FloatArray, R: FloatArray, scale: FloatArray, bits: int) -> FloatArray:
    """Return codes for rows that share the upper factor `R`, from the last column to the first."""
    n = W.shape[1]
    codes, error = np.zeros_like(W), np.zeros_like(W)
    for end in range(n, 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        done = error[:, end:] @ R[start:end, end:].T
        for i in range(end - 1, start - 1, -1):
            fed = done[:, i - start] + error[:, i + 1 : end] @ R[i, i + 1 : end]
            codes[:, i] = round_to_grid(W[:, i] + fed / R[i, i], scale, bits)
            error[:, i] = W[:, i] - codes[:, i] * scale
    return codes


def _walk(W: FloatArray, R: FloatArray, grids: Sequence[tuple[FloatArray, int]]) -> FloatArray:
    """Return codes (grids, rows, n) for rows with a factor each, from the last column on."""
    codes = np.zeros((len(grids), *W.shape))
    error = np.zeros_like(codes)
    for i in range(W.shape[1] - 1, -1, -1):
        fed = np.einsum("grj,rj->gr", error[:, :, i + 1 :], R[:, i, i + 1 :])
        wanted = W[:, i] + fed / R[:, i, i]
        for k, (scale, bits) in enumerate(grids):
            codes[k, :, i] = round_to_grid(wanted[k], scale, bits)
            error[k, :, i] = W[:, i] - codes[k, :, i] * scale
    return codes


def _polish_shared(
    W: FloatArray, H: FloatArray, codes: FloatArray, scale: FloatArray, bits: int
) -> FloatArray:
    def pull(i: int, rows: IntArray, change: FloatArray) -> FloatArray:
        return np.asarray(change[:, None] * H[i])

    slope = (W - codes * scale[:, None]) @ H
    diagonal = np.broadcast_to(np.diagonal(H), W.shape)
    return _descend(slope, diagonal, codes, scale, bits, np.ones(W.shape, bool), pull)


def _polish(
    W: FloatArray,
    H: FloatArray,
    codes: FloatArray,
    scale: FloatArray,
    bits: int,
    inside: BoolArray,
) -> FloatArray:
    def pull(i: int, rows: IntArray, change: FloatArray) -> FloatArray:
        return np.asarray(change[:, None] * H[rows, i])

    slope = np.matmul(H, (W - codes * scale[:, None])[..., None])[..., 0]
    return _descend(slope, np.einsum("rii->ri", H), codes, scale, bits, inside, pull)


def _descend(
    slope: FloatArray,
    diagonal: FloatArray,
    codes: FloatArray,
    scale: FloatArray,
    bits: int,
    inside: BoolArray,
    pull: Callable[[int, IntArray, FloatArray], FloatArray],
) -> FloatArray:
    """Move one code at a time to its best place; `slope` is ``H (w - scale q)`` of every row."""
    codes = codes.copy()
    for _ in range(_POLISH):
        moved = False
        for i in range(codes.shape[1]):
            here = codes[:, i]
            wanted = round_to_grid(scale * here + slope[:, i] / diagonal[:, i], scale, bits)
            rows = np.flatnonzero((wanted != here) & inside[:, i])
            if len(rows):
                moved = True
                slope[rows] -= pull(i, rows, scale[rows] * (wanted - here)[rows])
                codes[rows, i] = wanted[rows]
        if not moved:
            break
    return codes
