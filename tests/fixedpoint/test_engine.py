"""The engine against the chip's equations written out with Python integers, neuron by neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from osbc_deploy.errors import FidelityError
from osbc_deploy.fixedpoint.engine import accumulate, run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

LIMIT = 2**23


def reference(a: list[int], p: dict[str, int]) -> tuple[list[int], list[int], list[int]]:
    """One LIF neuron in plain Python integers."""
    u, v = p["u_init"], p["v_init"]
    spikes, us, vs = [], [], []
    sign = lambda x: (x > 0) - (x < 0)  # noqa: E731
    for x in a:
        u = sign(u) * ((abs(u) * (4096 - (p["du"] + 1))) >> 12) + x * 64
        if u > LIMIT:
            u -= 2 * LIMIT
        elif u <= -LIMIT:
            u += 2 * LIMIT
        v = sign(v) * ((abs(v) * (4096 - p["dv"])) >> 12) + u + p["bias_mant"] * 2 ** p["bias_exp"]
        v = max(-(LIMIT - 1), min(LIMIT - 1, v))
        s = int(v > p["vth"] * 64)
        if s:
            v = 0
        spikes.append(s)
        us.append(u)
        vs.append(v)
    return spikes, us, vs


def one_layer(
    weight: Any, exponent: int, registers: dict[str, Any], formats: NumberFormats, spiking: bool
) -> FixedPointNetwork:
    size = len(weight)
    population = FixedPopulation(
        "a", (size,), spiking=spiking, v_scale=np.ones(size), v_offset=np.zeros(size), **registers
    )
    projection = FixedProjection("p", "input", "a", FixedDense(weight), 8, exponent)
    return FixedPointNetwork((weight.shape[1],), (population,), (projection,), formats, "sum")


@pytest.mark.parametrize("exponent", [-1, 0, 3])
def test_lif_equals_the_equations(
    exponent: int, formats: NumberFormats, rng: np.random.Generator
) -> None:
    size, n_pre, steps = 60, 8, 40
    weight = 2 * rng.integers(-128, 128, (size, n_pre))
    registers = {
        "du": rng.choice([0, 1, 700, 2048, 4094, 4095], size),
        "dv": rng.choice([0, 1, 300, 2048, 4095], size),
        "vth": rng.choice([0, 5, 900, 20000, 131071], size),
        "bias_mant": rng.integers(-4095, 4096, size) * rng.integers(0, 2, size),
        "bias_exp": rng.integers(0, 8, size),
        "u_init": rng.integers(-(2**20), 2**20, size),
        "v_init": rng.integers(-(2**22), 2**22, size),
    }
    spikes = (rng.random((3, steps, n_pre)) < 0.5).astype(np.uint8)
    fires = run(one_layer(weight, exponent, registers, formats, True), spikes).output
    potential = run(one_layer(weight, exponent, registers, formats, False), spikes).output
    for sample in range(3):
        for j in range(size):
            total = [int(weight[j] @ x) for x in spikes[sample].astype(int)]
            a = [t << exponent if exponent >= 0 else t >> -exponent for t in total]
            s, _, v = reference(a, {k: int(r[j]) for k, r in registers.items()})
            assert fires[sample, :, j].tolist() == s
            assert potential[sample, :, j].tolist() == v
    assert 0 < fires.mean() < 1


def test_current_wraps_potential_saturates_and_both_are_counted(formats: NumberFormats) -> None:
    # 254 * 2^9 * 64 = 8323072 in the first step; the second wraps to a large negative current.
    weight = np.array([[254], [254]])
    registers = {
        "du": [0, 4095],
        "dv": [4095, 0],
        "vth": [131071, 131071],
        "bias_mant": [0, 4095],
        "bias_exp": [0, 7],
        "u_init": [0, 0],
        "v_init": [0, 0],
    }
    network = one_layer(weight, 9, registers, formats, True)
    spikes = np.ones((1, 6, 1), np.uint8)
    done = run(network, spikes, record=["a"])
    for j in range(2):
        s, u, v = reference([254 << 9] * 6, {k: int(r[j]) for k, r in registers.items()})
        assert done.spikes["a"][0, :, j].tolist() == s
        if j == 0:
            assert min(u) < 0
        else:
            assert max(v) == 0 or max(v) == LIMIT - 1
    assert done.activity["a"].wraps > 0
    assert done.activity["a"].saturations > 0


def test_a_current_beyond_one_wrap_is_refused(formats: NumberFormats) -> None:
    registers = {k: [0] for k in ("dv", "bias_mant", "bias_exp", "u_init", "v_init")}
    network = one_layer(
        np.full((1, 4), 254), 10, {"du": [4095], "vth": [5], **registers}, formats, True
    )
    with pytest.raises(FidelityError, match="a: synaptic current reaches"):
        run(network, np.ones((1, 2, 4), np.uint8))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batches_do_not_matter(batch: int, formats: NumberFormats, rng: Any) -> None:
    weight = 2 * rng.integers(-100, 100, (20, 9))
    ones = np.ones(20, int)
    registers = {
        "du": 900 * ones,
        "dv": 300 * ones,
        "vth": 200 * ones,
        "bias_mant": 3 * ones,
        "bias_exp": ones,
        "u_init": 0 * ones,
        "v_init": 5 * ones,
    }
    network = one_layer(weight, 0, registers, formats, True)
    spikes = (rng.random((7, 12, 9)) < 0.4).astype(np.uint8)
    assert np.array_equal(
        run(network, spikes, batch_size=batch).output, run(network, spikes).output
    )


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 2), 2), ((3, 2), (2, 0), (2, 1), 1)],
)
def test_convolution_is_torchs(
    stride: Any, padding: Any, dilation: Any, groups: int, formats: NumberFormats, rng: Any
) -> None:
    weight = 2 * rng.integers(-127, 128, (6, 4 // groups, 3, 2))
    spikes = (rng.random((2, 3, 4, 9, 8)) < 0.4).astype(np.uint8)
    conv = FixedConv(weight, stride, padding, dilation, groups)
    a = accumulate(FixedProjection("p", "input", "a", conv, 8, -1), spikes, (4, 9, 8), formats)
    expected = torch.nn.functional.conv2d(
        torch.tensor(spikes).flatten(0, 1).double(),
        torch.tensor(weight / 2),
        None,
        stride,
        padding,
        dilation,
        groups,
    )
    assert np.array_equal(a.reshape(6, -1), expected.flatten(1).numpy().astype(int))


def test_sums_beyond_single_precision_stay_exact(formats: NumberFormats) -> None:
    # 70001 weights of 254 and one of 2 need 25 bits: float32 would lose the last.
    weight = np.full((1, 70002), 254)
    weight[0, 0] = 2
    projection = FixedProjection("p", "input", "a", FixedDense(weight), 8, 0)
    a = accumulate(projection, np.ones((1, 1, 70002), np.uint8), (70002,), formats)
    assert a[0, 0, 0] == 254 * 70001 + 2
