"""The engine against the chip's equations written out with Python integers, neuron by neuron."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from osbc_deploy.errors import FidelityError, UsageError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.testing import Case, random_networks
from osbc_deploy.testing.speck import speck_cases
from register_ends import SATURATIONS, WRAPS, U, V, register_ends

LIMIT = 2**23


@pytest.fixture(scope="module")
def drawn(formats: NumberFormats) -> list[Case]:
    return random_networks(60, formats, start=5)


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


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
@pytest.mark.parametrize("exponent", [-1, 0, 3])
def test_lif_equals_the_equations(
    exponent: int, kernels: Any, formats: NumberFormats, rng: np.random.Generator
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
    fires = run(one_layer(weight, exponent, registers, formats, True), spikes, kernels=kernels)
    readout = run(
        one_layer(weight, exponent, registers, formats, False),
        spikes,
        states=["a"],
        kernels=kernels,
    )
    for sample in range(3):
        for j in range(size):
            total = [int(weight[j] @ x) for x in spikes[sample].astype(int)]
            a = [t << exponent if exponent >= 0 else t >> -exponent for t in total]
            s, u, v = reference(a, {k: int(r[j]) for k, r in registers.items()})
            assert fires.output[sample, :, j].tolist() == s
            assert readout.output[sample, :, j].tolist() == v
            assert readout.u["a"][sample, :, j].tolist() == u
    assert 0 < fires.output.mean() < 1


def at_the_bounds(formats: NumberFormats) -> FixedPointNetwork:
    """Two readouts whose first current is exactly -2^23 and 2^23."""
    weight = np.array([[-256] * 4 + [0] * 4, [128] * 8])
    names = ("du", "bias_mant", "bias_exp", "u_init", "v_init")
    registers = dict.fromkeys(names, np.zeros(2, int)) | {
        "dv": np.full(2, 4095), "vth": np.full(2, 131071)
    }  # fmt: skip
    return one_layer(weight, 7, registers, formats, False)


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_the_lowest_current_wraps_and_the_highest_does_not(
    kernels: Any, formats: NumberFormats
) -> None:
    # The register holds (-2^23, 2^23]; 4 * -256 * 2^7 * 64 = -2^23 and 8 * 128 * 2^7 * 64 = 2^23.
    spikes = np.zeros((1, 2, 8), np.uint8)
    spikes[0, 0] = 1
    done = run(at_the_bounds(formats), spikes, states=["a"], kernels=kernels)
    assert done.u["a"][0, 0].tolist() == [LIMIT, LIMIT]
    # The potential is one less, above the largest threshold, and so reset.
    assert done.v["a"][0, 0].tolist() == [0, 0]
    assert done.activity["a"].wraps == 1


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
@pytest.mark.parametrize("wide", [False, True])
def test_registers_end_where_they_end(wide: bool, kernels: Any, formats: NumberFormats) -> None:
    network, spikes = register_ends(formats, wide=wide)
    done = run(network, spikes, states=["a"], kernels=kernels)
    assert (done.u["a"].ravel().tolist(), done.v["a"].ravel().tolist()) == (U, V)
    seen = done.activity["a"]
    assert (seen.wraps, seen.saturations) == (WRAPS, SATURATIONS)


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_current_wraps_potential_saturates_and_both_are_counted(
    kernels: Any, formats: NumberFormats
) -> None:
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
    done = run(network, spikes, record=["a"], kernels=kernels)
    for j in range(2):
        s, u, v = reference([254 << 9] * 6, {k: int(r[j]) for k, r in registers.items()})
        assert done.spikes["a"][0, :, j].tolist() == s
        if j == 0:
            assert min(u) < 0
        else:
            assert max(v) == 0 or max(v) == LIMIT - 1
    assert done.activity["a"].wraps > 0
    assert done.activity["a"].saturations > 0


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_a_current_beyond_one_wrap_is_refused(kernels: Any, formats: NumberFormats) -> None:
    registers = {k: [0] for k in ("dv", "bias_mant", "bias_exp", "u_init", "v_init")}
    network = one_layer(
        np.full((1, 4), 254), 10, {"du": [4095], "vth": [5], **registers}, formats, True
    )
    with pytest.raises(FidelityError, match="a: synaptic current reaches"):
        run(network, np.ones((1, 2, 4), np.uint8), kernels=kernels)
    # One spike is brought back by a wrap, of the first sample; two are not.
    few = np.zeros((2, 1, 4), np.uint8)
    few[0, 0, 0] = few[1, 0, :2] = 1
    with pytest.raises(FidelityError, match=f"reaches {2 * 254 * 2**10 * 64}, one wrap"):
        run(network, few, kernels=kernels, batch_size=2, threads=1)


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_what_samples_go_through_is_added_up(kernels: Any, formats: NumberFormats) -> None:
    registers = {k: [0] for k in ("dv", "bias_mant", "bias_exp", "u_init", "v_init")}
    network = one_layer(
        np.array([[254, -254]]), 10, {"du": [4095], "vth": [5], **registers}, formats, True
    )
    # Each spike wraps: 254 << 16 is 2^24 - 2^17, so u is -2^17 or 2^17, where it fires.
    spikes = np.zeros((6, 5, 2), np.uint8)
    spikes[np.arange(6), 1, np.arange(6) % 2] = 1
    spikes[4, 3, 0] = 1
    done = run(network, spikes, kernels=kernels, batch_size=6, threads=1, record=["a"])
    seen = done.activity["a"]
    assert (seen.wraps, seen.saturations, seen.u_peak) == (7, 0, 254 << 16)
    assert seen.spikes == 3


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (2, 3), (7, 2)])
def test_batches_and_threads_do_not_matter(
    batch: int, threads: int, formats: NumberFormats, rng: Any
) -> None:
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
    plain = run(network, spikes, kernels="plain", batch_size=batch)
    compiled = run(network, spikes, batch_size=batch, threads=threads)
    assert np.array_equal(plain.output, compiled.output)
    assert plain.output.any()
    assert plain.activity["a"].spikes == compiled.activity["a"].spikes
    assert np.array_equal(plain.activity["a"].counts, compiled.activity["a"].counts)
    assert plain.activity["a"].u_peak == compiled.activity["a"].u_peak


def memoryless(
    connection: Any, exponent: int, shape: Any, size: int, formats: NumberFormats, **options: Any
) -> FixedPointNetwork:
    """A layer whose u is 64 times its activation: no decay is kept, nothing fires."""
    zero, ones = np.zeros(size, int), np.ones(size)
    post = connection.output_shape(shape)
    population = FixedPopulation(
        "a", post, zero + 4095, zero + 4095, zero + 131071, zero, zero, zero, zero, True,
        ones, ones,
    )  # fmt: skip
    projection = FixedProjection("p", "input", "a", connection, 8, exponent, **options)
    return FixedPointNetwork(shape, (population,), (projection,), formats, "sum")


KERNELS = pytest.mark.parametrize("kernels", ["compiled", "plain"])


@KERNELS
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((1, 1), (1, 1), (1, 1), 2),
        ((2, 1), (1, 2), (1, 2), 2),
        ((3, 2), (2, 0), (2, 1), 1),
    ],
)
def test_convolution_is_torchs(
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    kernels: Any,
    formats: NumberFormats,
    rng: Any,
) -> None:
    weight = 2 * rng.integers(-127, 128, (6, 4 // groups, 3, 2))
    spikes = (rng.random((2, 3, 4, 9, 8)) < 0.4).astype(np.uint8)
    conv = FixedConv(weight, stride, padding, dilation, groups)
    expected = torch.nn.functional.conv2d(
        torch.tensor(spikes).flatten(0, 1).double(),
        torch.tensor(weight / 2),
        None,
        stride,
        padding,
        dilation,
        groups,
    )
    network = memoryless(conv, -1, (4, 9, 8), expected[0].numel(), formats)
    a = run(network, spikes, states=["a"], kernels=kernels).u["a"] // 64
    assert np.array_equal(a.reshape(6, -1), expected.flatten(1).numpy().astype(int))


@KERNELS
@pytest.mark.parametrize("exponent", [-3, -1, 2])
def test_every_delay_is_summed_and_shifted_on_its_own(
    exponent: int, kernels: Any, formats: NumberFormats, rng: Any
) -> None:
    weight = 2 * rng.integers(-127, 128, (5, 7))
    delay = rng.integers(0, 4, (5, 7))
    spikes = (rng.random((1, 12, 7)) < 0.5).astype(np.uint8)
    network = memoryless(FixedDense(weight, delay), exponent, (7,), 5, formats)
    a = run(network, spikes, states=["a"], kernels=kernels).u["a"][0] // 64
    for t in range(12):
        for i in range(5):
            total = 0
            for d in range(4):
                if t >= d:
                    part = sum(
                        int(weight[i, j])
                        for j in range(7)
                        if delay[i, j] == d and spikes[0, t - d, j]
                    )
                    total += part << exponent if exponent >= 0 else part >> -exponent
            assert a[t, i] == total


@KERNELS
def test_graded_input_is_multiplied(kernels: Any, formats: NumberFormats, rng: Any) -> None:
    weight = 2 * rng.integers(-127, 128, (5, 7))
    values = rng.integers(-9, 10, (2, 6, 7)).astype(np.int32)
    graded = memoryless(FixedDense(weight), 0, (7,), 5, formats, graded=True)
    binary = memoryless(FixedDense(weight), 0, (7,), 5, formats)
    found = run(graded, values, states=["a"], kernels=kernels).u["a"] // 64
    assert np.array_equal(found, values @ weight.T)
    spikes = (values != 0).astype(np.uint8)
    found = run(binary, spikes, states=["a"], kernels=kernels).u["a"] // 64
    assert np.array_equal(found, spikes @ weight.T)
    for given, words in [
        (values, "values from -9 to 9, the network's input takes 0 or 1"),
        (spikes * 0.5, "real values from 0 to 0.5, the network's input takes 0 or 1"),
    ]:
        with pytest.raises(UsageError, match=words):
            run(binary, given, kernels=kernels)
    few = replace(graded, input=InputFormat("integers", 4, signed=True))
    with pytest.raises(UsageError, match="from -9 to 9, the network's input takes -8 to 7"):
        run(few, values, kernels=kernels)


@KERNELS
def test_recurrent_spikes_arrive_a_step_later(kernels: Any, formats: NumberFormats) -> None:
    # One spike goes round a ring of three; each neuron fires when the one before it has.
    ring = 200 * np.roll(np.eye(3, dtype=int), 1, axis=0)
    network = memoryless(FixedDense(200 * np.eye(3, dtype=int)), 0, (3,), 3, formats)
    population = replace(network.populations[0], vth=np.full(3, 100))
    network = replace(
        network,
        populations=(population,),
        projections=(
            *network.projections,
            FixedProjection("r", "a", "a", FixedDense(ring), 8, 0),
        ),
    )
    spikes = np.zeros((1, 7, 3), np.uint8)
    spikes[0, 0, 0] = 1
    fired = run(network, spikes, kernels=kernels).output[0]
    assert fired.argmax(axis=1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fired.sum() == 7


@KERNELS
def test_subtractive_and_timed_resets(kernels: Any, formats: NumberFormats) -> None:
    # The potential gains 64 * 50 a step, the threshold is 64 * 120.
    network = memoryless(FixedDense(np.array([[50]])), 0, (1,), 1, formats)
    population = replace(network.populations[0], dv=[0], vth=[120])
    spikes = np.ones((1, 10, 1), np.uint8)

    def potentials(**changes: Any) -> list[int]:
        net = replace(network, populations=(replace(population, **changes),))
        return [v // 64 for v in run(net, spikes, states=["a"], kernels=kernels).v["a"].ravel()]

    assert potentials() == [50, 100, 0, 50, 100, 0, 50, 100, 0, 50]
    assert potentials(reset="subtract") == [50, 100, 30, 80, 10, 60, 110, 40, 90, 20]
    dropping = potentials(reset="subtract", drop=[90])
    assert dropping == [50, 100, 60, 110, 70, 120, 80, 40, 90, 50]
    assert potentials(reset_interval=4, reset_offset=5) == [50, 50, 100, 0, 50, 50, 100, 0, 50, 50]


@KERNELS
def test_sums_beyond_single_precision_stay_exact(kernels: Any, formats: NumberFormats) -> None:
    # 70001 weights of 255 and one of 113 are 128 * 139456, just beyond 2^24: single precision
    # cannot tell this from the sum without a weight of 1.
    weight = np.full((1, 70003), 255)
    weight[0, :2] = 113, 1
    weight[0, 0] -= 1
    network = memoryless(FixedDense(weight), -7, (70003,), 1, formats, sign="excitatory")
    spikes = np.ones((1, 2, 70003), np.uint8)
    spikes[0, 1, 1] = 0
    u = run(network, spikes, states=["a"], kernels=kernels).u["a"].ravel()
    assert u.tolist() == [139456 * 64 - 2**24, 139455 * 64 - 2**24]


@KERNELS
def test_given_spikes_are_taken_as_they_are(kernels: Any, drawn: list[Case]) -> None:
    deep = [c for c in drawn if len(c.network.populations) > 1]
    assert {"skip", "recurrent"} <= {feature for c in deep for feature in c.features}
    for case in deep:
        network, spikes = case.network, case.spikes
        names = [p.name for p in network.populations]
        whole = run(network, spikes, record=names, states=names)
        given = {name: whole.spikes[name] for name in names[:-1]}
        part = run(network, spikes, record=names, states=names[-1:], given=given, kernels=kernels)
        assert np.array_equal(part.output, whole.output)
        assert np.array_equal(part.u[names[-1]], whole.u[names[-1]])
        assert list(part.activity) == names[-1:]
        assert all(np.array_equal(part.spikes[name], given[name]) for name in given)
        turned = {name: np.asfortranarray(raster) for name, raster in given.items()}
        again = run(network, spikes, given=turned, kernels=kernels)
        assert np.array_equal(again.output, whole.output)
        silent = {name: np.zeros_like(raster) for name, raster in given.items()}
        assert np.array_equal(
            run(network, spikes, given=silent, kernels=kernels).output,
            run(network, spikes, given=silent, kernels="plain").output,
        )


def test_samples_may_run_in_stretches_of_any_length(
    monkeypatch: pytest.MonkeyPatch, drawn: list[Case]
) -> None:
    chosen = [
        case
        for feature in ("conv", "delays", "recurrent", "skip")
        for case in [c for c in drawn if feature in c.features][:2]
    ]
    assert len(chosen) == 8
    # Spikes that carry numbers from population to population, too.
    chosen += speck_cases(4)
    for number, case in enumerate(chosen):
        names = [p.name for p in case.network.populations]
        plain = run(case.network, case.spikes, record=names, states=names, kernels="plain")
        monkeypatch.setattr("osbc_deploy.fixedpoint.compiled._SUMS", (1, 64)[number % 2])
        done = run(case.network, case.spikes, record=names, states=names)
        assert str(done.activity) == str(plain.activity)
        for quantity in ("spikes", "u", "v"):
            found, wanted = getattr(done, quantity), getattr(plain, quantity)
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_samples_of_another_shape_are_refused(formats: NumberFormats) -> None:
    network = memoryless(FixedDense(np.ones((2, 3))), 0, (3,), 2, formats)
    with pytest.raises(UsageError, match=r"the network takes \(n, T, 3\)"):
        run(network, np.ones((1, 2, 4), np.uint8))


@KERNELS
@pytest.mark.parametrize(("samples", "steps"), [(0, 4), (2, 0)])
def test_nothing_comes_of_no_samples_and_of_no_steps(
    kernels: Any, samples: int, steps: int, formats: NumberFormats
) -> None:
    network = memoryless(FixedDense(np.ones((2, 3))), 0, (3,), 2, formats)
    done = run(network, np.ones((samples, steps, 3), np.uint8), states=["a"], kernels=kernels)
    assert done.output.shape == done.u["a"].shape == (samples, steps, 2)
    assert not done.activity["a"].spikes


@KERNELS
def test_only_the_first_samples_are_kept(kernels: Any, drawn: list[Case]) -> None:
    for case in drawn:
        network, spikes = case.network, np.concatenate([case.spikes] * 3)
        names = [p.name for p in network.populations]
        every = run(network, spikes, record=names, states=names, kernels=kernels)
        few = run(
            network, spikes, record=names, states=names, kernels=kernels, keep=2, batch_size=3
        )
        assert np.array_equal(few.output, every.output)
        assert str(few.activity) == str(every.activity)
        for quantity in ("spikes", "u", "v"):
            found, wanted = getattr(few, quantity), getattr(every, quantity)
            assert found.keys() == wanted.keys()
            assert all(np.array_equal(found[n], wanted[n][:2]) for n in wanted)
