"""The engine that runs by default: compiled, some samples at a time per thread.

A network is prepared once (:mod:`.passes`): its synapses are laid out by presynaptic neuron, so
that a spike only touches the sums it changes. Samples run in stretches of some steps, so that what
is on its way between populations takes no more memory, however long they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint import kernels, stepping
from osbc_deploy.fixedpoint.cells import Cell, Total, sites_of
from osbc_deploy.fixedpoint.lanes import WIDE
from osbc_deploy.fixedpoint.maps import saved, trade_of
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork
from osbc_deploy.fixedpoint.packing import Pass
from osbc_deploy.fixedpoint.record import Activity, Traces, refuse_current
from osbc_deploy.fixedpoint.sites import Lines
from osbc_deploy.fixedpoint.stepping import BROUGHT_BACK
from osbc_deploy.fixedpoint.tally import Tally

__all__ = ["Bench", "Course", "EnginePlan"]

_SUMS = 1 << 22
"""Most sums of all populations at a time.

They do not all stay in the second cache, but they are read in one line; a call for fewer would cost
more than they do, as threads take turns to make one.
"""

_LISTED = 1 << 22
"""Most neurons whose spikes are looked through at a time, of all steps and samples together."""

_SAMPLES = 16
"""Most samples that run side by side."""


class EnginePlan:
    """A network prepared for the kernels; may be used by several threads at once.

    Parameters
    ----------
    network : FixedPointNetwork
    peak : int
        Largest magnitude of a graded input.
    given : frozenset of str
        Populations that will not run; nothing is prepared for their input.
    strict : bool
        Refuse currents out of the register's range.
    rates : dict of float, optional
        Share of the input and of populations that fires in a step, where it is known.
    """

    def __init__(
        self,
        network: FixedPointNetwork,
        peak: int,
        given: frozenset[str],
        *,
        strict: bool,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.formats, self.given, self.strict = network.formats, given, strict
        self.names = [p.name for p in network.populations]
        self.trades = {
            p.name: [trade_of(q, network.shape_of(q.pre)) for q in network.afferents(p.name)]
            for p in network.populations
            if p.name not in given
        }
        self.by_maps = frozenset(
            name for name, trades in self.trades.items() if saved(trades, rates or {}) > 0
        )
        self.sites = sites_of(network, given, self.by_maps)
        self.cells = {
            p.name: Cell.of(network, p, self.sites, peak, strict=strict)
            for p in network.populations
            if p.name not in given
        }
        self.heard: dict[str, list[tuple[str, int, Pass]]] = {}
        for name, cell in self.cells.items():
            for number, total in enumerate(cell.totals):
                for part in total.parts:
                    self.heard.setdefault(part.pre, []).append((name, number, part))
        self.graded = any(part.graded for parts in self.heard.values() for *_, part in parts)
        self.blocks = [
            (self.names[start:stop], network.is_recurrent(start, stop))
            for start, stop in network.blocks()
        ]
        self._idle: list[Bench] = []
        self._lock = Lock()

    def batch(self, steps: int, most: int) -> int:
        """Return how many samples of this many steps are run in one call, `most` at most."""
        # Few enough for threads to end together; what comes after each call is for all of them.
        return max(self._side_by_side(steps, most), min(_SAMPLES, -(-most // 2)))

    def _side_by_side(self, steps: int, most: int) -> int:
        if any(recurrent for _, recurrent in self.blocks):
            # Each step is a call for every population; side by side they cost less.
            return max(1, min(_SAMPLES, most))
        return max(1, min(_SAMPLES, most, _SUMS // (self._width * max(steps, 1))))

    @cached_property
    def _width(self) -> int:
        """Sums of a step."""
        return max(1, sum(self.sites[name].pitch for name in self.cells))

    def run(self, signal: IntArray, traces: Traces) -> dict[str, Activity]:
        """Run some samples (S, T, input size); see :func:`.plain.run_plain`."""
        samples, steps = signal.shape[:2]
        size = self._side_by_side(steps, samples)
        tally = Tally(self.sites, self.cells, samples)
        with self._bench(size, steps) as bench:
            for start in range(0, samples, size):
                rows = slice(start, min(start + size, samples))
                self.course(bench, signal[rows], traces.of(rows), tally.of(rows)).run()
        return tally.activity(steps)

    def course(self, bench: Bench, signal: IntArray, traces: Traces, tally: Tally) -> Course:
        """Return what takes some samples through the network."""
        return Course(self, bench, signal, traces, tally)

    @contextmanager
    def _bench(self, samples: int, steps: int) -> Iterator[Bench]:
        """Lend memory to work with: what was used before is warm."""
        largest = max(site.size for site in self.sites.values())
        most = min(_SUMS // self._width, _LISTED // largest) // samples
        length = max(1, min(steps, most))
        with self._lock:
            bench = self._idle.pop() if self._idle else None
        if bench is None or bench.samples < samples or bench.length != length:
            # Fewer samples than before may go in longer stretches.
            bench = Bench(self, samples, length)
        yield bench
        # What an error interrupted is not used again.
        with self._lock:
            self._idle.append(bench)


class Bench:
    """Memory to work with, for some samples side by side and a stretch of steps."""

    def __init__(self, plan: EnginePlan, samples: int, length: int) -> None:
        self.samples, self.length = samples, length
        sites = [plan.sites[name] for name in (INPUT, *plan.names)]
        most = samples * length * max(site.size for site in sites)
        self.sums = {
            (name, number): np.zeros(
                samples * (length + total.tail) * plan.sites[name].pitch + WIDE,
                total.dtype,
            )
            for name, cell in plan.cells.items()
            for number, total in enumerate(cell.totals)
        }
        self.states = {
            name: tuple(np.empty((samples, len(x)), x.dtype) for x in cell.initial)
            for name, cell in plan.cells.items()
        }
        self.ptr = np.empty(samples * length + 1, np.int64)
        self.index = np.empty(most + 8, np.int32)
        self.spikes = np.empty(most, np.uint8)
        heard = (part for parts in plan.heard.values() for _, _, part in parts)
        self._zeros = np.zeros(max((part.places for part in heard), default=0), np.int16)
        self._most = most
        self._other: dict[tuple[str, type], NDArray[Any]] = {}

    def zeros(self, part: Pass) -> tuple[IntArray, ...]:
        """Return the zeros that a pass works with, if any."""
        return (self._zeros[: part.places],) if part.places else ()

    def other(self, what: str, kind: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return memory that not every network needs."""
        if (what, kind) not in self._other:
            self._other[what, kind] = np.empty(self._most, kind)
        return self._other[what, kind][: math.prod(shape)].reshape(shape)


