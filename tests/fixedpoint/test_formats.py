"""Widths of registers: those allowed are computed exactly, with Python's integers as the judge."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.engine import Kernels, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults

KERNELS: tuple[Kernels, ...] = ("compiled", "plain")
LOIHI2 = load_target("loihi2").number_formats

EXTREMES = [
    {"state_bits": 31, "decay_bits": 30, "vth_bits": 30, "state_shift": 0},
    {"state_bits": 31, "decay_bits": 30, "vth_bits": 1, "state_shift": 29},
    {"state_bits": 31, "decay_bits": 1, "bias_mant_bits": 2, "bias_exp_max": 29},
    {"state_bits": 31, "decay_bits": 30, "bias_mant_bits": 31, "bias_exp_max": 0},
    {"state_bits": 3, "decay_bits": 1, "vth_bits": 1, "state_shift": 1, "bias_mant_bits": 2},
    {"weight_mantissa_bits": 14, "weight_bits": (2, 14), "weight_exp_max": 15, "state_bits": 31},
    {"weight_exp_min": -15, "weight_bits": (1, 8), "decay_u_offset": 0},
]


def step(formats: NumberFormats, u: int, v: int, kept: tuple[int, int], add: int, bias: int,
         vth: int) -> tuple[int, int, bool]:  # fmt: skip
    """One step of one neuron in integers of any size, written from the equations."""
    unity, limit = 2**formats.decay_bits, 2 ** (formats.state_bits - 1)

    def towards_zero(product: int) -> int:
        return product // unity if product >= 0 else -(-product // unity)

    u = towards_zero(u * kept[0]) + add * 2**formats.state_shift
    if u > limit:
        u -= 2 * limit
    elif u <= -limit:
        u += 2 * limit
    v = towards_zero(v * kept[1]) + u + bias
    v = max(1 - limit, min(limit - 1, v))
    fires = v > vth * 2**formats.state_shift
    return u, 0 if fires else v, fires


@pytest.mark.parametrize("changes", EXTREMES)
@pytest.mark.parametrize("seed", range(4))
def test_extreme_widths_compute_what_python_does(changes: dict[str, int], seed: int) -> None:
    formats = replace(LOIHI2, **changes)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    n, inputs, steps = 16, 5, 24
    bits = formats.weight_bits[-1]
    distance = 1 << (formats.weight_mantissa_bits - bits + 1)
    top = 1 << formats.weight_mantissa_bits
    # As large as one wrap of the current brings back, as the engine demands.
    room = 2 ** (formats.state_bits - 1) >> formats.state_shift
    exponent = max(
        formats.weight_exp_min,
        min(formats.weight_exp_max, (room // (inputs * top)).bit_length() - 1),
    )
    most = int(min(top, room * 2.0**-exponent / inputs)) // distance
    weight = rng.integers(-most, most + (most < top // distance), (n, inputs)) * distance
    bias = 2 ** (formats.bias_mant_bits - 1)
    limit = 2 ** (formats.state_bits - 1)
    edge = [0, 1, formats.decay_max]
    population = FixedPopulation(
        name="p",
        shape=(n,),
        du=rng.choice([-formats.decay_u_offset, *edge], n),
        dv=rng.choice(edge, n),
        vth=rng.choice([0, 1, formats.vth_max], n),
        bias_mant=rng.choice([-bias, 0, bias - 1], n),
        bias_exp=rng.choice([formats.bias_exp_min, formats.bias_exp_max], n),
        u_init=np.zeros(n, int),
        v_init=rng.choice([1 - limit, 0, limit - 1], n),
        spiking=True,
        v_scale=np.ones(n),
        v_offset=np.zeros(n),
        reset="zero",
    )
    projection = FixedProjection(
        "w", "input", "p", FixedDense(weight.astype(np.int16)), bits, exponent, "mixed", False
    )
    network = FixedPointNetwork((inputs,), (population,), (projection,), formats, "sum")
    assert faults(network) == []
    spikes = (rng.random((1, steps, inputs)) < 0.5).astype(np.uint8)
    for kernels in KERNELS:
        done = run(network, spikes, states=["p"], kernels=kernels)
        for k in range(n):
            u, v = 0, int(population.v_init[k])
            for t in range(steps):
                total = sum(int(w) for w, s in zip(weight[k], spikes[0, t], strict=True) if s)
                add = total << exponent if exponent >= 0 else total >> -exponent
                kept = (
                    formats.decay_unity - int(population.du[k]) - formats.decay_u_offset,
                    formats.decay_unity - int(population.dv[k]),
                )
                b = int(population.bias_mant[k]) << int(population.bias_exp[k])
                u, v, fires = step(formats, u, v, kept, add, b, int(population.vth[k]))
                found = done.u["p"][0, t, k], done.v["p"][0, t, k], done.output[0, t, k]
                assert found == (u, v, fires), (kernels, k, t)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state_bits": 2**63}, "state_bits is 9223372036854775808"),
        ({"decay_bits": float("inf")}, "decay_bits is inf"),
        ({"decay_bits": 12.0}, "decay_bits is 12.0"),
        ({"decay_bits": True}, "decay_bits is True"),
        ({"weight_bits": (8, float("nan"))}, "weight_bits is"),
        ({"weight_bits": "8"}, "weight_bits is '8'"),
        ({"weight_bits": (8, 2)}, "do not rise"),
        ({"vth_bits": None, "state_bits": -1}, "vth_bits is None.*state_bits is -1"),
    ],
)
def test_all_widths_that_cannot_be_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NumberFormats(**(asdict(LOIHI2) | changes))
