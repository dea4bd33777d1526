"""The integer engine: runs a fixed-point network, many samples side by side, bit for bit.

Sums of weights are taken by matrix products in floating point, which is exact because every
partial sum is an integer below the mantissa's limit (checked for each projection); all state
arithmetic is in 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.errors import FidelityError
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
    FixedConv,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.network.graph import Shape
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Activity", "EngineRun", "accumulate", "integrate", "run"]


@dataclass(frozen=True, eq=False)
class Activity:
    """What the neurons of a population went through.

    Attributes
    ----------
    spikes, neuron_steps : int
    u_peak, v_peak : int
        Largest magnitudes, before wrapping and saturation.
    wraps, saturations : int
        Times a current wrapped or a potential was clipped.
    counts : ndarray of int (n,)
        Spikes of each neuron; empty before the first sample.
    """

    spikes: int = 0
    neuron_steps: int = 0
    u_peak: int = 0
    v_peak: int = 0
    wraps: int = 0
    saturations: int = 0
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.spikes + other.spikes,
            self.neuron_steps + other.neuron_steps,
            max(self.u_peak, other.u_peak),
            max(self.v_peak, other.v_peak),
            self.wraps + other.wraps,
            self.saturations + other.saturations,
            self.counts + other.counts if len(self.counts) else other.counts,
        )

    @property
    def rate(self) -> float:
        """Mean spikes per neuron and step."""
        return self.spikes / self.neuron_steps if self.neuron_steps else 0.0


@dataclass(frozen=True, eq=False)
class EngineRun:
    """What a run recorded.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of the populations asked for.
    output : ndarray of int32 (n, T, size)
        Spikes of the output population, or its potentials if it is a readout.
    activity : dict of Activity
        By population.
    """

    spikes: Mapping[str, SpikeArray]
    output: IntArray
    activity: Mapping[str, Activity]


def run(
    network: FixedPointNetwork,
    spikes: SpikeArray,
    *,
    record: Collection[str] = (),
    batch_size: int = 32,
    progress: Progress = SILENT,
    title: str = "fixed-point engine",
) -> EngineRun:
    """Run samples through a fixed-point network.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 (n, T, *input_shape)
    record : collection of str
        Populations whose spikes are kept.
    batch_size : int
        Samples side by side; the result does not depend on it.

    Raises
    ------
    FidelityError
        When a current leaves the range that one wrap of the register can represent.
    """
    n, steps = spikes.shape[:2]
    kept = {
        p.name: np.empty((n, steps, p.size), np.uint8)
        for p in network.populations
        if p.name in record and p.spiking
    }
    output = np.empty((n, steps, network.output.size), np.int32)
    activity = {p.name: Activity() for p in network.populations}
    with task(progress, title, n):
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            signal = spikes[rows]
            for projection, population in zip(
                network.projections, network.populations, strict=True
            ):
                a = accumulate(
                    projection, signal, network.shape_of(projection.pre), network.formats
                )
                fired, potential, part = integrate(population, a, network.formats)
                activity[population.name] += part
                if population.name in kept:
                    kept[population.name][rows] = fired
                signal = fired
            output[rows] = fired if network.output.spiking else potential
            progress.advance(rows.stop - rows.start)
    return EngineRun(kept, output, activity)


def accumulate(
    projection: FixedProjection, spikes: SpikeArray, shape: Shape, formats: NumberFormats
) -> IntArray:
    """Return the activations that a projection delivers.

    Parameters
    ----------
    projection : FixedProjection
    spikes : ndarray of uint8 (n, T, ...)
        Presynaptic spikes.
    shape : tuple of int
        Shape of the presynaptic population.
    formats : NumberFormats

    Returns
    -------
    ndarray of int64 (n, T, post size)
    """
    n, steps = spikes.shape[:2]
    connection = projection.connection
    weight = connection.weight.astype(np.int64)
    widest = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0))
    exact = np.dtype(np.float32 if widest < 2**24 else np.float64)
    frames = spikes.reshape(n * steps, *shape)
    if isinstance(connection, FixedConv):
        total = _correlate(connection, frames.astype(exact), weight.astype(exact))
        a = wrap_accumulator(shift(total.astype(np.int64), projection.weight_exp), formats)
    else:
        product = frames.reshape(n * steps, -1).astype(exact) @ weight.T.astype(exact)
        a = shift(product.astype(np.int64), projection.weight_exp)
    return a.reshape(n, steps, -1)


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
                kernel = weight[outputs, :, i, j].T
                if not kernel.any():
                    continue
                window = padded[
                    :,
                    i * dh : i * dh + sh * (rows - 1) + 1 : sh,
                    j * dw : j * dw + sw * (cols - 1) + 1 : sw,
                    inputs,
                ]
                total[..., outputs] += window @ kernel
    return np.ascontiguousarray(total.transpose(0, 3, 1, 2)).reshape(m, -1)


def integrate(
    population: FixedPopulation, a: IntArray, formats: NumberFormats, *, strict: bool = True
) -> tuple[SpikeArray, IntArray, Activity]:
    """Run the neurons of one population on their activations.

    Parameters
    ----------
    population : FixedPopulation
    a : ndarray of int64 (n, T, size)
    strict : bool
        Refuse currents out of the register's range; lowering looks at them instead.

    Returns
    -------
    spikes : ndarray of uint8 (n, T, size)
    potentials : ndarray of int32 (n, T, size)
        After the reset.
    activity : Activity
    """
    n, steps, _ = a.shape
    unity = formats.decay_unity
    kept_u = unity - (population.du.astype(np.int64) + formats.decay_u_offset)
    kept_v = unity - population.dv.astype(np.int64)
    bias = effective_bias(population.bias_mant, population.bias_exp)
    threshold = population.vth.astype(np.int64) << formats.state_shift
    holds_current = bool(kept_u.any())
    u: IntArray = np.repeat(population.u_init.astype(np.int64)[None], n, axis=0)
    v: IntArray = np.repeat(population.v_init.astype(np.int64)[None], n, axis=0)
    spikes = np.empty(a.shape, np.uint8)
    potentials = np.empty(a.shape, np.int32)
    u_peak = v_peak = wraps = saturations = 0
    for t in range(steps):
        x = a[:, t] << formats.state_shift
        raw_u = decay(u, kept_u, formats.decay_bits) + x if holds_current else x
        u = wrap_current(raw_u, formats)
        raw_v = decay(v, kept_v, formats.decay_bits) + u + bias
        v = saturate(raw_v, formats)
        fired = v > threshold
        u_peak = max(u_peak, _peak(raw_u))
        v_peak = max(v_peak, _peak(raw_v))
        if u_peak > formats.state_limit:
            wraps += int(np.count_nonzero(raw_u != u))
            if strict and out_of_range(u, formats).any():
                raise FidelityError(
                    f"{population.name}: synaptic current reaches {u_peak}, one wrap of the "
                    f"{formats.state_bits}-bit register brings back {2 * formats.state_limit}. "
                    "The input drives the layer beyond the chip's range; calibrate on samples "
                    "like it."
                )
        if v_peak >= formats.state_limit:
            saturations += int(np.count_nonzero(raw_v != v))
        v = np.where(fired, 0, v)
        spikes[:, t], potentials[:, t] = fired, v
    counts = np.count_nonzero(spikes, axis=(0, 1))
    part = Activity(int(counts.sum()), spikes.size, u_peak, v_peak, wraps, saturations, counts)
    return spikes, potentials, part


def _peak(values: IntArray) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))