_NOTHING = np.empty((0, 0, 0), np.int32)
_NO_EVENTS = np.empty(0, np.int64), np.empty(0, np.int32)


class Course:
    """Some samples on their way through the network."""

    def __init__(
        self, plan: EnginePlan, bench: Bench, signal: IntArray, traces: Traces, tally: Tally
    ) -> None:
        # Kernels are compiled for two types of input.
        kind = np.uint8 if signal.dtype == np.uint8 else np.int32
        self.plan, self.bench, self.traces = plan, bench, traces
        self.signal = np.ascontiguousarray(signal, kind)
        self.samples, self.steps = signal.shape[:2]
        self.begin = 0
        self.seen, self.counts = tally.seen, tally.counts
        for name, cell in plan.cells.items():
            for state, initial in zip(bench.states[name], cell.initial, strict=True):
                state[: self.samples] = initial
            for number, total in enumerate(cell.totals):
                if total.tail:
                    # What was on its way to the samples before.
                    bench.sums[name, number].fill(0)

    def run(self) -> None:
        """Run all stretches."""
        plan, length = self.plan, self.bench.length
        for start in range(0, self.steps, length):
            self.begin, end = start, min(start + length, self.steps)
            self._push(INPUT, self.signal, self.begin, end)
            for names, recurrent in plan.blocks:
                step = 1 if recurrent else end - self.begin
                for begin in range(self.begin, end, step):
                    for name in names:
                        self._advance(name, begin, begin + step)
            self._carry(end - self.begin)

    def _advance(self, name: str, begin: int, end: int) -> None:
        if name in self.plan.given:
            self._push(name, self.traces.spikes[name], begin, end)
            return
        cell = self.plan.cells[name]
        shape = self.samples, end - begin, self.plan.sites[name].size
        spikes = self.bench.spikes[: math.prod(shape)].reshape(shape)
        kept = tuple(
            self.bench.other(what, np.int32, shape) if name in states else _NOTHING
            for what, states in (("u", self.traces.u), ("v", self.traces.v))
        )
        events = self._events(end - begin) if name in self.plan.heard else _NO_EVENTS
        beyond = self.neurons(name, cell, begin, end, spikes, kept, events)
        if beyond and self.plan.strict:
            peaks, limit = self.seen[name][:, 0], self.plan.formats.state_limit
            refuse_current(
                name, int(peaks[(peaks > BROUGHT_BACK * limit).argmax()]), self.plan.formats
            )
        self._keep(name, begin, end, spikes, *kept)
        self._deliver(name, spikes, begin, end)

    def neurons(
        self, name: str, cell: Cell, begin: int, end: int, spikes: IntArray, kept: Any, events: Any
    ) -> bool:
        """Run the neurons of a population for some steps, and list those that fire.

        Returns
        -------
        bool
            Whether a current is beyond what one wrap brings back.
        """
        formats = self.plan.formats
        common = self.bench.states[name], self.seen[name], self.counts[name]
        if cell.narrow:
            sums, where, lines, exponent = self._arrived(name, begin, end)
            return stepping.neurons(
                sums, where, lines, exponent + formats.state_shift, begin, cell.short,
                *common, formats.state_limit, cell.resets, spikes, kept, events,
            )  # fmt: skip
        a = self.combined(name, begin, end, np.int64).reshape(spikes.shape)
        widths = (formats.decay_bits, formats.state_shift, formats.state_limit)
        return stepping.wide_neurons(
            a, begin, widths, cell.registers, *common, cell.resets, spikes, kept, events
        )

    def _arrived(
        self, name: str, begin: int, end: int
    ) -> tuple[IntArray, tuple[int, ...], Lines, int]:
        """Return the sums of some steps, where they lie, and the exponent that is left."""
        totals, site = self.plan.cells[name].totals, self.plan.sites[name]
        if len(totals) == 1 and totals[0].ready:
            where = self._where(name, totals[0], begin, end)
            return self.bench.sums[name, 0], where, site.lines, totals[0].exponent
        steps, size = end - begin, site.size
        a = self.combined(name, begin, end, np.int32).reshape(-1)
        return a, (self.samples, steps, steps, size, 0), Lines(1, size, size, 0), 0

    def combined(
        self, name: str, begin: int, end: int, kind: type[np.signedinteger[Any]]
    ) -> IntArray:
        """Return the activations (S * steps, n) of all sums together."""
        site = self.plan.sites[name]
        a = self.bench.other("a", kind, (self.samples * (end - begin), site.size))
        for number, total in enumerate(self.plan.cells[name].totals):
            stepping.combine(
                self.bench.sums[name, number],
                self._where(name, total, begin, end),
                site.lines,
                total.exponent,
                total.wrap,
                number == 0,
                a,
            )
        return a

    def _where(self, name: str, total: Total, begin: int, end: int) -> tuple[int, ...]:
        held = self.bench.length + total.tail
        pitch = self.plan.sites[name].pitch
        return self.samples, end - begin, held, pitch, begin - self.begin

    def find(self, spikes: IntArray, begin: int, end: int, events: Any) -> None:
        """List the active neurons of rasters in some steps."""
        # Bytes may be values too.
        spiking = spikes.dtype == np.uint8 and not self.plan.graded
        list_of = kernels.find_events if spiking else kernels.find_values
        list_of(spikes, begin, end, *events)

    def _events(self, steps: int) -> tuple[IntArray, IntArray]:
        """Return where the events of some steps are listed."""
        return self.bench.ptr[: self.samples * steps + 1], self.bench.index

    def _push(self, name: str, spikes: IntArray, begin: int, end: int) -> None:
        """Deliver what comes from outside, spikes (S, T, n)."""
        if name in self.plan.heard:
            self.find(spikes, begin, end, self._events(end - begin))
            self._deliver(name, spikes, begin, end)

    def _deliver(self, name: str, spikes: IntArray, begin: int, end: int) -> None:
        """Deliver listed spikes (S, T, n) of some steps, or of these steps alone."""
        plan, bench = self.plan, self.bench
        first = begin if spikes.shape[1] == self.steps else 0
        events = self._events(end - begin)
        for post, number, part in plan.heard.get(name, ()):
            total = plan.cells[post].totals[number]
            *where, at = self._where(post, total, begin, end)
            value = spikes if part.graded else None
            part.push(
                *events, value, first, (*where, at + part.late), *part.tables,
                *bench.zeros(part), bench.sums[post, number],
            )  # fmt: skip

    def _keep(
        self, name: str, begin: int, end: int, spikes: IntArray, u: IntArray, v: IntArray
    ) -> None:
        """Write down what is wanted, in the order of the network."""
        there = self.plan.sites[name].there
        for wanted, found in (
            (self.traces.spikes, spikes),
            (self.traces.u, u),
            (self.traces.v, v),
        ):
            if name in wanted:
                wanted[name][:, begin:end] = there(found)

    def _carry(self, steps: int) -> None:
        """Bring what arrives later to the front."""
        for name, cell in self.plan.cells.items():
            for number, total in enumerate(cell.totals):
                if not total.tail:
                    continue
                held = self.bench.length + total.tail
                sums = self.bench.sums[name, number][:-WIDE].reshape(self.bench.samples, held, -1)
                late = sums[:, steps : steps + total.tail].copy()
                sums[:, : steps + total.tail] = 0
                sums[:, : total.tail] = late
