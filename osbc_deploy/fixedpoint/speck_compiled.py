"""Speck's arithmetic compiled: sums as in Loihi's engine, where every spike is a graded one.

Neurons share nothing with the specification (:mod:`.speck`) but the equations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.cells import Cell
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.compiled import Bench, Course, EnginePlan
from osbc_deploy.fixedpoint.kernels import find_values
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.record import Traces
from osbc_deploy.fixedpoint.speck import LARGEST_SUM, MOST_SPIKES, check_spikes
from osbc_deploy.fixedpoint.tally import Tally
from osbc_deploy.jit import compiled

__all__ = ["SpeckPlan"]


class _SpeckCourse(Course):
    """Some samples on their way through the network."""

    def __init__(
        self, plan: EnginePlan, bench: Bench, signal: IntArray, traces: Traces, tally: Tally,
        floor: int,
    ) -> None:  # fmt: skip
        super().__init__(plan, bench, signal, traces, tally)
        self.floor = floor

    def find(self, spikes: IntArray, begin: int, end: int, events: Any) -> None:
        """List the active neurons: any may fire several times."""
        find_values(spikes, begin, end, *events)

    def neurons(
        self, name: str, cell: Cell, begin: int, end: int, spikes: IntArray, kept: Any, events: Any
    ) -> bool:
        """Run the neurons of a population for some steps, and list those that fire."""
        *_, bias, threshold, _ = cell.registers
        subtract, *_ = cell.resets
        a = self.combined(name, begin, end, np.int64).reshape(spikes.shape)
        state, seen = self.bench.states[name][1], self.seen[name]
        most = _neurons(
            a, bias, threshold, self.floor, subtract, state, seen, self.counts[name], spikes, kept
        )
        if self.plan.strict:
            check_spikes(name, most)
        if len(events[0]):
            self.find(spikes, 0, end - begin, events)
        # Sums do not wrap.
        return False


class SpeckPlan(EnginePlan):
    """A network prepared for the kernels; see :class:`.compiled.EnginePlan`."""

    def __init__(
        self, network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool
    ) -> None:
        self.limit = network.formats.state_limit
        # Sums do not wrap, whatever connections do on other chips.
        wide = replace(network.formats, state_bits=LARGEST_SUM.bit_length())
        graded = replace(
            network,
            formats=wide,
            projections=tuple(replace(q, graded=True) for q in network.projections),
            input=InputFormat("integers", MOST_SPIKES.bit_length()),
        )
        super().__init__(graded, max(peak, MOST_SPIKES), given, strict=strict)

    def course(self, bench: Bench, signal: IntArray, traces: Traces, tally: Tally) -> Course:
        """Return what takes some samples through the network."""
        return _SpeckCourse(self, bench, signal, traces, tally, -self.limit)


@compiled
def _neurons(
    a: Any,
    bias: Any,
    threshold: Any,
    floor: int,
    subtract: bool,
    v: Any,
    seen: Any,
    counts: Any,
    spikes: Any,
    kept: Any,
) -> int:
    """Run neurons; return the most that one fired in a step.

    Parameters
    ----------
    a : ndarray of int64 (S, steps, n)
        What arrives.
    bias, threshold : ndarray (n,)
    floor : int
        The least potential that is kept.
    subtract : bool
        Whether a spike takes the threshold away, or any leaves a potential of 0.
    v : ndarray (S, n)
        Changed.
    seen : ndarray of int64 (S, 4)
        Peaks of what arrives and of potentials, nothing, and how often one was below the floor;
        changed.
    counts : ndarray of int32 (n,)
        Spikes; changed.
    spikes : ndarray of uint8 (S, steps, n)
        Written.
    kept : tuple of two ndarrays of int32 (S, steps, n)
        What arrives and potentials of every step, where they have that shape; otherwise empty.
    """
    samples, steps, n = a.shape
    keeps_u, keeps_v = kept[0].size > 0, kept[1].size > 0
    most = 0
    for s in range(samples):
        for t in range(steps):
            for j in range(n):
                arrived = a[s, t, j] + np.int64(bias[j])
                left = np.int64(v[s, j]) + arrived
                fired = 0
                if left >= threshold[j]:
                    fired = left // np.int64(threshold[j])
                    left = left - fired * np.int64(threshold[j]) if subtract else np.int64(0)
                    most = max(most, fired)
                    counts[j] += fired
                seen[s, 0] = max(seen[s, 0], abs(arrived))
                seen[s, 1] = max(seen[s, 1], abs(left))
                if left < floor:
                    seen[s, 3] += 1
                    left = floor
                spikes[s, t, j] = min(fired, MOST_SPIKES)
                v[s, j] = left
                if keeps_u:
                    kept[0][s, t, j] = arrived
                if keeps_v:
                    kept[1][s, t, j] = left
    return most
