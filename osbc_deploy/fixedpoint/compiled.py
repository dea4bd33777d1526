"""The engine that runs by default: event-driven, compiled, one sample after the other per thread.

A projection is prepared once (:mod:`osbc_deploy.fixedpoint.passes`): its synapses are laid out by
presynaptic neuron, so that a spike only touches the sums it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ReferenceType, WeakKeyDictionary, ref

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
)
from osbc_deploy.fixedpoint.passes import Pass, passes_of
from osbc_deploy.fixedpoint.record import Activity, Traces, refuse_current

__all__ = ["EnginePlan", "plan_of"]

_PLANS: WeakKeyDictionary[FixedPointNetwork, dict[tuple[int, frozenset[str]], EnginePlan]]
_PLANS = WeakKeyDictionary()


def plan_of(network: FixedPointNetwork, peak: int, given: frozenset[str]) -> EnginePlan:
    """Return the plan of a network, made once as long as the network lives."""
    plans = _PLANS.setdefault(network, {})
    if (peak, given) not in plans:
        plans[peak, given] = EnginePlan(network, peak, given)
    return plans[peak, given]


class EnginePlan:
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
            [] if p.post in given else passes_of(p, order[p.post], network, peak)
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
        return cls(
            p, tuple(p.decoded(formats)), (p.reset == "subtract", p.reset_interval, p.reset_offset)
        )


class _Sample:
    """One sample on its way through the network."""

    def __init__(
        self, plan: EnginePlan, signal: IntArray, sample: int, traces: Traces, strict: bool
    ) -> None:
        # Kernels are compiled for two types of input.
        kind = np.uint8 if signal.dtype == np.uint8 else np.int32
        self.plan, self.signal, self.strict = plan, np.ascontiguousarray(signal, kind), strict
        self.sample, self.traces = sample, traces
        self.steps = len(signal)
        formats = plan.network.formats
        self.widths = (formats.decay_bits, formats.state_shift, formats.state_limit)
        self.sums: dict[int, IntArray] = {}
        self.partial: dict[int, list[tuple[Pass, IntArray]]] = {}
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

    def _own_sum(self, part: Pass) -> IntArray:
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
