"""Tiles of a matrix that stay in registers while products are taken from them, term after term.

Each element of a tile is a sum of its own, and its terms keep their order; what a compiler would
do with the same loop is read and write the sums again for every few terms.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir

from osbc_deploy.vectors import cgutils, intrinsic, repeated, types

__all__ = ["FEW", "LONG", "ROWS", "WIDE", "take_tile"]

_REGISTER = 64 if binding.get_host_cpu_features().get("avx512f") else 32
"""Bytes that are worked on at once. It changes the time alone."""

ROWS = 4
"""Of a tile, where there are so many: the second factor is read once for all of them."""

WIDE = 2 * _REGISTER
"""Bytes of a tile's row."""

LONG = 4 * _REGISTER
"""And where it is the only one: sums that do not wait for each other."""

FEW = 32
"""Bytes of a tile's row where fewer are left; what is left then goes one by one."""


@intrinsic
def take_tile(
    typing: Any, rows: Any, width: Any, C: Any, i: Any, A: Any, a: Any, B: Any, k0: Any, k1: Any,
    j: Any,
) -> Any:  # fmt: skip
    """Take ``A[k, a + r] * B[k, j:][:n]`` from ``C[i + r, j:][:n]``, for k from k0 to k1 in turn.

    Parameters
    ----------
    rows, width : int, written out
        The tile's rows, r, and the bytes of each, n numbers; at least one.
    C, A, B : ndarray (rows, columns)
        In double or in single precision, C-contiguous. What is changed of `C` must be none of what
        is read of `B`.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        C, A, B = (_Matrix(context, builder, kinds[n], arguments[n]) for n in (2, 4, 6))
        i, a, k0, k1, j = (arguments[n] for n in (3, 5, 7, 8, 9))
        count = max(1, kinds[1].literal_value // C.itemsize)
        lanes = min(count, _REGISTER // C.itemsize)
        places = [
            (_plus(builder, i, r), _plus(builder, j, start))
            for r in range(kinds[0].literal_value)
            for start in range(0, count, lanes)
        ]
        sums = [cgutils.alloca_once_value(builder, C.load(*place, lanes)) for place in places]
        with cgutils.for_range_slice(builder, k0, k1, ir.Constant(k0.type, 1), k0.type) as (k, _):
            seen = [B.load(k, _plus(builder, j, n), lanes) for n in range(0, count, lanes)]
            for n, total in enumerate(sums):
                row, part = divmod(n, len(seen))
                factor = repeated(builder, A.load(k, _plus(builder, a, row)), lanes)
                taken = builder.fmul(factor, seen[part])
                builder.store(builder.fsub(builder.load(total), taken), total)
        for total, place in zip(sums, places, strict=True):
            C.store(builder.load(total), *place)
        return context.get_dummy_value()

    number = types.int64
    return types.void(rows, width, C, number, A, number, B, number, number, number), build


def _plus(builder: Any, number: Any, more: int) -> Any:
    return builder.add(number, ir.Constant(number.type, more))


class _Matrix:
    """A matrix whose rows lie one after the other."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        if kind.layout != "C" or kind.ndim != 2:
            raise TypeError(f"{kind}: rows do not lie one after the other")
        made = cgutils.create_struct_proxy(kind)(context, builder, array)
        self.itemsize = kind.dtype.bitwidth // 8
        self._builder, self._data = builder, made.data
        self._columns = cgutils.unpack_tuple(builder, made.shape)[1]

    def _at(self, row: Any, column: Any) -> Any:
        first = self._builder.add(self._builder.mul(row, self._columns), column)
        return self._builder.gep(self._data, [first])

    def load(self, row: Any, column: Any, lanes: int = 0) -> Any:
        """Return an element, or a vector of a row's elements."""
        place = self._at(row, column)
        if lanes:
            vector = ir.VectorType(self._data.type.pointee, lanes)
            place = self._builder.bitcast(place, vector.as_pointer())
        return self._builder.load(place, align=self.itemsize)

    def store(self, values: Any, row: Any, column: Any) -> None:
        """Write a vector into a row."""
        place = self._builder.bitcast(self._at(row, column), values.type.as_pointer())
        self._builder.store(values, place, align=self.itemsize)
