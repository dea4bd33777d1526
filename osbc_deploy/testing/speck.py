"""Random networks in Speck's arithmetic: everything that engine and sinabs must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    InputFormat,
)
from osbc_deploy.lower.merge import expand, pooling_of, shifted
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Projection
from osbc_deploy.model.windows import Shape
from osbc_deploy.testing.networks import Case

__all__ = ["speck_cases"]

_STEPS = 40
_SAMPLES = 2


def speck_cases(count: int, *, start: int = 0) -> Iterator[Case]:
    """Draw chains of up to four layers, the same for a seed."""
    formats = load_target("speck").number_formats
    for number in range(start, start + count):
        yield _case(np.random.default_rng(number), formats)


def _case(rng: Any, formats: NumberFormats) -> Case:
    flat, counts, biased, low = (bool(rng.integers(2)) for _ in range(4))
    inputs: Shape = (int(rng.integers(1, 40)),)
    if not flat:
        inputs = (int(rng.integers(1, 4)), *(int(n) for n in rng.integers(5, 15, 2)))
    populations: list[FixedPopulation] = []
    projections: list[FixedProjection] = []
    features = {"counts": counts, "bias": biased, "floor": low}
    shape, pre = inputs, INPUT
    for number in range(int(rng.integers(1, 5))):
        name = f"layer {number}"
        asked = _dense(rng, shape) if flat or rng.random() < 0.3 else _conv(rng, shape)
        flat = flat or not asked.connection.convolutional
        features |= {"conv": True} if asked.connection.convolutional else {"dense": True}
        features |= {"pooling": True} if asked.pool else {}
        # Many weights that are alike are driven below the floor of a potential, or far up.
        mean = -70 if low and pre == INPUT else 8
        codes = np.rint(rng.normal(mean, 40, asked.connection.weight.shape))
        merged, _ = expand(asked, np.clip(codes, -128, 127).astype(np.int64), shape)
        connection = shifted(merged, formats.weight_shift(formats.weight_bits[-1]))
        projections.append(
            FixedProjection(
                f"to {name}", pre, name, connection, formats.weight_bits[-1],
                formats.weight_exp_max, graded=counts and pre == INPUT, pooling=pooling_of(asked),
            )
        )  # fmt: skip
        shape, pre = connection.output_shape(shape), name
        populations.append(_population(rng, name, shape, formats, biased=biased))
    kind = InputFormat("integers", 3) if counts else InputFormat()
    signal = rng.poisson(rng.choice([0.2, 1.0]), (_SAMPLES, _STEPS, *inputs))
    spikes = signal.clip(0, 7 if counts else 1).astype(np.int32 if counts else np.uint8)
    returns = rng.random(len(populations)) < 0.3
    features |= {"return to zero": True} if returns.any() else {}
    neurons = tuple(
        replace(p, reset="zero" if zero else "subtract")
        for p, zero in zip(populations, returns, strict=True)
    )
    network = FixedPointNetwork(inputs, neurons, tuple(projections), formats, "sum", kind)
    return Case(network, spikes, tuple(name for name, there in features.items() if there))


def _dense(rng: Any, shape: Shape) -> Projection:
    pool = _pool(rng, shape)
    seen = shape if pool is None else pool.output_shape(shape)
    weight = np.zeros((int(rng.integers(1, 20)), int(np.prod(seen))))
    return Projection("", INPUT, "", Dense(weight), pool)


def _conv(rng: Any, shape: Shape) -> Projection:
    pool = _pool(rng, shape)
    channels, *sides = shape if pool is None else pool.output_shape(shape)
    kernel = int(rng.integers(1, min(4, *sides) + 1))
    tiled = pool is None or not any(n % k for n, k in zip(shape[1:], pool.kernel, strict=True))
    # What a pooling leaves over must not lie where a convolution pads with zeros.
    padding = int(rng.integers(0, kernel)) if tiled else 0
    stride = int(rng.choice([1, 1, 2]))
    weight = np.zeros((int(rng.integers(1, 7)), channels, kernel, kernel))
    connection = Conv(weight, stride=(stride,) * 2, padding=(padding,) * 2)
    return Projection("", INPUT, "", connection, pool)


def _pool(rng: Any, shape: Shape) -> AvgPool | None:
    """Return a pooling, if one is drawn."""
    window = int(rng.choice([2, 4]))
    if len(shape) != 3 or any(n < window for n in shape[1:]) or rng.random() < 0.3:
        return None
    return AvgPool((window, window), (window, window))


def _population(
    rng: Any, name: str, shape: Shape, formats: NumberFormats, *, biased: bool
) -> FixedPopulation:
    size = int(np.prod(shape))
    zero = np.zeros(size, np.int64)
    # One bias for a channel, one threshold for all.
    bias = np.repeat(rng.integers(-128, 128, shape[0]) >> int(rng.integers(0, 6)), size // shape[0])
    return FixedPopulation(
        name=name,
        shape=shape,
        du=zero + formats.decay_unity - formats.decay_u_offset,
        dv=zero,
        vth=zero + int(rng.choice([30, 300, 3000, formats.vth_max])),
        bias_mant=bias if biased else zero,
        bias_exp=zero,
        u_init=zero,
        v_init=zero,
        spiking=True,
        v_scale=np.ones(size),
        v_offset=np.zeros(size),
    )
