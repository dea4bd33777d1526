"""Orthogonal least squares, compiled: columns are chosen one by one, and worked out many at a time.

What a column leaves of the others is a row of a Cholesky factor, and each needs all rows before it.
Worked out one by one, the whole factor is read for each. But a column that is chosen next is nearly
always among the best few of some steps before. So these alone are followed for some steps; then
what they say is worked out for all columns in one product of matrices, step by step it is looked
whether none of the others had been better, and where one was, the steps from there on are taken
again. The choice is that of single steps, to the last bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.compress.elimination import SHRINK
from osbc_deploy.compress.kernels import subtract, take
from osbc_deploy.jit import compiled

__all__ = ["FOLLOWED", "choose"]

FOLLOWED = 256
"""Columns that are followed. With half as many, a fourth more steps are taken again."""

_AHEAD = 16
"""Steps that are foreseen, at most. Of these, 12 to 14 turn out to be right."""

_CACHED = 2**20
"""Bytes of a factor that are read as fast for each step as for many."""


class _Columns(NamedTuple):
    """Those that are compared, (width,) each.

    `c` and `d` are what the columns chosen leave of the correlations and of the diagonal, `worth`
    is how much of the loss each would take away, -1 if it is taken; `number` is its place in `H`.
    """

    c: Any
    d: Any
    least: Any
    worth: Any
    number: Any


@compiled
def choose(c: Any, H: Any, least: Any, factor: Any, order: Any, candidates: int) -> None:
    """Write the columns chosen to `order`; all but `H` are overwritten.

    When a quarter, and when half of them are chosen, so many `candidates` for each that is still
    to come stay.

    Parameters
    ----------
    c : ndarray (n,)
        What is to be approximated, times `H`.
    H : ndarray (n, n)
    least : ndarray (n,)
        Least of the diagonal.
    factor : ndarray (k, n)
    order : ndarray of int (k,)
    candidates : int
    """
    width, k = len(c), len(order)
    columns = _Columns(c, np.empty_like(c), least, np.empty_like(c), np.arange(width))
    for i in range(width):
        columns.d[i] = H[i, i]
        columns.worth[i] = c[i] * c[i] / max(columns.d[i], least[i])
    near, factors = np.empty((k, FOLLOWED), c.dtype), np.empty((k, _AHEAD), c.dtype)
    picks = np.empty(_AHEAD, np.int64)
    step = 0
    while step < k:
        if step in (k // 4, k // 2) and candidates * (k - step) < SHRINK * width:
            width = _narrow(columns, factor, step, width, candidates * (k - step))
        if step * width * c.itemsize < _CACHED:
            ahead = _choose_one(columns, factor, factors, picks, step, width)
        else:
            end = k // 4 if step < k // 4 else k // 2 if step < k // 2 else k
            ahead = min(_AHEAD, end - step)
            ahead = _foresee(columns, H, factor, near, factors, picks, step, ahead, width)
        step += _confirm(columns, H, factor, factors, picks[:ahead], order, step, width)


@compiled
def _narrow(columns: Any, factor: Any, step: int, width: int, left: int) -> int:
    """Keep the columns that are worth most, and return how many."""
    c, d, least, worth, number = columns
    keep = np.sort(np.argsort(-worth[:width], kind="mergesort")[:left])
    # Upwards only, so nothing is overwritten that is still to be moved.
    for a in range(left):
        i = keep[a]
        c[a], d[a], least[a], worth[a], number[a] = c[i], d[i], least[i], worth[i], number[i]
    for s in range(step):
        row = factor[s]
        for a in range(left):
            row[a] = row[keep[a]]
    return left


@compiled
def _choose_one(columns: Any, factor: Any, factors: Any, picks: Any, step: int, width: int) -> int:
    """Choose the best column, as :func:`_foresee` does, and return 1."""
    picks[0] = columns.worth[:width].argmax()
    for s in range(step):
        factors[s, 0] = factor[s, picks[0]]
    return 1


@compiled
def _foresee(
    columns: Any, H: Any, factor: Any, near: Any, factors: Any, picks: Any, step: int, most: int,
    width: int,
) -> int:  # fmt: skip
    """Choose among the best columns for some steps, at `most`, and return for how many.

    Writes to `picks` what is chosen, and to `factors` what the rows of `factor` hold of it; `near`
    is those rows' share of the columns followed.
    """
    followed = _best(columns.worth[:width])
    count = len(followed)
    c, d, least, worth, number = columns
    own = _Columns(c[followed], d[followed], least[followed], worth[followed], number[followed])
    floor = own.worth.min()
    for s in range(step):
        all_of_it, row = factor[s], near[s]
        for a in range(count):
            row[a] = all_of_it[followed[a]]
    for n in range(most):
        q = own.worth.argmax()
        # What is not followed may be better.
        if n > 0 and own.worth[q] < floor:
            return n
        picks[n] = followed[q]
        for s in range(step + n):
            factors[s, n] = near[s, q]
        row, seen = near[step + n], H[own.number[q]]
        for a in range(count):
            row[a] = seen[own.number[a]]
        take(near, step + n, factors, n, near, 0, step + n, 0, count)
        _add(own, row, q, count)
    return most


@compiled
def _add(columns: Any, row: Any, p: int, width: int) -> None:
    """Take what one more column says of the others from them; `row` becomes that of the factor."""
    c, d, least, worth, _ = columns
    root = np.sqrt(max(d[p], least[p]))
    share = c[p] / root
    for i in range(width):
        row[i] = row[i] / root
        c[i] = c[i] - share * row[i]
        d[i] = d[i] - row[i] * row[i]
        worth[i] = -1.0 if worth[i] < 0.0 else c[i] * c[i] / max(d[i], least[i])
    worth[p] = -1.0


@compiled
def _best(worth: Any) -> Any:
    """Return the places of the largest numbers, in rising order; of equal ones, the first."""
    count = min(FOLLOWED, len(worth))
    floor = np.partition(worth, len(worth) - count)[len(worth) - count]
    equal = count
    for value in worth:
        equal -= value > floor
    found = np.empty(count, np.int64)
    have = 0
    for i in range(len(worth)):
        larger = worth[i] > floor
        # Said in this way, what is not a number counts as equal.
        if larger or (equal > 0 and not worth[i] < floor):
            equal -= not larger
            found[have] = i
            have += 1
    return found[:have]


@compiled
def _confirm(
    columns: Any, H: Any, factor: Any, factors: Any, picks: Any, order: Any, step: int, width: int
) -> int:
    """Take the steps that were foreseen as long as they are right, and return how many are."""
    worth, number = columns.worth, columns.number
    count = len(picks)
    for n in range(count):
        row, seen = factor[step + n], H[number[picks[n]]]
        for i in range(width):
            row[i] = seen[number[i]]
    done = 0
    if count > 1:
        done = step
        subtract(factor[step : step + count], factors, factor, 0, count, 0, step, 0, width, False)
    for n in range(count):
        p = picks[n]
        if n > 0 and not _first_of_the_largest(worth, p, width):
            return n
        take(factor, step + n, factors, n, factor, done, step + n, 0, width)
        _add(columns, factor[step + n], p, width)
        order[step + n] = number[p]
    return count


@compiled
def _first_of_the_largest(worth: Any, p: int, width: int) -> bool:
    """Tell whether no number is larger, and none before it as large."""
    better, most = 0, worth[p]
    for i in range(p):
        better += worth[i] >= most
    for i in range(p + 1, width):
        better += worth[i] > most
    return better == 0
