"""Vector instructions for the kernels, where a compiler cannot know that nothing overlaps."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from osbc_deploy.vectors import cgutils, element, intrinsic, repeated, types, vector_at

__all__ = [
    "LANES",
    "SPAN",
    "SPANS",
    "WIDE",
    "add_lanes",
    "add_rows",
    "add_span",
    "put_places",
    "put_taps",
]

LANES = 16
"""Sums that a block of weights reaches side by side: one vector register of 16-bit sums."""

WIDE = 64
"""Sums that rows of weights are added to at a time."""

SPAN = 32
"""Places of a map that a weight is multiplied with at a time: the widest register of 16 bits."""

SPANS = 6
"""Most spans of a map whose sums stay in registers, also where these are half as wide."""


@intrinsic
def add_lanes(typing: Any, out: Any, at: Any, weight: Any, first: Any) -> Any:
    """Add ``weight[first : first + LANES]`` to ``out[at : at + LANES]``; none are negative."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, total = vector_at(
            context, builder, signature.args[0], arguments[0], arguments[1], LANES
        )
        _, added = vector_at(context, builder, signature.args[2], arguments[2], arguments[3], LANES)
        if added.type != total.type:
            added = builder.sext(added, total.type)
        builder.store(builder.add(total, added), to, align=signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(out, types.int64, weight, types.int64), build


@intrinsic
def add_rows(typing: Any, out: Any, at: Any, weight: Any, rows: Any, behind: Any) -> Any:
    """Add ``weight[row + behind :][:WIDE]`` of eight rows to ``out[at : at + WIDE]``."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[2].dtype
        # The sum of eight fits twice the bits.
        double = ir.VectorType(ir.IntType(2 * kind.bitwidth), WIDE)
        added = None
        for row in cgutils.unpack_tuple(builder, arguments[3]):
            first = builder.add(row, arguments[4])
            _, values = vector_at(context, builder, signature.args[2], arguments[2], first, WIDE)
            values = builder.sext(values, double)
            added = values if added is None else builder.add(added, values)
        to, total = vector_at(context, builder, signature.args[0], arguments[0], arguments[1], WIDE)
        if double != total.type:
            added = builder.sext(added, total.type)
        builder.store(builder.add(total, added), to, align=signature.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(out, types.int64, weight, types.UniTuple(types.int64, 8), types.int64), build


@intrinsic
def put_places(typing: Any, out: Any, at: Any, table: Any, first: Any, base: Any) -> Any:
    """Set ``out[at : at + 8]`` (int32) to ``base + table[first : first + 8]`` (uint8)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, old = vector_at(context, builder, signature.args[0], arguments[0], arguments[1], 8)
        _, places = vector_at(context, builder, signature.args[2], arguments[2], arguments[3], 8)
        start = repeated(builder, arguments[4], 8)
        builder.store(builder.add(builder.zext(places, old.type), start), to, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, table, types.int64, types.int32), build


@intrinsic
def put_taps(
    typing: Any, spans: Any, maps: Any, at: Any, offset: Any, weight: Any, first: Any, stop: Any,
    out: Any, to: Any,
) -> Any:  # fmt: skip
    """Set ``out[to :][: SPAN * spans]`` to ``weight[e] * maps[at + offset[e] :]``, added up.

    `e` runs from `first` to `stop`; `spans` is from 1 to :data:`SPANS`. All but `offset`, which is
    not negative, are of 16 bits.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        spans, maps, at, offset, weight, first, stop, out, to = arguments
        kinds = signature.args
        vector = ir.VectorType(ir.IntType(16), SPAN)
        step = ir.Constant(first.type, 1)
        for count in range(1, SPANS + 1):
            # Each number of sums that are held in registers is a loop of its own.
            places = [ir.Constant(to.type, SPAN * n) for n in range(count)]
            with builder.if_then(builder.icmp_signed("==", spans, ir.Constant(to.type, count))):
                sums = [cgutils.alloca_once(builder, vector) for _ in places]
                for total in sums:
                    builder.store(ir.Constant(vector, [0] * SPAN), total)
                with cgutils.for_range_slice(builder, first, stop, step, first.type) as (e, _):
                    start = builder.zext(element(context, builder, kinds[3], offset, e), at.type)
                    start = builder.add(at, start)
                    value = element(context, builder, kinds[4], weight, e)
                    factor = repeated(builder, value, SPAN)
                    for total, place in zip(sums, places, strict=True):
                        here = builder.add(start, place)
                        _, seen = vector_at(context, builder, kinds[1], maps, here, SPAN)
                        added = builder.add(builder.load(total), builder.mul(seen, factor))
                        builder.store(added, total)
                for total, place in zip(sums, places, strict=True):
                    here = builder.add(to, place)
                    there, _ = vector_at(context, builder, kinds[7], out, here, SPAN)
                    builder.store(builder.load(total), there, align=2)
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, maps, number, offset, weight, number, number, out, number), build


@intrinsic
def add_span(typing: Any, out: Any, at: Any, values: Any, first: Any, count: Any) -> Any:
    """Add exactly ``values[first :][:count]`` to ``out[at :]``, so that no store meets a load."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, values, first, count = arguments
        kind = signature.args[0]

        def add(done: Any, many: int) -> None:
            to, total = vector_at(context, builder, kind, out, builder.add(at, done), many)
            here = builder.add(first, done)
            _, added = vector_at(context, builder, signature.args[2], values, here, many)
            if added.type != total.type:
                added = builder.sext(added, total.type)
            builder.store(builder.add(total, added), to, align=kind.dtype.bitwidth // 8)

        def number(value: int) -> Any:
            return ir.Constant(count.type, value)

        whole = builder.and_(count, number(-SPAN))
        loop = cgutils.for_range_slice(builder, number(0), whole, number(SPAN), count.type)
        with loop as (done, _):
            add(done, SPAN)
        many = SPAN // 2
        while many:
            # What of the rest is larger than this comes before.
            wanted = builder.icmp_signed("!=", builder.and_(count, number(many)), number(0))
            with builder.if_then(wanted):
                add(builder.and_(count, number(-2 * many)), many)
            many //= 2
        return context.get_dummy_value()

    number = types.int64
    return types.void(out, number, values, number, number), build
