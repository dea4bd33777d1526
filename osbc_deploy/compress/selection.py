r"""Which weights to keep: second-order selection, exact losses included. Arrays in, arrays out.

Letters are the papers': `W (rows, n)` weights with one output neuron per row, `H (n, n)` the
positive definite Hessian. The loss of changing a row by `d` is :math:`\frac12 d^T H d`; factors
that are the same for all choices are left out, so losses here are :math:`d^T H d`.

Three ways to the same kind of :class:`Path`, for n weights in a row of which k are looked at:

=============  ==========================  ======================================================
way            multiplications of a row    idea
=============  ==========================  ======================================================
elimination    n^3 / 3                     remove the least harmful weight until none is left
                                           (Hassibi, Stork 1993; Frantar, Singh, Alistarh 2022)
forward        n k^2 / 2                   add the most useful weight until k are there
                                           (orthogonal least squares: Chen, Cowan, Grant 1991)
hybrid         n k^2 / 2 + 5 k^3 / 6       forward to k, then elimination among those
=============  ==========================  ======================================================

Elimination ranks all weights; the others rank the first k, for a fraction of the work where few
are kept. Going back and forth, hybrid ends with smaller losses than either.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.compress.elimination import removals
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.forward import FOLLOWED, choose
from osbc_deploy.compress.kernels import factorized, gathered, halfway, invert, solve
from osbc_deploy.compress.paths import Path, joined
from osbc_deploy.compress.rows import Workspace

__all__ = [
    "forward_columns",
    "forward_work",
    "hybrid_work",
    "select_forward",
    "select_hybrid",
]

_SINGLE_WORK = 1e9
"""Multiplications from which forward selection compares candidates in single precision."""

_NARROW_WORK = 1e13
"""Multiplications from which forward selection gives up the candidates that are worth least."""

_CANDIDATES = 8
"""So many stay for each weight that is still to be chosen. With six, selections lost up to 1 % more
than those from all, and from 2 % less to 0.6 % more than elimination."""


def forward_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_forward`, in those of elimination.

    Its products of a matrix with a vector wait for memory, where elimination's products of
    matrices do not: each counts twice (measured).
    """
    return rows * float(n) * float(k) ** 2


def forward_columns(rows: int, n: int, k: int) -> float:
    """Return the columns that :func:`select_forward` compares in a step, weighted by their work."""
    if forward_work(rows, n, k) <= _NARROW_WORK:
        return float(n)
    quarter, half = (min(n, _CANDIDATES * (k - k // part)) for part in (4, 2))
    return (n + 3 * quarter + 12 * half) / 16


def hybrid_work(rows: int, n: int, k: int) -> float:
    """Return the multiplications of :func:`select_hybrid`, in those of elimination."""
    return forward_work(rows, n, k) + rows * 5.0 / 6.0 * float(k) ** 3


def select_forward(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None = None,
    target: FloatArray | None = None,
    given: BoolArray | None = None,
) -> Path:
    """Add the `k` most useful weights of every row, one by one (orthogonal least squares).

    With target correlations ``c = H w`` and the support's Cholesky factor, each step adds the
    column with the largest drop of the loss, ``c_p^2 / d_p``, where `c` and `d` are what the
    columns already chosen leave of the correlations and of the diagonal. On large layers
    candidates are compared in single precision; the drops come from a factorization in double.

    Parameters
    ----------
    W : ndarray (rows, n)
    H : ndarray (n, n)
        Positive definite.
    k : int
    space : Workspace
    target : ndarray (rows, n), optional
        ``W H``, where it is known.
    given : ndarray of bool (rows, n), optional
        Columns that may be chosen; others come behind them, with a drop of 0, where they are few.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    return _selected(W, H, k, space, target, given, hybrid=False)


def select_hybrid(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None = None,
    target: FloatArray | None = None,
    given: BoolArray | None = None,
) -> Path:
    """Choose `k` weights of every row by forward selection and rank them by elimination.

    Parameters are those of :func:`select_forward`.

    Returns
    -------
    Path
        Covering `k` weights of every row.
    """
    return _selected(W, H, k, space, target, given, hybrid=True)


def _selected(
    W: FloatArray,
    H: FloatArray,
    k: int,
    space: Workspace | None,
    target: FloatArray | None,
    given: BoolArray | None,
    *,
    hybrid: bool,
) -> Path:
    space = space or Workspace()
    n = W.shape[1]
    known = product(W, H) if target is None else target
    precision = _precision(W.shape, k)
    # Rounding may leave nothing, or less, of a column that the chosen ones span.
    least = (1e-6 if precision is np.float32 else 1e-12) * np.diagonal(H)

    cost = forward_work(len(W), n, k)
    candidates = _CANDIDATES if cost > _NARROW_WORK else n
    work = partial(_selected_rows, known, given, H, least.astype(precision), k, candidates, hybrid)
    row_bytes = np.dtype(precision).itemsize * (n + FOLLOWED) * k + 40 * k * k
    return joined(space.batches(work, len(W), row_bytes, cost))


def _selected_rows(
    known: FloatArray,
    given: BoolArray | None,
    H: FloatArray,
    least: FloatArray,
    k: int,
    candidates: int,
    hybrid: bool,
    part: slice,
) -> Path:
    targets = known[part]
    order, drop = np.empty((len(targets), k), np.int64), np.empty((len(targets), k))
    factor, inverse = np.empty((k, len(H)), least.dtype), np.empty(k * k)
    every, spare = np.zeros(k, np.int64), np.array([k + 1])
    for row, target in enumerate(targets):
        may = None if given is None else given[part.start + row]
        # What may not be chosen is worth nothing.
        floor = least.copy() if may is None else np.where(may, least, np.inf).astype(least.dtype)
        choose(target.astype(least.dtype), H, floor, factor, order[row], candidates)
        chosen = order[row].copy()
        if may is not None:
            order[row] = chosen = chosen[np.argsort(~may[chosen], kind="stable")]
            chosen = chosen[: np.count_nonzero(may[chosen])]
        most = len(chosen)
        start = target[chosen]
        drop[row, most:] = 0.0
        block = factorized(gathered(H, chosen, upper=True))
        if not hybrid:
            # L z = c: each z^2 is the drop of its weight (Chen, Cowan, Grant 1991, eq. 22).
            halfway(block, start)
            drop[row, :most] = start * start
            continue
        solve(block, start)
        square = inverse[: most * most].reshape(most, most)
        invert(block, square)
        removals(start, square, every[:most], spare.copy(), order[row, :most], drop[row, :most])
        order[row, :most] = chosen[order[row, :most]]
    return Path(order, drop)


def _precision(shape: tuple[int, ...], k: int) -> type[np.floating]:
    return np.float32 if forward_work(*shape, k) > _SINGLE_WORK else np.float64  # type: ignore[call-arg]
