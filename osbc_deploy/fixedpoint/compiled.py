"""The engine that runs by default: event-driven, compiled, one sample after the other per thread.

A projection is prepared once: its exponent is folded into its weights where no bit is lost, and
its synapses are laid out by presynaptic neuron (rows where most are there, lists where few are,
kernels for convolutions). A spike then only touches the sums it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np
from scipy.sparse import csc_array

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.arithmetic import effective_bias
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConv,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.record import Activity, Traces, refuse_current
from osbc_deploy.model.graph import Shape

__all__ = ["Plan", "plan_of"]

_DENSE_FROM = 0.08
"""Density from which adding whole rows is faster than following lists (measured)."""


_PLANS: WeakKeyDictionary[FixedPointNetwork, dict[tuple[int, frozenset[str]], Plan]]
_PLANS = WeakKeyDictionary()


def plan_of(network: FixedPointNetwork, peak: int, given: frozenset[str]) -> Plan:
    """Return the plan of a network, made once as long as the network lives."""
    plans = _PLANS.setdefault(network, {})
    if (peak, given) not in plans:
        plans[peak, given] = Plan(network, peak, given)
    return plans[peak, given]


class Plan:
    """A network prepared for the kernels; may be used by several threads at once.

    Parameters
    ----------
    network : FixedPointNetwork
    peak : int
        Largest magnitude of a graded input.
    given : frozenset of str
        Populations that will not run; nothing is prepared for what they hear.
    """

    def __init__(self, network: FixedPointNetwork, peak: int, given: frozenset[str]) -> None:
        # Weak, or the cache of plans would keep every network alive.
        self._network: ReferenceType[FixedPointNetwork] = ref(network)
        self.populations = [_Registers.of(p, network.formats) for p in network.populations]
        order = {p.name: number for number, p in enumerate(network.populations)}
        self.passes = [
            [] if p.post in given else _passes(p, order[p.post], network, peak)
            for p in network.projections
        ]
        widest = max((p.bound for passes in self.passes for p in passes), default=0)
        # Sums of several projections meet in one place.
        self.dtype = np.int32 if widest * len(network.projections) < 2**31 else np.int64
        self.blocks = [(*block, network.is_recurrent(*block)) for block in network.blocks()]

    @property
    def network(self) -> FixedPointNetwork:
        """The network; whoever runs the plan holds it."""
        network = self._network()
        if network is None:
            raise ReferenceError("the network of this plan is gone")
        return network

    def run(
        self, signal: IntArray, sample: int, traces: Traces, *, strict: bool
    ) -> dict[str, Activity]:
        """Run one sample (T, input size); see :func:`osbc_deploy.fixedpoint.plain.run_plain`."""
        return _Sample(self, signal, sample, traces, strict).run()


@dataclass(frozen=True, eq=False)
class _Registers:
    """The registers of a population as the kernel takes them."""

    population: FixedPopulation
    registers: tuple[IntArray, ...]
    resets: tuple[bool, int, int]

    @classmethod
    def of(cls, p: FixedPopulation, formats: NumberFormats) -> _Registers:
        registers = (
            formats.decay_unity - (p.du.astype(np.int64) + formats.decay_u_offset),
            formats.decay_unity - p.dv.astype(np.int64),
            effective_bias(p.bias_mant, p.bias_exp),
            p.vth.astype(np.int64) << formats.state_shift,
            p.reset_amount.astype(np.int64) << formats.state_shift,
        )
        return cls(p, registers, (p.reset == "subtract", p.reset_interval, p.reset_offset))


@dataclass(frozen=True, eq=False)
class _Pass:
    """Synapses that a kernel can deliver at one go.

    `direct` ones add to the activation itself; the others to a sum of their own, which is
    shifted right by `exponent`, wrapped and reordered on its way.
    """

    post: int
    graded: bool
    latency: int
    push: Callable[..., None]
    tables: tuple[Any, ...]
    bound: int
    exponent: int = 0
    wrap: int = 0
    channels: int = 1

    @property
    def direct(self) -> bool:
        return not (self.exponent or self.wrap) and self.channels == 1


def _passes(
    projection: FixedProjection, post: int, network: FixedPointNetwork, peak: int
) -> list[_Pass]:
    connection = projection.connection
    weight, right = _folded(connection.weight.astype(np.int64), projection.weight_exp)
    bound = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0))
    bound *= peak if projection.graded else 1
    latency = network.latency(projection)

    def made(push: Any, tables: tuple[Any, ...], late: int = 0, **rest: Any) -> _Pass:
        return _Pass(
            post, projection.graded, latency + late, push, tables, bound, exponent=right, **rest
        )

    if isinstance(connection, FixedConv):
        shape = network.shape_of(projection.pre)
        tables = _conv_tables(connection, weight, shape)
        return [
            made(
                kernels.push_conv,
                tables,
                # A sum that cannot reach the limit need not be wrapped.
                wrap=network.formats.state_limit if bound >= network.formats.state_limit else 0,
                channels=len(weight),
            )
        ]
    delay = connection.delay
    if delay is None or not delay.any():
        return [made(*_dense_tables(weight))]
    if right == 0:
        return [made(kernels.push_delayed, _delayed_tables(weight, delay))]
    # Sums are shifted for each delay on its own.
    return [
        made(*_dense_tables(np.where(delay == d, weight, 0)), late=int(d)) for d in np.unique(delay)
    ]


def _folded(weight: IntArray, exponent: int) -> tuple[IntArray, int]:
    """Return weights with the exponent in them, and the right shift that is left to do."""
    if exponent >= 0:
        return weight << exponent, 0
    if (weight & ((1 << -exponent) - 1)).any():
        return weight, -exponent
    return weight >> -exponent, 0


def _narrow(weight: IntArray) -> IntArray:
    """Return the weights in the smallest type: less to fetch for every spike."""
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    for kind in (np.int8, np.int16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(weight, kind)
    return np.ascontiguousarray(weight, np.int64)


def _index_type(size: int) -> type:
    return np.uint16 if size <= 2**16 else np.uint32


def _dense_tables(weight: IntArray) -> tuple[Any, tuple[Any, ...]]:
    if np.count_nonzero(weight) >= _DENSE_FROM * weight.size:
        return kernels.push_dense, (_narrow(weight.T),)
    columns = csc_array(weight)
    columns.sort_indices()
    return kernels.push_sparse, (
        columns.indptr.astype(np.int64),
        columns.indices.astype(_index_type(len(weight))),
        _narrow(columns.data),
    )


def _delayed_tables(weight: IntArray, delay: IntArray) -> tuple[Any, ...]:
    pre, post = np.nonzero(weight.T)
    start = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=weight.shape[1]))])
    return (
        start.astype(np.int64),
        post.astype(_index_type(len(weight))),
        _narrow(weight[post, pre]),
        delay[post, pre].astype(np.int64),
    )


def _conv_tables(conv: FixedConv, weight: IntArray, shape: Shape) -> tuple[Any, ...]:
    out, per_group, kh, kw = weight.shape
    share = out // conv.groups
    _, height, width = shape
    _, rows, cols = conv.output_shape(shape)
    # To (in, kh, kw reversed, out of group): what one spike touches lies together.
    kernel = weight.reshape(conv.groups, share, per_group, kh, kw).transpose(0, 2, 3, 4, 1)
    kernel = kernel[..., ::-1, :].reshape(conv.groups * per_group, kh, kw * share)
    start, reached, tap = _reach(
        height, rows, kh, conv.stride[0], conv.padding[0], conv.dilation[0]
    )
    across = _runs(
        *_reach(width, cols, kw, conv.stride[1], conv.padding[1], conv.dilation[1]),
        kw,
        share,
        out,
    )
    sizes = (height, width, cols * out, per_group, share)
    return _narrow(kernel), (start, reached, tap), across, tuple(int(x) for x in sizes)


def _reach(
    size: int, result: int, taps: int, stride: int, padding: int, dilation: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return which places of the result a place of the source reaches, by which taps."""
    places, tap = np.indices((size, taps))
    # From the last tap to the first, so that places rise.
    tap = tap[:, ::-1]
    scaled = places + padding - tap * dilation
    valid = (scaled >= 0) & (scaled % stride == 0) & (scaled // stride < result)
    start = np.concatenate([[0], np.cumsum(valid.sum(axis=1))])
    return start.astype(np.int64), (scaled // stride)[valid], tap[valid]


def _runs(
    start: IntArray, reached: IntArray, tap: IntArray, taps: int, share: int, channels: int
) -> tuple[IntArray, ...]:
    """Join taps that lie side by side both in the kernel and in the result."""
    reversed_tap = taps - 1 - tap
    first = np.ones(len(reached), bool)
    if share == channels:
        first[1:] = (np.diff(reached) != 1) | (np.diff(reversed_tap) != 1)
        first[start[:-1][start[:-1] < len(first)]] = True
    run = np.cumsum(first) - 1
    length = np.bincount(run, minlength=int(first.sum()))
    counts = np.concatenate([[0], np.cumsum(first)])
    return (
        counts[start].astype(np.int64),
        (reached[first] * channels).astype(np.int64),
        (reversed_tap[first] * share).astype(np.int64),
        (length * share).astype(np.int64),
    )


class _Sample:
    """One sample on its way through the network."""

    def __init__(
        self, plan: Plan, signal: IntArray, sample: int, traces: Traces, strict: bool
    ) -> None:
        self.plan, self.signal, self.strict = plan, np.ascontiguousarray(signal), strict
        self.sample, self.traces = sample, traces
        self.steps = len(signal)
        formats = plan.network.formats
        self.widths = (formats.decay_bits, formats.state_shift, formats.state_limit)
        self.sums: dict[int, IntArray] = {}
        self.partial: dict[int, list[tuple[_Pass, IntArray]]] = {}
        self.state: dict[int, tuple[IntArray, ...]] = {}
        self.seen: dict[int, tuple[IntArray, ...]] = {}

    def run(self) -> dict[str, Activity]:
        """Run all blocks in order; return what their populations went through."""
        self._push(INPUT, self.signal, 0, self.steps)
        for start, stop, recurrent in self.plan.blocks:
            ranges = [(t, t + 1) for t in range(self.steps)] if recurrent else [(0, self.steps)]
            for begin, end in ranges:
                for number in range(start, stop):
                    self._advance(number, begin, end)
            for number in range(start, stop):
                # What is done need not be kept.
                self.sums.pop(number, None)
                self.partial.pop(number, None)
        return {
            found.population.name: self._activity(number)
            for number, found in enumerate(self.plan.populations)
            if number in self.seen
        }

    def _advance(self, number: int, begin: int, end: int) -> None:
        registers = self.plan.populations[number]
        population = registers.population
        name, size = population.name, population.size
        spikes = self.traces.spikes[name][self.sample]
        if name in self.traces.given:
            self._push(name, spikes, begin, end)
            return
        if number not in self.state:
            initial = population.u_init, population.v_init
            self.state[number] = tuple(values.astype(np.int64) for values in initial)
            self.seen[number] = tuple(np.zeros(size, np.int64) for _ in range(5))
        a = self._sum(number)
        for part, partial in self.partial.get(number, ()):
            kernels.combine(partial, begin, end, part.exponent, part.wrap, part.channels, a)
        u, v = self.traces.u.get(name), self.traces.v.get(name)
        kernels.neurons(
            a,
            begin,
            end,
            registers.registers,
            self.state[number],
            self.seen[number],
            self.widths,
            registers.resets,
            spikes,
            None if u is None else u[self.sample],
            None if v is None else v[self.sample],
        )
        peak = int(self.seen[number][0].max(initial=0))
        if self.strict and peak > 3 * self.widths[2]:
            refuse_current(name, peak, self.plan.network.formats)
        self._push(name, spikes, begin, end)

    def _push(self, name: str, spikes: IntArray, begin: int, end: int) -> None:
        chosen = [
            part
            for projection, parts in zip(
                self.plan.network.projections, self.plan.passes, strict=True
            )
            if projection.pre == name
            for part in parts
        ]
        if not chosen:
            return
        ptr, index = _events(spikes, begin, end)
        for part in chosen:
            out = self._sum(part.post) if part.direct else self._own_sum(part)
            value = spikes if part.graded else None
            part.push(ptr, index, value, begin, part.latency, *part.tables, out)

    def _sum(self, number: int) -> IntArray:
        if number not in self.sums:
            size = self.plan.populations[number].population.size
            self.sums[number] = np.zeros((self.steps, size), self.plan.dtype)
        return self.sums[number]

    def _own_sum(self, part: _Pass) -> IntArray:
        found = self.partial.setdefault(part.post, [])
        for known, partial in found:
            if known is part:
                return partial
        partial = np.zeros_like(self._sum(part.post))
        found.append((part, partial))
        return partial

    def _activity(self, number: int) -> Activity:
        u_peak, v_peak, wraps, saturations, counts = self.seen[number]
        return Activity(
            int(counts.sum()),
            counts.size * self.steps,
            int(u_peak.max(initial=0)),
            int(v_peak.max(initial=0)),
            int(wraps.sum()),
            int(saturations.sum()),
            counts,
        )


def _events(spikes: IntArray, begin: int, end: int) -> tuple[IntArray, IntArray]:
    """Return where the events of each step start, and the active neurons."""
    n = spikes.shape[1]
    ptr = np.empty(end - begin + 1, np.int64)
    index = np.empty(n * (end - begin) + 1, np.int64)
    if end - begin == 1:
        kernels.find_row_events(spikes[begin], ptr, index)
    elif spikes.dtype == np.uint8:
        flat = spikes[begin:end].reshape(-1)
        words = np.frombuffer(flat, np.uint64, flat.size // 8)
        kernels.find_events(flat, words, n, ptr, index)
    else:
        step, place = np.nonzero(spikes[begin:end])
        ptr[:] = np.searchsorted(step, np.arange(end - begin + 1))
        index[: len(place)] = place
    return ptr, index
