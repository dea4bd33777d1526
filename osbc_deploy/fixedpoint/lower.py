r"""Lower a compressed network to the chip's integers.

With a weight :math:`w = s_j q` (code q, scale :math:`s_j` of output j) and an exponent m, the
chip's current is :math:`2^{m+6} \sum q = K_j u` with :math:`K_j = 2^{m+6} / s_j`. Measuring the
potential from the reset value, the whole membrane equation is multiplied by
:math:`K_j / g` (g the neuron's gain), so

.. math::

    vth_j = \frac{2^m}{g\, s_j} (v_{threshold} - v_{reset}), \qquad
    bias_j = K_j \left(b_j + \frac{drive - \alpha_v v_{reset}}{g}\right)

and the spikes stay what they were, up to the rounding of thresholds, biases and decays. Larger m
means finer rounding; the largest is taken that keeps every register in range, with headroom over
the peaks that the calibration samples reach.

A bias `b` of the current of a CUBA neuron (decay d) builds up as ``b (1 - d^t) / (1 - d)``. The
chip adds its bias to the membrane, so the neuron gets the end value ``b / (1 - d)`` as bias and
starts with the current ``-b / (1 - d)``, which decays away: the sum is the same at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.compress.network import CompressedNetwork, CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import Activity, accumulate, integrate
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConnection,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.network.graph import AvgPool, Conv, Network, Population, Projection, Readout, Shape
from osbc_deploy.network.neurons import LIF
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Lowered", "lower"]

HEADROOM = 1.5
"""Registers must hold this many times the largest value that calibration reaches."""

_INT32_LIMIT = 2**31 - 1
"""Simulators hold activations in 32 bits; no input at all may drive a sum beyond."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """The result of lowering.

    Attributes
    ----------
    network : FixedPointNetwork
    deviations : tuple of Deviation
        Everything that was clipped, saturated or stored wider than asked.
    activity : dict of Activity
        Of every population on the calibration samples.
    """

    network: FixedPointNetwork
    deviations: tuple[Deviation, ...]
    activity: dict[str, Activity]


def lower(
    compressed: CompressedNetwork,
    calibration: SpikeArray,
    formats: NumberFormats,
    *,
    readout: Readout = "sum",
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> Lowered:
    """Turn a compressed network into integers.

    Parameters
    ----------
    compressed : CompressedNetwork
    calibration : ndarray of uint8 (n, T, *input_shape)
        Samples whose peaks must fit the registers with headroom.
    formats : NumberFormats
        The chip's registers.
    readout : {"sum", "last", "max"}
        How the output's activity over time becomes a class.

    Raises
    ------
    UnsupportedModelError
        When neurons need a feature the chip lacks, all of them listed.
    """
    network = compressed.original
    _check_features(network)
    deviations: list[Deviation] = []
    populations, projections = [], []
    activity = {}
    signal, shape = calibration, network.input_shape
    with task(progress, "lower", len(network.populations)):
        for population in network.populations:
            projection = network.incoming(population.name)
            weights = compressed.projections[projection.name]
            fixed_projection, fixed, signal, seen = _lower_population(
                projection, population, weights, signal, shape, formats, batch_size, deviations
            )
            shape = population.shape
            populations.append(fixed)
            projections.append(fixed_projection)
            activity[population.name] = seen
            progress.advance()
    fixed_network = FixedPointNetwork(
        network.input_shape, tuple(populations), tuple(projections), formats, readout
    )
    return Lowered(fixed_network, tuple(deviations), activity)


def _check_features(network: Network) -> None:
    offenders = []
    for population in network.populations:
        neuron = population.neuron
        if isinstance(neuron, LIF) and neuron.reset != "zero":
            offenders.append(
                f"{population.name}: reset by subtraction; the chip's LIF resets to a value"
            )
        if neuron.spiking:
            p = neuron.parameters
            if (p["v_threshold"] < p["v_reset"]).any():
                offenders.append(
                    f"{population.name}: v_threshold lies below v_reset; the chip's "
                    "threshold is not negative"
                )
        dynamics = neuron.dynamics()
        for name, value in (("membrane", dynamics.decay_v), ("synaptic", dynamics.decay_u)):
            if value is not None and ((value < 0) | (value > 1)).any():
                offenders.append(
                    f"{population.name}: the {name} decay per step is outside 0 to 1; "
                    "dt is longer than the time constant"
                )
        bias = network.incoming(population.name).connection.bias
        if dynamics.decay_u is not None and (dynamics.decay_u == 1).any() and bias is not None:
            offenders.append(
                f"{population.name}: a bias into a synaptic current that never decays "
                "grows without limit"
            )
        if (dynamics.gain <= 0).any():
            offenders.append(f"{population.name}: the membrane takes no input (alpha_v is 0)")
    if offenders:
        raise UnsupportedModelError(
            "network: neurons the chip cannot run",
            offenders,
            "Change the neurons' parameters and train again.",
        )


@dataclass(frozen=True, eq=False)
class _Targets:
    """What the registers of one population should hold at exponent m = 0, as real numbers."""

    vth: FloatArray
    bias: FloatArray
    u_init: FloatArray
    v_init: FloatArray
    v_scale: FloatArray
    v_offset: FloatArray
    du: IntArray
    dv: IntArray


def _lower_population(
    projection: Projection,
    population: Population,
    weights: CompressedProjection,
    signal: SpikeArray,
    shape: Shape,
    formats: NumberFormats,
    batch_size: int,
    deviations: list[Deviation],
) -> tuple[FixedProjection, FixedPopulation, SpikeArray, Activity]:
    stored = formats.stored_bits(weights.bits)
    if stored != weights.bits:
        deviations.append(
            Deviation(
                "lower",
                projection.name,
                f"{weights.bits}-bit weights are stored in {stored} bits on this chip",
            )
        )
    connection, divisor = expand(projection, weights.codes, shape)
    if projection.pool is not None:
        deviations.append(
            Deviation(
                "lower",
                projection.name,
                f"the pooling before it is merged into its weights: {weights.codes.size} weights "
                f"become {connection.weight.size}",
            )
        )
    mantissa_shift = formats.weight_shift(stored)
    fixed_connection = _shifted(connection, mantissa_shift)
    targets = _targets(projection, population, weights.scale / divisor, formats, deviations)
    ceiling = _largest_exponent(connection, targets, population, formats, stored)
    exponent = ceiling
    while True:
        fixed = _population(population, targets, exponent, formats)
        fixed_projection = FixedProjection(
            projection.name,
            projection.pre,
            projection.post,
            fixed_connection,
            stored,
            exponent - mantissa_shift,
        )
        spikes, seen = _measure(fixed_projection, fixed, signal, shape, formats, batch_size)
        # The readout's potential must also stay under the largest threshold there is.
        limit = formats.state_limit - (0 if fixed.spiking else 2**formats.state_shift)
        over = max(seen.u_peak, seen.v_peak) * HEADROOM / limit
        floor = max(0, formats.weight_exp_min + mantissa_shift)
        if over <= 1.0 or exponent == floor:
            break
        exponent = max(floor, exponent - max(1, math.ceil(math.log2(over))))
    _note_clipping(population, targets, exponent, over, seen, formats, deviations)
    return fixed_projection, fixed, spikes, seen


def expand(projection: Projection, codes: IntArray, shape: Shape) -> tuple[FixedConnection, int]:
    """Merge the pooling in front of a connection into its weights.

    A pooling adds up spikes, so its window is repeated weights: a dense weight is copied to every
    spike of its window, a kernel grows to ``s_p (d (k - 1)) + k_p`` with stride ``s_p s``.

    Returns
    -------
    connection : FixedDense or FixedConv
        Of plain codes.
    divisor : int
        By which the pooling divides; it goes into the scale.
    """
    connection, pool = projection.connection, projection.pool
    if isinstance(connection, Conv):
        conv = FixedConv(
            codes, connection.stride, connection.padding, connection.dilation, connection.groups
        )
        if pool is None:
            return conv, 1
        _check_pool_then_conv(projection.name, pool, connection, shape)
        out, channels, kh, kw = codes.shape
        (dh, dw), (sh, sw) = connection.dilation, pool.stride
        kernel = np.zeros(
            (
                out,
                channels,
                sh * dh * (kh - 1) + pool.kernel[0],
                sw * dw * (kw - 1) + pool.kernel[1],
            ),
            np.int64,
        )
        for i in range(pool.kernel[0]):
            for j in range(pool.kernel[1]):
                kernel[
                    :,
                    :,
                    i : i + sh * dh * (kh - 1) + 1 : sh * dh,
                    j : j + sw * dw * (kw - 1) + 1 : sw * dw,
                ] += codes
        merged = FixedConv(
            kernel,
            (sh * connection.stride[0], sw * connection.stride[1]),
            (
                pool.padding[0] + sh * connection.padding[0],
                pool.padding[1] + sw * connection.padding[1],
            ),
            (1, 1),
            connection.groups,
        )
        return merged, pool.divisor
    if pool is None:
        return FixedDense(codes), 1
    c, h, w = shape
    _, rows, cols = pool.output_shape(shape)
    (ph, pw), (sh, sw) = pool.padding, pool.stride
    pooled = codes.reshape(len(codes), c, rows, cols).astype(np.int64)
    spread = np.zeros((len(codes), c, h + 2 * ph, w + 2 * pw), np.int64)
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            spread[:, :, i : i + sh * (rows - 1) + 1 : sh, j : j + sw * (cols - 1) + 1 : sw] += (
                pooled
            )
    inside = spread[:, :, ph : ph + h, pw : pw + w]
    return FixedDense(inside.reshape(len(codes), -1)), pool.divisor


def _check_pool_then_conv(name: str, pool: AvgPool, connection: Conv, shape: Shape) -> None:
    """Refuse the poolings whose merge with a padded convolution would not be exact."""
    overlapping = any(k > s for k, s in zip(pool.kernel, pool.stride, strict=True))
    gaps = any(
        (size + 2 * p - k) % s
        for size, p, k, s in zip(shape[1:], pool.padding, pool.kernel, pool.stride, strict=True)
    )
    if overlapping or (any(connection.padding) and (gaps or any(pool.padding))):
        raise UnsupportedModelError(
            "network: a pooling that cannot be merged into the convolution after it",
            [
                f"{name}: AvgPool2d(kernel {pool.kernel}, stride {pool.stride}, padding "
                f"{pool.padding}) of {shape} before Conv2d(padding {connection.padding})"
            ],
            "Use pooling windows that tile their input, or a convolution without padding.",
        )


def _shifted(connection: FixedConnection, amount: int) -> FixedConnection:
    weight = connection.weight.astype(np.int64) << amount
    if isinstance(connection, FixedDense):
        return FixedDense(weight)
    return FixedConv(
        weight, connection.stride, connection.padding, connection.dilation, connection.groups
    )


def _targets(
    projection: Projection,
    population: Population,
    scale: FloatArray,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> _Targets:
    neuron, dynamics = population.neuron, population.neuron.dynamics()
    per_neuron = _per_neuron(scale, population)
    gain = _spread(dynamics.gain, population)
    parameters = neuron.parameters
    reset = _spread(parameters.get("v_reset", np.zeros(())), population)
    bias = projection.connection.bias
    current = np.zeros(population.size) if bias is None else _per_neuron(bias, population)
    drive = _spread(dynamics.drive, population)
    leak = 1.0 - _spread(dynamics.decay_v, population)
    unit = 2.0**formats.state_shift / per_neuron
    if neuron.spiking:
        threshold = _spread(parameters["v_threshold"], population)
        vth = (threshold - reset) / (gain * per_neuron)
    else:
        vth = np.full(population.size, np.nan)
    unity = formats.decay_unity
    du = np.full(population.size, unity - formats.decay_u_offset)
    builds_up = np.zeros(population.size)
    if dynamics.decay_u is not None:
        forgotten = 1.0 - _spread(dynamics.decay_u, population)
        builds_up = current = current / np.where(forgotten > 0, forgotten, 1.0)
        du = _register(
            np.rint(unity * forgotten) - formats.decay_u_offset,
            "du",
            population,
            formats,
            deviations,
        )
    dv = _register(np.rint(unity * leak), "dv", population, formats, deviations)
    return _Targets(
        vth=vth,
        bias=unit * (current + (drive - leak * reset) / gain),
        u_init=-unit * builds_up,
        v_init=unit / gain * (_spread(neuron.v_init, population) - reset),
        v_scale=gain / unit,
        v_offset=reset,
        du=du,
        dv=dv,
    )


def _register(
    value: FloatArray,
    name: str,
    population: Population,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> IntArray:
    clipped = np.clip(value, 0, formats.decay_max)
    count = int(np.count_nonzero(clipped != value))
    if count:
        deviations.append(
            Deviation(
                "lower",
                population.name,
                f"{name} clipped to 0..{formats.decay_max} in {count} neurons (wanted "
                f"{value.min():g} to {value.max():g})",
            )
        )
    return clipped.astype(np.int64)


def _largest_exponent(
    connection: FixedConnection,
    targets: _Targets,
    population: Population,
    formats: NumberFormats,
    stored: int,
) -> int:
    """Return the largest m that thresholds, biases, exponent and 32-bit sums allow."""
    bounds = [float(formats.weight_exp_max + formats.weight_shift(stored))]
    if population.neuron.spiking and targets.vth.max() > 0:
        bounds.append(math.log2((formats.vth_max + 0.49) / targets.vth.max()))
    strongest = np.abs(targets.bias).max()
    if strongest > 0:
        bounds.append(math.log2((formats.bias_mant_max << formats.bias_exp_max) / strongest))
    widest = int(
        np.abs(connection.weight.astype(np.int64))
        .reshape(len(connection.weight), -1)
        .sum(axis=1)
        .max(initial=0)
    )
    if widest:
        room = (_INT32_LIMIT - formats.state_limit) >> formats.state_shift
        bounds.append(math.log2(room / widest))
    return max(0, math.floor(min(bounds)))


def _population(
    population: Population, targets: _Targets, exponent: int, formats: NumberFormats
) -> FixedPopulation:
    factor = 2.0**exponent
    if population.neuron.spiking:
        vth = np.clip(np.rint(targets.vth * factor), 0, formats.vth_max)
    else:
        vth = np.full(population.size, formats.vth_max)
    mantissa, bias_exp = _bias_registers(targets.bias * factor, formats)
    limit = formats.state_limit - 1
    return FixedPopulation(
        name=population.name,
        shape=population.shape,
        du=targets.du,
        dv=targets.dv,
        vth=vth.astype(np.int64),
        bias_mant=mantissa,
        bias_exp=bias_exp,
        u_init=np.clip(np.rint(targets.u_init * factor), -limit, limit).astype(np.int64),
        v_init=np.clip(np.rint(targets.v_init * factor), -limit, limit).astype(np.int64),
        spiking=population.neuron.spiking,
        v_scale=targets.v_scale / factor,
        v_offset=targets.v_offset,
    )


def _bias_registers(bias: FloatArray, formats: NumberFormats) -> tuple[IntArray, IntArray]:
    """Return mantissa and the smallest exponent that holds each bias."""
    top = formats.bias_mant_max
    exponent = np.zeros(bias.shape, np.int64)
    for candidate in range(1, formats.bias_exp_max + 1):
        exponent[np.abs(np.rint(bias / 2.0 ** (candidate - 1))) > top] = candidate
    mantissa = np.clip(np.rint(bias / 2.0**exponent), -top, top).astype(np.int64)
    return mantissa, np.where(mantissa == 0, 0, exponent)


def _measure(
    projection: FixedProjection,
    population: FixedPopulation,
    signal: SpikeArray,
    shape: Shape,
    formats: NumberFormats,
    batch_size: int,
) -> tuple[SpikeArray, Activity]:
    spikes, seen = [], Activity()
    for start in range(0, len(signal), batch_size):
        a = accumulate(projection, signal[start : start + batch_size], shape, formats)
        fired, _, part = integrate(population, a, formats, strict=False)
        spikes.append(fired)
        seen += part
    return np.concatenate(spikes), seen


def _note_clipping(
    population: Population,
    targets: _Targets,
    exponent: int,
    over: float,
    seen: Activity,
    formats: NumberFormats,
    deviations: list[Deviation],
) -> None:
    factor = 2.0**exponent
    bias_top = formats.bias_mant_max << formats.bias_exp_max
    over_vth = int(np.count_nonzero(targets.vth * factor > formats.vth_max + 0.5))
    over_bias = int(np.count_nonzero(np.abs(targets.bias * factor) > bias_top))
    starts = np.maximum(np.abs(targets.u_init), np.abs(targets.v_init)) * factor
    over_init = int(np.count_nonzero(starts >= formats.state_limit))
    notes = [
        (
            over_vth,
            f"vth clipped to {formats.vth_max} in {over_vth} neurons (wanted up to "
            f"{np.nanmax(targets.vth) * factor:.0f})"
            if over_vth
            else "",
        ),
        (
            over_bias,
            f"bias clipped to {bias_top} in {over_bias} neurons (wanted up to "
            f"{np.abs(targets.bias).max() * factor:.0f})",
        ),
        (over_init, f"initial state clipped in {over_init} neurons"),
        (
            over > 1.0,
            f"the registers hold {HEADROOM / max(over, 1.0):.2f} times the peak of calibration, "
            f"{HEADROOM:g} times is wanted; unusual input may saturate",
        ),
        (seen.wraps, f"the current wrapped {seen.wraps} times in calibration"),
        (seen.saturations, f"the potential saturated {seen.saturations} times in calibration"),
    ]
    deviations.extend(Deviation("lower", population.name, text) for count, text in notes if count)
    if population.neuron.spiking and seen.spikes == 0:
        deviations.append(
            Deviation(
                "lower",
                population.name,
                "no neuron fires in fixed point on the calibration samples",
            )
        )


def _spread(value: FloatArray, population: Population) -> FloatArray:
    """Broadcast a neuron parameter to one number per neuron."""
    return np.broadcast_to(value.astype(np.float64), population.shape).reshape(-1)


def _per_neuron(value: FloatArray, population: Population) -> FloatArray:
    """Repeat a value per output (channel or neuron) to one number per neuron."""
    wide = value.astype(np.float64).reshape((-1,) + (1,) * (len(population.shape) - 1))
    return np.broadcast_to(wide, population.shape).reshape(-1)
