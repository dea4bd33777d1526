"""A step of neurons in vector instructions: one pass over their memory.

A compiler vectorizes such a loop only where it can tell that its arrays do not overlap, which are
too many for that; and it does not skip what hardly ever happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from osbc_deploy.vectors import cgutils, intrinsic, repeated, types, vector_at

__all__ = ["step_neurons"]

_WIDTHS = (16, 4, 1)
"""Neurons at a time, while at least this many are left."""

_STATE, _NUMBER = ir.IntType(32), ir.IntType(64)


@intrinsic
def step_neurons(
    typing: Any, stays: Any, subtract: Any, sums: Any, at: Any, places: Any, registers: Any,
    u: Any, v: Any, fires: Any, to: Any, total: Any, count: Any, limit: Any,
) -> Any:  # fmt: skip
    """Run `count` neurons for a step; return peaks of u and v, wraps, saturations (int64).

    Parameters
    ----------
    stays, subtract : {0, 1}, written out
        Whether shares of currents stay; whether a spike subtracts the drop, or sets to 0.
    sums : ndarray
        From `at` on what has arrived; set to 0.
    places : int
        To shift what has arrived left.
    registers : tuple
        Shares, bias, threshold and drop, as :func:`.stepping.neurons` has them.
    u, v : ndarray of int32
        Changed; u only if it stays.
    fires : ndarray of uint8
        From `to` on who fires; written.
    total : ndarray of int32
        Spikes; changed.
    limit : int
        Half the range of a state.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        step = _Step(context, builder, signature, arguments)
        count = arguments[-2]
        start = ir.Constant(count.type, 0)
        for width in _WIDTHS:
            stop = builder.and_(count, ir.Constant(count.type, -width))
            step.run(width, start, stop)
            start = stop
        return context.make_tuple(builder, signature.return_type, step.result())

    number = types.int64
    return types.UniTuple(number, 4)(
        stays, subtract, sums, number, number, registers, u, v, fires, number, total, number, number
    ), build


