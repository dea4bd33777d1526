"""Random fixed-point networks: everything that engine, backends and exports must agree on."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.target import load_target
from osbc_deploy.errors import FidelityError
from osbc_deploy.fixedpoint.coding import SPIKES
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    InputFormat,
)
from osbc_deploy.fixedpoint.ranges import faults, on_grid
from osbc_deploy.testing.gates import drawn_gates

__all__ = ["Case", "cases", "collect", "random_networks"]

SIGNS = ("mixed", "excitatory", "inhibitory")


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """A network, samples for it, and what is special about it.

    Attributes
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 or int32 (n, T, *input_shape)
        Graded input is of int32.
    features : tuple of str
        Such as "conv", "delays" or "timed reset".
    """

    network: FixedPointNetwork
    spikes: IntArray
    features: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Case({', '.join(self.features)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # hypothesis writes all arrays out otherwise.
        printer.text(repr(self))


class _EnoughError(Exception):
    """As many networks are drawn as were asked for."""


@st.composite
def cases(draw: Callable[..., Any], formats: NumberFormats) -> Case:
    """Draw a network of 1 to 4 populations with 1 to 3 samples; a strategy of hypothesis.

    Parameters
    ----------
    draw : callable
        Given by hypothesis.
    formats : NumberFormats
        The registers of the chip.
    """
    drawn = draw(st.integers(0, 2**32 - 1))
    rng, others = np.random.default_rng(drawn), np.random.default_rng([drawn, 1])
    features = [draw(st.sampled_from(["calm", "calm", "strong", "extreme"]))]
    # Nothing that keeps samples from following each other directly in Lava.
    chain = draw(st.integers(0, 2)) == 0
    convolutions = draw(st.integers(0, 2))
    depth = draw(st.integers(max(1, convolutions), 4))
    shape: tuple[int, ...] = (
        tuple(draw(st.tuples(st.integers(1, 3), st.integers(4, 8), st.integers(4, 8))))
        if convolutions
        else (draw(st.integers(1, 24)),)
    )
    input_shape = shape
    graded = draw(st.integers(0, 7)) == 0
    if graded:
        features.append("graded input")
    populations: list[FixedPopulation] = []
    projections: list[FixedProjection] = []
    for number in range(depth):
        pre = populations[-1].name if populations else "input"
        name = f"p{number}"
        if number and others.random() < (0.4 if len(shape) == 3 else 0.12):
            # Gates come between what is drawn, which stays what it is without them.
            found, ways, gates = drawn_gates(others, f"g{number}", pre, shape, formats)
            projections += ways
            populations += gates
            pre, shape = gates[-1].name, gates[-1].shape
            features += found
        make = _conv if number < convolutions else _dense
        connection, extra, found = make(draw, rng, shape, formats, features[0], chain=chain)
        features += found
        shape = connection.output_shape(shape)
        projections.append(
            FixedProjection(
                f"{pre} to {name}", pre, name, connection, graded=graded and not number, **extra
            )
        )
        last = number == depth - 1
        population, found = _population(
            draw, rng, name, shape, features[0], formats, readout=last, chain=chain
        )
        features += found
        populations.append(population)
    late = [p for p in populations if p.name == "p1" and len(p.shape) == 3]
    if late and others.random() < 0.4:
        projections.append(_shown_late(others, input_shape, late[0], formats, graded=graded))
        features.append("input shown late")
    if not chain:
        _more_projections(draw, rng, input_shape, populations, projections, formats, features)
    given = _input(others) if graded else SPIKES
    network = FixedPointNetwork(
        input_shape, tuple(populations), tuple(projections), formats, "sum", given
    )
    if found := faults(network):
        raise AssertionError(f"a network was drawn that is none: {found}")
    n, steps = draw(st.integers(1, 3)), draw(st.integers(3, 24))
    spikes = (rng.random((n, steps, *input_shape)) < draw(st.sampled_from([0.05, 0.3, 0.8]))) + 0
    if graded:
        values = rng.integers(-20, 21, spikes.shape)
        # Negative ones are there where they may be, and both ends of the range are reached.
        spikes = spikes * (values if network.input.signed else np.abs(values))
        spikes = np.clip(spikes, network.input.low, network.input.high)
        features.append(f"graded input, {network.input.kind}")
        features.append(f"graded input, {'signed' if network.input.signed else 'unsigned'}")
    return Case(network, spikes.astype(np.int32 if graded else np.uint8), tuple(features))


def _input(rng: Any) -> InputFormat:
    """Draw what a graded input carries."""
    bits, signed = int(rng.integers(3, 13)), bool(rng.integers(0, 2))
    if rng.random() < 0.5:
        return InputFormat("integers", bits, signed)
    return InputFormat("values", bits, signed, float(rng.uniform(1e-3, 2.0)))


def _settings(
    draw: Callable[..., Any], formats: NumberFormats, regime: str, *, lowest: int
) -> dict[str, Any]:
    bits = draw(st.sampled_from(formats.weight_bits[1:]))
    sign = draw(st.sampled_from(SIGNS if bits < 8 else SIGNS[:1] * 2 + SIGNS[1:]))
    # A convolution's exponent goes into its weights, which must not lose bits.
    floor = max(formats.weight_exp_min, -(8 - bits + (sign == "mixed")) if lowest else -7)
    top = min(formats.weight_exp_max, {"calm": 0, "strong": 4, "extreme": 7}[regime])
    return {
        "weight_bits": bits,
        "sign": sign,
        "weight_exp": draw(st.integers(min(floor, top), top)),
    }


def _weights(
    draw: Callable[..., Any], rng: Any, shape: Any, extra: dict[str, Any], formats: NumberFormats
) -> IntArray:
    density = draw(st.sampled_from([1.0, 0.4, 0.05]))
    raw = rng.integers(-300, 300, shape) * (rng.random(shape) < density)
    return on_grid(raw, extra["weight_bits"], extra["sign"], formats)


def _dense(
    draw: Callable[..., Any],
    rng: Any,
    shape: Any,
    formats: NumberFormats,
    regime: str,
    *,
    chain: bool,
) -> tuple[FixedDense, dict[str, Any], list[str]]:
    extra = _settings(draw, formats, regime, lowest=False)
    size = (draw(st.integers(1, 16)), math.prod(shape))
    weight = _weights(draw, rng, size, extra, formats)
    longest = None if chain else draw(st.sampled_from([None, None, None, 1, 4, 62]))
    found = ["dense", f"{extra['weight_bits']} bits", extra["sign"]]
    delay = None
    if longest is not None:
        delay = rng.integers(0, longest + 1, size)
        found.append("delays")
    return FixedDense(weight, delay), extra, found


def _conv(
    draw: Callable[..., Any],
    rng: Any,
    shape: Any,
    formats: NumberFormats,
    regime: str,
    *,
    chain: bool,
) -> tuple[FixedConv, dict[str, Any], list[str]]:
    del chain  # convolutions have no delays
    extra = _settings(draw, formats, regime, lowest=True)
    channels, height, width = shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    out = groups * draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, dilation = draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    # What is left must hold the kernel once.
    sides = zip((height, width), kernel, padding, dilation, strict=True)
    if any(side + 2 * p < d * (k - 1) + 1 for side, k, p, d in sides):
        kernel = (1, 1)
    weight = _weights(draw, rng, (out, channels // groups, *kernel), extra, formats)
    found = ["conv", f"{extra['weight_bits']} bits", extra["sign"]]
    found += ["stride"] * (stride != (1, 1)) + ["dilation"] * (dilation != (1, 1))
    found += ["padding"] * (padding != (0, 0)) + ["groups"] * (groups > 1)
    return FixedConv(weight, stride, padding, dilation, groups), extra, found


def _shown_late(
    rng: Any, shape: Any, post: FixedPopulation, formats: NumberFormats, *, graded: bool
) -> FixedProjection:
    """Draw a convolution of the input that skips populations."""
    # Padded where the result is larger, and then as wide as makes it that large.
    pads = [
        max(0, -((have - want) // 2)) for have, want in zip(shape[1:], post.shape[1:], strict=True)
    ]
    sides = [
        have + 2 * pad - want + 1
        for have, want, pad in zip(shape[1:], post.shape[1:], pads, strict=True)
    ]
    bits = int(rng.choice(formats.weight_bits[1:]))
    raw = rng.integers(-60, 60, (post.shape[0], shape[0], *sides))
    weight = on_grid(raw * (rng.random(raw.shape) < 0.3), bits, "mixed", formats)
    connection = FixedConv(weight, (1, 1), (pads[0], pads[1]), (1, 1), 1)
    return FixedProjection("shown late", "input", post.name, connection, bits, 0, graded=graded)


def _population(
    draw: Callable[..., Any],
    rng: Any,
    name: str,
    shape: Any,
    regime: str,
    formats: NumberFormats,
    *,
    readout: bool,
    chain: bool,
) -> tuple[FixedPopulation, list[str]]:
    size = math.prod(shape)
    exponents = range(formats.bias_exp_min, formats.bias_exp_max + 1)
    found = []

    def some(values: Any) -> IntArray:
        if draw(st.booleans()):
            return np.full(size, rng.choice(values))
        return np.asarray(rng.choice(values, size))

    biased, started = draw(st.booleans()), not chain and draw(st.integers(0, 3)) == 0
    top = formats.state_limit if regime == "extreme" else 2**16
    decays = (2048, formats.decay_max - 1, formats.decay_max)
    reset = draw(st.sampled_from(["zero", "zero", "subtract", "other drop"]))
    interval = 0 if chain else draw(st.sampled_from([0, 0, 0, 1, 4, 8]))
    spiking = not (readout and draw(st.integers(0, 2)) == 0)
    vth = some([0, 40, 900, 8000, formats.vth_max]) if spiking else np.full(size, formats.vth_max)
    found += ["bias"] * biased + ["initial state"] * started + ["readout"] * (not spiking)
    found += ["subtractive reset"] * (reset != "zero") + ["timed reset"] * (interval > 0)
    found += ["other drop"] * (reset == "other drop")
    zero = np.zeros(size, int)
    population = FixedPopulation(
        name,
        shape,
        du=some((-formats.decay_u_offset, 0, 1, 900, *decays)),
        dv=some((0, 1, 300, *decays)),
        vth=vth,
        bias_mant=rng.integers(-1 - formats.bias_mant_max, formats.bias_mant_max + 1, size)
        if biased
        else zero,
        bias_exp=some(exponents) if biased else zero + exponents[0],
        u_init=rng.integers(1 - top, top, size) if started else zero,
        v_init=rng.integers(1 - top, top, size) if started else zero,
        spiking=spiking,
        v_scale=np.ones(size),
        v_offset=np.zeros(size),
        reset="zero" if reset == "zero" else "subtract",
        drop=some([0, 70, 1200, formats.vth_max]) if reset == "other drop" else None,
        reset_interval=interval,
        reset_offset=draw(st.integers(0, 9)),
    )
    return population, found


def _more_projections(
    draw: Callable[..., Any],
    rng: Any,
    input_shape: Any,
    populations: list[FixedPopulation],
    projections: list[FixedProjection],
    formats: NumberFormats,
    features: list[str],
) -> None:
    """Add projections that make the network recurrent, or skip a population."""
    flat = [number for number, p in enumerate(populations) if len(p.shape) == 1]

    def add(pre: int, post: int, soonest: int, feature: str) -> None:
        extra = _settings(draw, formats, features[0], lowest=False)
        name, source = populations[post].name, "input" if pre < 0 else populations[pre].name
        size = populations[post].size
        before = math.prod(input_shape) if pre < 0 else populations[pre].size
        weight = _weights(draw, rng, (size, before), extra, formats)
        late = draw(st.booleans()) or soonest > 0
        delay = rng.integers(soonest, soonest + 3, weight.shape) if late else None
        projections.append(
            FixedProjection(f"{feature} {name}", source, name, FixedDense(weight, delay), **extra)
        )
        features.append(feature)

    spiking = [number for number in flat if populations[number].spiking]
    if spiking and draw(st.integers(0, 3)) == 0:
        number = draw(st.sampled_from(spiking))
        add(number, number, 0, "recurrent")
    back = [n for n in range(1, len(populations)) if n - 1 in flat and n in spiking]
    if back and draw(st.integers(0, 3)) == 0:
        number = draw(st.sampled_from(back))
        add(number, number - 1, 0, "feedback")
    skipping = [n for n in flat if n > 0]
    if skipping and draw(st.integers(0, 3)) == 0:
        number = draw(st.sampled_from(skipping))
        add(number - 2, number, 1, "skip")


def random_networks(
    count: int, formats: NumberFormats | None = None, *, start: int = 0
) -> list[Case]:
    """Draw networks with everything that a backend may meet.

    Dense layers and convolutions with strides, padding, dilation and groups, delays, recurrence,
    sign modes, widths, exponents, decays, biases, resets, initial states, graded input; currents
    that wrap and potentials that saturate.

    Parameters
    ----------
    count : int
    formats : NumberFormats, optional
        The registers of the chip; Loihi 2's by default.
    start : int
        Seed; the same networks are drawn for it again, unless hypothesis changes.

    Returns
    -------
    list of Case
    """
    return collect(count, formats or load_target("loihi2").number_formats, start)[0]


def collect(count: int, formats: NumberFormats, start: int = 0) -> tuple[list[Case], Counter[str]]:
    """Draw networks that the engine accepts, and count those it refuses."""
    found: list[Case] = []
    refused: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=4 * count + 20,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(cases(formats))
    def draw(case: Case) -> None:
        if len(found) == count:
            raise _EnoughError
        try:
            run(case.network, case.spikes, kernels="plain")
        except FidelityError:
            refused["current out of range, refused"] += 1
            return
        found.append(case)

    # hypothesis has no other way to stop.
    with contextlib.suppress(_EnoughError):
        draw()
    return found, refused
