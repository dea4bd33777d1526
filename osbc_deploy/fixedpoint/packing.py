"""Weights as the kernels take them: lists by presynaptic neuron, single or in blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.lanes import LANES
from osbc_deploy.fixedpoint.network import FixedProjection

__all__ = ["BLOCK", "SYNAPSE", "Codes", "Lists", "Pass", "listed", "made", "number", "packed"]

BLOCK, SYNAPSE = 1.0, 0.9
"""Time to add a block and a single weight, about a nanosecond (measured)."""


class _Added:
    """What is added to a sum."""

    exponent: int
    wrap: int

    @property
    def shared(self) -> bool:
        """Whether others of the same exponent may add to the same sum."""
        return self.exponent >= 0 and not self.wrap


@dataclass(frozen=True, eq=False)
class Pass(_Added):
    """Weights that a kernel delivers at one go.

    Attributes
    ----------
    pre : str
    graded : bool
    late, latest : int
        Steps of own time after which they deliver, and after which the last one has.
    push : callable
        The kernel.
    tables : tuple
        What it takes beside spikes and sums.
    narrow : bool
        Whether its weights are bytes.
    bound : int
        Largest magnitude of the sum.
    exponent : int
        Places to shift the sum left, or right where it is negative.
    wrap : int
        Half the range of a sum that wraps; 0 where it cannot.
    places : int
        Zeros of 16 bits that the kernel works with and leaves as such; it takes none for 0.
    """

    pre: str
    graded: bool
    late: int
    latest: int
    push: Callable[..., None]
    tables: tuple[Any, ...]
    narrow: bool
    bound: int
    exponent: int
    wrap: int
    places: int = 0


@dataclass(frozen=True, eq=False)
class Codes(_Added):
    """A projection whose weights have given up the powers of two that they share."""

    projection: FixedProjection
    codes: IntArray
    exponent: int
    bound: int
    wrap: int

    def lowered(self, exponent: int) -> Codes:
        """Return the same with less to shift, where the codes still fit."""
        less = self.exponent - exponent
        largest = max(int(self.codes.max(initial=0)), -int(self.codes.min(initial=0)))
        if not self.shared or largest << less >= 2**15:
            return self
        codes = self.codes << np.int16(less)
        return replace(self, codes=codes, exponent=exponent, bound=self.bound << less)


class Lists(NamedTuple):
    """Weights that are not 0: where each list starts; offsets; weights."""

    start: IntArray
    offset: IntArray
    weight: IntArray

    def risen(self) -> Lists:
        """Return the same with offsets that rise in a list."""
        which = np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))
        order = np.lexsort((self.offset, which))
        return Lists(self.start, self.offset[order], self.weight[order])


def number(codes: Codes) -> type[np.signedinteger[Any]]:
    """Return the type of the codes: the smaller one is not compiled for what is graded or huge."""
    low, high = codes.codes.min(initial=0), codes.codes.max(initial=0)
    small = low >= -128 and high < 128 and codes.bound < 2**31
    return np.int8 if small and not codes.projection.graded else np.int16


def made(
    codes: Codes,
    late: int,
    latest: int,
    push: Callable[..., None],
    tables: tuple[Any, ...],
    places: int = 0,
) -> Pass:
    """Return a pass; see :class:`Pass` for what it says."""
    return Pass(
        codes.projection.pre,
        codes.projection.graded,
        late,
        latest,
        push,
        tables,
        number(codes) is np.int8,
        codes.bound,
        codes.exponent,
        codes.wrap,
        places,
    )


def packed(lists: Lists, *, alike: bool) -> tuple[Callable[..., None], tuple[Any, ...], float]:
    """Return the kernel for lists, its tables, and what all lists together cost.

    Offsets rise in a list. `alike` says that some lists may be the same; those are held once.
    """
    start, offset, weight = lists
    first: IntArray = np.empty(len(start), np.int64)
    nothing = np.zeros(0, np.int32)
    count = kernels.cover(start, offset, weight, first, nothing, weight[:0].reshape(0, 1))
    if SYNAPSE * len(weight) <= BLOCK * count:
        return kernels.push_synapses, listed(lists, alike=alike), SYNAPSE * len(weight)
    place = np.empty(count, np.int32)
    values = np.zeros((count, LANES), weight.dtype)
    kernels.cover(start, offset, weight, first, place, values)
    return kernels.push_blocks, _tables(first, place, values, alike), BLOCK * count


def listed(lists: Lists, *, alike: bool) -> tuple[Any, ...]:
    """Return the tables of single weights; see :func:`packed`."""
    return _tables(lists.start, lists.offset, lists.weight[:, None], alike)


def _tables(first: IntArray, place: IntArray, values: IntArray, alike: bool) -> tuple[Any, ...]:
    begin, end = first[:-1], first[1:]
    if alike:
        begin, end, place, values = _once(begin, end, place, values)
    return *(part.astype(np.int32) for part in (begin, end, place)), values.ravel()


def _once(
    begin: IntArray, end: IntArray, place: IntArray, values: IntArray
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Hold lists that are the same once."""
    known: dict[tuple[bytes, bytes], int] = {}
    kept: list[tuple[int, int]] = []
    which = np.empty(len(begin), np.int64)
    for number, (a, b) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        key = place[a:b].tobytes(), values[a:b].tobytes()
        if key not in known:
            known[key] = len(kept)
            kept.append((a, b))
        which[number] = known[key]
    rows = np.concatenate([np.arange(a, b) for a, b in kept]) if kept else begin[:0]
    ends = np.cumsum([b - a for a, b in kept])
    begins = np.concatenate([[0], ends[:-1]])
    return begins[which], ends[which], place[rows], values[rows]