class _Step:
    """The instructions of a step."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        stays, subtract, *kinds = signature.args
        self.stays, self.subtract = bool(stays.literal_value), bool(subtract.literal_value)
        _, _, sums, self.at, places, registers, u, v, fires, self.to, total, _, limit = arguments
        # What has no bits left in a register may be asked to shift by more than it has.
        places = builder.and_(places, ir.Constant(places.type, _STATE.width - 1))
        self.places, self.limit = builder.trunc(places, _STATE), builder.trunc(limit, _STATE)
        share_u, share_v, bias, threshold, drop = cgutils.unpack_tuple(builder, registers)
        self.arrays = {
            "sums": (kinds[0], sums),
            "share_u": (kinds[3][0], share_u),
            "share_v": (kinds[3][1], share_v),
            "bias": (kinds[3][2], bias),
            "threshold": (kinds[3][3], threshold),
            "drop": (kinds[3][4], drop),
            "u": (kinds[4], u),
            "v": (kinds[5], v),
            "fires": (kinds[6], fires),
            "total": (kinds[8], total),
        }
        zero = ir.Constant(_NUMBER, 0)
        self.found = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]

    def run(self, width: int, start: Any, stop: Any) -> None:
        """Run neurons, `width` side by side."""
        builder = self.builder
        vector = ir.VectorType(_STATE, width)
        peaks = [cgutils.alloca_once(builder, vector) for _ in range(2)]
        for peak in peaks:
            builder.store(ir.Constant(vector, [0] * width), peak)
        by = ir.Constant(stop.type, width)
        with cgutils.for_range_slice(builder, start, stop, by, stop.type) as (j, _):
            self._step(j, width, *peaks)
        for lanes, whole in zip(peaks, self.found[:2], strict=True):
            found = builder.load(lanes)
            half = width // 2
            while half:
                other = ir.Constant(ir.VectorType(_STATE, half), list(range(half, 2 * half)))
                first = ir.Constant(ir.VectorType(_STATE, half), list(range(half)))
                found = self._larger(
                    builder.shuffle_vector(found, found, first),
                    builder.shuffle_vector(found, found, other),
                )
                half //= 2
            one = builder.extract_element(found, ir.Constant(_STATE, 0))
            builder.store(self._larger(builder.sext(one, _NUMBER), builder.load(whole)), whole)

    def result(self) -> list[Any]:
        """Return peaks of u and v, wraps and saturations."""
        return [self.builder.load(place) for place in self.found]

    def _step(self, j: Any, width: int, peak_u: Any, peak_v: Any) -> None:
        """Run some neurons side by side."""
        builder = self.builder
        current = self._current(j, width, peak_u)
        potential = self._potential(j, width, current, peak_v)
        _, threshold = self._at("threshold", j, width)
        fired = builder.icmp_signed(">", potential, threshold)
        to_fires, old = self._at("fires", builder.add(self.to, j), width)
        builder.store(builder.zext(fired, old.type), to_fires, align=1)
        to_total, total = self._at("total", j, width)
        builder.store(builder.add(total, builder.zext(fired, total.type)), to_total, align=4)
        left = ir.Constant(potential.type, [0] * width)
        if self.subtract:
            left = builder.sub(potential, self._at("drop", j, width)[1])
        to_v, _ = self._at("v", j, width)
        builder.store(builder.select(fired, left, potential), to_v, align=4)

    def _current(self, j: Any, width: int, peak: Any) -> Any:
        """Return the currents of some neurons, and forget what has arrived."""
        builder, state = self.builder, ir.VectorType(_STATE, width)
        sums, arrived = self._at("sums", builder.add(self.at, j), width)
        align = int(self.arrays["sums"][0].dtype.bitwidth) // 8
        builder.store(ir.Constant(arrived.type, [0] * width), sums, align=align)
        if arrived.type.element.width < _STATE.width:
            arrived = builder.sext(arrived, state)
        raw = builder.shl(arrived, repeated(builder, self.places, width))
        to, old = self._at("u", j, width)
        if self.stays:
            raw = builder.add(raw, self._shared(old, "share_u", j, width))
        self._rise(peak, raw)
        limit = repeated(builder, self.limit, width)
        above = builder.icmp_signed(">", raw, limit)
        below = builder.icmp_signed("<=", raw, builder.neg(limit))
        turn = builder.add(limit, limit)
        current = self._seldom(
            2,
            builder.or_(above, below),
            raw,
            lambda: builder.select(
                above, builder.sub(raw, turn), builder.select(below, builder.add(raw, turn), raw)
            ),
        )
        if self.stays:
            builder.store(current, to, align=4)
        return current

    def _potential(self, j: Any, width: int, current: Any, peak: Any) -> Any:
        """Return the potentials of some neurons before they fire."""
        builder = self.builder
        _, old = self._at("v", j, width)
        _, bias = self._at("bias", j, width)
        kept = self._shared(old, "share_v", j, width)
        raw = builder.add(builder.add(kept, current), bias)
        self._rise(peak, raw)
        limit = repeated(builder, self.limit, width)
        above = builder.icmp_signed(">=", raw, limit)
        below = builder.icmp_signed("<=", raw, builder.neg(limit))
        most = builder.sub(limit, ir.Constant(raw.type, [1] * width))
        return self._seldom(
            3,
            builder.or_(above, below),
            raw,
            lambda: builder.select(above, most, builder.select(below, builder.neg(most), raw)),
        )

    def _seldom(self, number: int, which: Any, values: Any, instead: Callable[[], Any]) -> Any:
        """Return values, or others where any of `which` is set; those are counted."""
        builder = self.builder
        bits = builder.bitcast(which, ir.IntType(which.type.count))
        place = cgutils.alloca_once(builder, values.type)
        builder.store(values, place)
        some = builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))
        with builder.if_then(some, likely=False):
            builder.store(instead(), place)
            seen = builder.ctpop(builder.zext(bits, _NUMBER))
            whole = self.found[number]
            builder.store(builder.add(builder.load(whole), seen), whole)
        return builder.load(place)

    def _shared(self, values: Any, share: str, j: Any, width: int) -> Any:
        """Return the shares of states that are kept.

        A share is a multiple of a power of two, so the product is exact; it is rounded towards
        zero.
        """
        _, shares = self._at(share, j, width)
        exact = self.builder.fmul(self.builder.sitofp(values, shares.type), shares)
        return self.builder.fptosi(exact, values.type)

    def _rise(self, peak: Any, values: Any) -> None:
        """Raise peaks to magnitudes."""
        builder = self.builder
        zeros = ir.Constant(values.type, [0] * values.type.count)
        negative = builder.icmp_signed("<", values, zeros)
        size = builder.select(negative, builder.neg(values), values)
        builder.store(self._larger(size, builder.load(peak)), peak)

    def _larger(self, one: Any, other: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed(">", one, other), one, other)

    def _at(self, name: str, place: Any, width: int) -> tuple[Any, Any]:
        return vector_at(self.context, self.builder, *self.arrays[name], place, width)
