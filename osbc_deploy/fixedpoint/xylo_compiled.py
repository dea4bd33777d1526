"""Xylo's arithmetic compiled: the whole core neuron by neuron and synapse by synapse.

It shares nothing with the specification (:mod:`.xylo`) but the equations.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork
from osbc_deploy.fixedpoint.record import Activity, Traces
from osbc_deploy.fixedpoint.xylo import MOST_SPIKES, ways_into
from osbc_deploy.jit import compiled

__all__ = ["XyloPlan"]


class XyloPlan:
    """A network as one core: all neurons in a row, the outputs last.

    Parameters
    ----------
    network : FixedPointNetwork
    given : frozenset of str
        Populations that will not run.
    """

    def __init__(self, network: FixedPointNetwork, given: frozenset[str]) -> None:
        self.names = [p.name for p in network.populations]
        self.given, self.depth = given, network.depth
        sizes = [p.size for p in network.populations]
        ends = np.cumsum(sizes)
        self.places = {
            name: slice(int(end - size), int(end))
            for name, size, end in zip(self.names, sizes, ends, strict=True)
        }
        self.inputs = int(np.prod(network.input_shape))
        total = int(ends[-1])
        # A row for each source, the inputs first.
        self.weight = np.zeros((self.inputs + total, total), np.int32)
        for name in self.names:
            for projection, weight in ways_into(network, name):
                rows = slice(0, self.inputs)
                if projection.pre != INPUT:
                    place = self.places[projection.pre]
                    rows = slice(self.inputs + place.start, self.inputs + place.stop)
                self.weight[rows, self.places[name]] += weight.T.astype(np.int32)
        self.registers = np.stack(
            [
                np.concatenate([getattr(p, name) for p in network.populations]).astype(np.int32)
                for name in ("du", "dv", "vth", "bias_mant")
            ]
        )
        self.most = np.full(total, MOST_SPIKES["hidden"], np.int32)
        self.most[self.places[network.output.name]] = MOST_SPIKES["output"]
        self.runs = np.ones(total, np.bool_)
        for name in given:
            self.runs[self.places[name]] = False
        self.limit = network.formats.state_limit

    def batch(self, steps: int, most: int) -> int:
        """Return how many samples go into one run."""
        del steps
        return max(1, min(most, 4 * (os.cpu_count() or 1)))

    def run(self, signal: IntArray, traces: Traces) -> dict[str, Activity]:
        """Run samples (S, T, input size); see :func:`.plain.run_plain`."""
        samples, steps = signal.shape[:2]
        late = max(self.depth[n] for n in self.names if n not in self.given) - 1
        total = len(self.most)
        spikes = np.zeros((steps + late, total), np.uint8)
        kept = np.zeros((2, steps + late, total), np.int32)
        first = np.zeros(total, np.int64)
        for name in self.names:
            first[self.places[name]] = self.depth[name] - 1
        peaks = np.zeros((3, total), np.int64)
        counts = np.zeros(total, np.int64)
        for s in range(samples):
            spikes[:] = 0
            for name in self.given:
                start = self.depth[name] - 1
                raster = traces.spikes[name][s][: max(0, steps + late - start)]
                spikes[start : start + steps, self.places[name]] = raster
            _core(
                np.ascontiguousarray(signal[s], np.int32), self.weight, self.registers, self.most,
                self.runs, self.limit, first, spikes, kept, peaks, counts,
            )  # fmt: skip
            for name, place in self.places.items():
                own = slice(self.depth[name] - 1, self.depth[name] - 1 + steps)
                if name in self.given:
                    continue
                for wanted, found in (
                    (traces.spikes, spikes),
                    (traces.u, kept[0]),
                    (traces.v, kept[1]),
                ):
                    if name in wanted:
                        wanted[name][s] = found[own, place]
        return {
            name: Activity(
                int(counts[place].sum()),
                samples * steps * (place.stop - place.start),
                int(peaks[0, place].max()),
                int(peaks[1, place].max()),
                0,
                int(peaks[2, place].sum()),
                counts[place].copy(),
            )
            for name, place in self.places.items()
            if name not in self.given
        }


@compiled
def _gone(x: int, dash: int) -> int:
    part = x >> dash
    if part == 0 and x != 0:
        part = 1 if x > 0 else -1
    return part


@compiled
def _clipped(x: int, limit: int) -> int:
    return min(max(x, -limit), limit - 1)


@compiled
def _core(
    signal: Any,
    weight: Any,
    registers: Any,
    most: Any,
    runs: Any,
    limit: int,
    first: Any,
    spikes: Any,
    kept: Any,
    peaks: Any,
    counts: Any,
) -> None:
    """Run one sample; `spikes` and `kept` are filled in, in the core's time.

    Parameters
    ----------
    signal : ndarray of int32 (T, inputs)
    weight : ndarray of int32 (inputs + N, N)
    registers : ndarray of int32 (4, N)
        Shifts of current and potential, thresholds, biases.
    most : ndarray of int32 (N,)
    runs : ndarray of bool (N,)
        Where spikes are not given.
    limit : int
    first : ndarray of int64 (N,)
        The step that is a neuron's own first one.
    spikes : ndarray of uint8 (steps, N)
    kept : ndarray of int32 (2, steps, N)
    peaks : ndarray of int64 (3, N)
        Largest current and potential before saturation, and how often one saturated.
    counts : ndarray of int64 (N,)
    """
    steps, inputs = signal.shape
    total = len(most)
    u, v = np.zeros(total, np.int64), np.zeros(total, np.int64)
    whole = np.zeros(total, np.int64)
    for t in range(len(spikes)):
        for j in range(total):
            whole[j] = u[j]
        for pre in range(inputs + total):
            n = 0
            if pre < inputs:
                n = signal[t, pre] if t < steps else 0
            elif t > 0:
                n = spikes[t - 1, pre - inputs]
            if n:
                for j in range(total):
                    w = n * np.int64(weight[pre, j])
                    whole[j] += w
                    u[j] = _clipped(u[j] + w, limit)
        for j in range(total):
            if not runs[j]:
                continue
            clipped = u[j] != whole[j]
            u[j] -= _gone(u[j], registers[0, j])
            change = -_gone(v[j], registers[1, j])
            if change == limit:
                change = -limit
            change = _clipped(_clipped(change + u[j], limit) + registers[3, j], limit)
            raw = v[j] + change
            v[j] = _clipped(raw, limit)
            clipped |= v[j] != raw
            n = 0
            while v[j] >= registers[2, j] and n < most[j]:
                n += 1
                v[j] -= registers[2, j]
            spikes[t, j] = n
            kept[0, t, j] = u[j]
            kept[1, t, j] = v[j]
            if first[j] <= t < first[j] + steps:
                peaks[0, j] = max(peaks[0, j], abs(whole[j]))
                peaks[1, j] = max(peaks[1, j], abs(raw))
                peaks[2, j] += clipped
                counts[j] += n
