"""The engine as a specification: NumPy, step by step, nothing but the definitions.

The compiled engine (:mod:`osbc_deploy.fixedpoint.compiled`) gives the same bits and is what runs by
default. Sums of weights are matrix products in floating point, which is exact because every
partial sum is an integer below the mantissa's limit; all state arithmetic is in 64-bit integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.fixedpoint.arithmetic import (
    decay,
    effective_bias,
    out_of_range,
    saturate,
    shift,
    wrap_accumulator,
    wrap_current,
)
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.record import Activity, Traces, refuse_current
from osbc_deploy.model.graph import Shape

__all__ = ["run_plain", "work_of"]

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
    for population in network.populations:
        fired[population.name] = traces.spikes[population.name]
    run = [p for p in network.populations if p.name not in traces.given]
    neurons = {p.name: _Neurons(p, n, network.formats) for p in run}
    into = {
        p.name: [
            (q, _parts(q, network.shape_of(q.pre), signal), network.latency(q))
            for q in network.afferents(p.name)
        ]
        for p in run
    }
    for t in range(steps):
        for population in run:
            state = neurons[population.name]
            a = np.zeros((n, population.size), np.int64)
            for projection, parts, latency in into[population.name]:
                for part in parts:
                    sent = t - latency - part.delay
                    if sent >= 0:
                        a += _deliver(part, projection, fired[projection.pre][:, sent], network)
            spikes, u, v = state.step(a, t, strict=strict)
            fired[population.name][:, t] = spikes
            traces.note(population.name, t, u, v)
    return {name: state.activity(steps) for name, state in neurons.items()}


def work_of(network: FixedPointNetwork) -> int:
    """Return roughly the multiply-adds that one step of a sample takes, spikes or none."""
    work = _NEURON_WORK * sum(p.size for p in network.populations)
    for projection in network.projections:
        connection = projection.connection
        windows = network.shape_of(projection.post)[1:] if isinstance(connection, FixedConv) else ()
        work += connection.weight.size * math.prod(windows)
    return work


@dataclass(frozen=True, eq=False)
class _Part:
    """The synapses of a projection that share a delay, in a precision that sums them exactly.

    Those with delays are sparse: all parts together hold every synapse once.
    """

    delay: int
    weight: FloatArray | csr_array
    conv: FixedConv | None
    pre_shape: Shape


def _parts(projection: FixedProjection, pre_shape: Shape, signal: IntArray) -> list[_Part]:
    connection = projection.connection
    weight = connection.weight.astype(np.int64)
    widest = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0))
    if projection.graded:
        widest *= int(np.abs(signal.astype(np.int64)).max(initial=0))
    if widest >= 2**53:
        raise OverflowError(f"{projection.name}: sums of 2^53 and more are not exact")
    exact = np.float32 if widest < 2**24 else np.float64
    if isinstance(connection, FixedDense):
        delay = connection.delay
        if delay is None:
            return [_Part(0, weight.astype(exact), None, pre_shape)]
        return [
            _Part(int(d), csr_array(np.where(delay == d, weight, 0).astype(exact)), None, pre_shape)
            for d in np.unique(delay)
        ]
    return [_Part(0, weight.astype(exact), connection, pre_shape)]


def _deliver(
    part: _Part, projection: FixedProjection, sent: IntArray, network: FixedPointNetwork
) -> IntArray:
    """Return the activation (n, size) that spikes of one step cause."""
    s = (sent if projection.graded else sent != 0).astype(part.weight.dtype)
    if part.conv is None:
        return shift((part.weight @ s.T).T.astype(np.int64), projection.weight_exp)
    total = _correlate(part.conv, s.reshape(len(s), *part.pre_shape), part.weight)
    return wrap_accumulator(shift(total.astype(np.int64), projection.weight_exp), network.formats)


def _correlate(conv: FixedConv, frames: FloatArray, weight: FloatArray) -> FloatArray:
    """Cross-correlate frames (m, C, H, W), one matrix product for each kernel offset."""
    m, channels, height, width = frames.shape
    out, per_group, kh, kw = weight.shape
    (sh, sw), (ph, pw), (dh, dw) = conv.stride, conv.padding, conv.dilation
    _, rows, cols = conv.output_shape((channels, height, width))
    padded = np.pad(frames.transpose(0, 2, 3, 1), ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    total = np.zeros((m, rows, cols, out), frames.dtype)
    share = out // conv.groups
    for group in range(conv.groups):
        inputs = slice(group * per_group, (group + 1) * per_group)
        outputs = slice(group * share, (group + 1) * share)
        for i in range(kh):
            for j in range(kw):
                window = padded[
                    :,
                    i * dh : i * dh + sh * (rows - 1) + 1 : sh,
                    j * dw : j * dw + sw * (cols - 1) + 1 : sw,
                    inputs,
                ]
                total[..., outputs] += window @ weight[outputs, :, i, j].T
    return np.ascontiguousarray(total.transpose(0, 3, 1, 2)).reshape(m, -1)


class _Neurons:
    """The neurons of one population in n samples, from their initial state on."""

    def __init__(self, population: FixedPopulation, n: int, formats: NumberFormats) -> None:
        p = population
        self.population, self.formats = p, formats
        self.kept_u = formats.decay_unity - (p.du.astype(np.int64) + formats.decay_u_offset)
        self.kept_v = formats.decay_unity - p.dv.astype(np.int64)
        self.bias = effective_bias(p.bias_mant, p.bias_exp)
        self.threshold = p.vth.astype(np.int64) << formats.state_shift
        self.drop = p.reset_amount.astype(np.int64) << formats.state_shift
        self.u: IntArray = np.repeat(p.u_init.astype(np.int64)[None], n, axis=0)
        self.v: IntArray = np.repeat(p.v_init.astype(np.int64)[None], n, axis=0)
        self.counts = np.zeros(p.size, np.int64)
        self.u_peak = self.v_peak = self.wraps = self.saturations = 0

    def step(self, a: IntArray, t: int, *, strict: bool) -> tuple[SpikeArray, IntArray, IntArray]:
        """Take activations (n, size); return spikes, and u and v after the step."""
        p, formats = self.population, self.formats
        if p.reset_interval and t % p.reset_interval == p.reset_offset % p.reset_interval:
            self.u, self.v = np.zeros_like(self.u), np.zeros_like(self.v)
        raw_u = decay(self.u, self.kept_u, formats.decay_bits) + (a << formats.state_shift)
        u = wrap_current(raw_u, formats)
        raw_v = decay(self.v, self.kept_v, formats.decay_bits) + u + self.bias
        v = saturate(raw_v, formats)
        fired = v > self.threshold
        self.u_peak = max(self.u_peak, _peak(raw_u))
        self.v_peak = max(self.v_peak, _peak(raw_v))
        self.wraps += int(np.count_nonzero(raw_u != u))
        self.saturations += int(np.count_nonzero(raw_v != v))
        self.counts += np.count_nonzero(fired, axis=0)
        if strict and out_of_range(u, formats).any():
            refuse_current(p.name, self.u_peak, formats)
        self.u = u
        self.v = np.where(fired, v - self.drop if p.reset == "subtract" else 0, v)
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


def _peak(values: IntArray) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))
