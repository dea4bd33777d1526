"""The engine as a specification: NumPy, step by step, nothing but the definitions.

The compiled engine (:mod:`osbc_deploy.fixedpoint.compiled`) gives the same bits and is what runs by
default. Sums of weights are matrix products in floating point, which is exact because every
partial sum is an integer below the mantissa's limit; all state arithmetic is in 64-bit integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray, SpikeArray, peak_of
from osbc_deploy.fixedpoint.arithmetics import LOIHI, Arithmetic, Plan
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.loihi import (
    decay,
    out_of_range,
    saturate,
    shift,
    wrap_accumulator,
    wrap_current,
)
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.fixedpoint.record import Activity, Traces, refuse_current
from osbc_deploy.model.windows import Shape

__all__ = ["ARITHMETIC", "run_plain", "work_of"]

_NEURON_WORK = 100
"""What a neuron's step costs beside its synapses, in multiply-adds (measured)."""


def run_plain(
    network: FixedPointNetwork, signal: IntArray, traces: Traces, *, strict: bool
) -> dict[str, Activity]:
    """Run samples (n, T, input size) side by side.

    Parameters
    ----------
    network : FixedPointNetwork
    signal : ndarray of uint8 or int32 (n, T, input size)
        Input spikes, or values where they are graded.
    traces : Traces
        Filled in.
    strict : bool
        Refuse currents out of the register's range.

    Returns
    -------
    dict of Activity
        By population.
    """
    n, steps = signal.shape[:2]
    fired: dict[str, IntArray] = {INPUT: signal}
    for p in network.populations:
        raster = traces.spikes.get(p.name)
        fired[p.name] = np.empty((n, steps, p.size), np.uint8) if raster is None else raster
    run = [p for p in network.populations if p.name not in traces.given]
    neurons = {p.name: _Neurons(p, n, network.formats) for p in run}
    into = {
        p.name: [
            (q, network.shape_of(q.pre), _by_delay(q, signal), network.latency(q))
            for q in network.afferents(p.name)
        ]
        for p in run
    }
    for t in range(steps):
        for population in run:
            state = neurons[population.name]
            a = np.zeros((n, population.size), np.int64)
            for projection, shape, weights, latency in into[population.name]:
                for delay, weight in weights.items():
                    sent = t - latency - delay
                    if sent >= 0:
                        a += _delivered(
                            projection,
                            weight,
                            fired[projection.pre][:, sent],
                            shape,
                            network.formats,
                        )
            spikes, u, v = state.step(a, t, strict=strict)
            fired[population.name][:, t] = spikes
            traces.note(population.name, t, u, v)
    return {name: state.activity(steps) for name, state in neurons.items()}


def work_of(network: FixedPointNetwork) -> int:
    """Return roughly the multiply-adds that one step of a sample takes, spikes or none."""
    work = _NEURON_WORK * sum(p.size for p in network.populations)
    for projection in network.projections:
        places = math.prod(network.shape_of(projection.post)[1:])
        work += projection.connection.weight.size * places
    return work


def _by_delay(projection: FixedProjection, signal: IntArray) -> dict[int, Any]:
    """Return the weights of each delay, in a precision that sums them exactly."""
    connection = projection.connection
    widest = widest_sum(connection.weight)
    if projection.graded:
        widest *= peak_of(signal)
    if widest >= 2**53:
        raise OverflowError(f"{projection.name}: sums of 2^53 and more are not exact")
    exact = np.float32 if widest < 2**24 else np.float64
    return connection.by_delay(connection.weight.astype(exact))


def _delivered(
    projection: FixedProjection, weight: Any, sent: IntArray, shape: Shape, formats: NumberFormats
) -> IntArray:
    """Return the activation (n, size) that spikes of one step cause."""
    connection = projection.connection
    s = (sent if projection.graded else sent != 0).astype(weight.dtype)
    # A product may raise the processor's flag for lanes that it computes and throws away
    # (numpy issue 24067). Of integers below the mantissa's limit none is invalid.
    with np.errstate(invalid="ignore"):
        total = connection.total(s, weight, shape).astype(np.int64)
    a = shift(total, projection.weight_exp)
    return wrap_accumulator(a, formats) if connection.wraps else a


class _Neurons:
    """The neurons of one population in n samples, from their initial state on."""

    def __init__(self, population: FixedPopulation, n: int, formats: NumberFormats) -> None:
        p = population
        self.population, self.formats = p, formats
        self.registers = p.decoded(formats)
        self.u: IntArray = np.repeat(p.u_init.astype(np.int64)[None], n, axis=0)
        self.v: IntArray = np.repeat(p.v_init.astype(np.int64)[None], n, axis=0)
        self.counts = np.zeros(p.size, np.int64)
        self.u_peak = self.v_peak = self.wraps = self.saturations = 0

    def step(self, a: IntArray, t: int, *, strict: bool) -> tuple[SpikeArray, IntArray, IntArray]:
        """Take activations (n, size); return spikes, and u and v after the step."""
        p, formats, registers = self.population, self.formats, self.registers
        if p.reset_interval and t % p.reset_interval == p.reset_offset % p.reset_interval:
            self.u, self.v = np.zeros_like(self.u), np.zeros_like(self.v)
        raw_u = decay(self.u, registers.kept_u, formats.decay_bits) + (a << formats.state_shift)
        u = wrap_current(raw_u, formats)
        raw_v = decay(self.v, registers.kept_v, formats.decay_bits) + u + registers.bias
        v = saturate(raw_v, formats)
        fired = v > registers.threshold
        self.u_peak = max(self.u_peak, peak_of(raw_u))
        self.v_peak = max(self.v_peak, peak_of(raw_v))
        self.wraps += int(np.count_nonzero(raw_u != u))
        self.saturations += int(np.count_nonzero(raw_v != v))
        self.counts += np.count_nonzero(fired, axis=0)
        if strict and out_of_range(u, formats).any():
            refuse_current(p.name, self.u_peak, formats)
        self.u = u
        self.v = np.where(fired, v - registers.drop if p.reset == "subtract" else 0, v)
        return fired.astype(np.uint8), self.u, self.v

    def activity(self, steps: int) -> Activity:
        """Return what the neurons went through."""
        return Activity(
            int(self.counts.sum()),
            self.u.size * steps,
            self.u_peak,
            self.v_peak,
            self.wraps,
            self.saturations,
            self.counts,
        )


def _plan(network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool) -> Plan:
    # Imported here: numba takes half a second, which reading a network need not.
    from osbc_deploy.fixedpoint.learning import plan_of

    return plan_of(network, peak, given, strict=strict)


ARITHMETIC = Arithmetic(
    name=LOIHI,
    most_spikes=1,
    run_plain=run_plain,
    plan=_plan,
    faults=faults,
    lowering_in="osbc_deploy.lower.loihi",
)
