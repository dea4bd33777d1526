"""How the compiled engine lays out what it adds up: margins, shared sums, widths."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from osbc_deploy.errors import FidelityError
from osbc_deploy.fixedpoint import kernels
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.lanes import WIDE
from osbc_deploy.fixedpoint.learning import LearningPlan, plan_of
from osbc_deploy.fixedpoint.maps import saved, trade_of
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Pooling,
)

LIMIT = 2**23


def listening(
    shape: tuple[int, ...], formats: NumberFormats, *heard: tuple[Any, int], **options: Any
) -> FixedPointNetwork:
    """A population whose u is 64 times its activation: no decay is kept, nothing fires."""
    post = heard[0][0].output_shape(shape)
    zero = np.zeros(int(np.prod(post)), int)
    population = FixedPopulation(
        "a", post, zero + 4095, zero + 4095, zero + 131071, zero, zero, zero, zero, True,
        zero + 1.0, zero + 0.0,
    )  # fmt: skip
    projections = tuple(
        FixedProjection(f"p{n}", "input", "a", connection, 8, exponent, **options)
        for n, (connection, exponent) in enumerate(heard)
    )
    return FixedPointNetwork(shape, (population,), projections, formats, "sum")


def correlated(spikes: Any, conv: FixedConv) -> Any:
    """What torch makes of all samples and steps, (n, T, ...)."""
    found = torch.nn.functional.conv2d(
        torch.tensor(spikes).flatten(0, 1).double(),
        torch.tensor(conv.weight).double(),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )
    return found.numpy().astype(int).reshape(*spikes.shape[:2], -1)


@pytest.fixture(params=["maps", "spikes"])
def gathers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All convolutions meet whole maps, or none does."""
    way = str(request.param)
    saving = 1.0 if way == "maps" else -1.0
    monkeypatch.setattr("osbc_deploy.fixedpoint.compiled.saved", lambda trades, rates: saving)
    return way


def pushes(network: FixedPointNetwork) -> set[str]:
    """The kernels that a network runs on."""
    plan = plan_of(network, 1, frozenset(), strict=True).plan
    return {part.push.__name__ for parts in plan.heard.values() for _, _, part in parts}


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding", "dilation", "groups", "density"),
    [
        ((3, 9, 8), (9, 8), (1, 1), (0, 0), (1, 1), 1, 1.0),  # sees all of the source
        ((3, 4, 5), (5, 5), (1, 1), (2, 2), (1, 1), 1, 0.3),  # mostly padding
        ((6, 9, 7), (3, 3), (1, 1), (1, 1), (1, 1), 6, 1.0),  # a kernel for each channel
        ((4, 10, 10), (2, 2), (2, 2), (0, 0), (1, 1), 4, 1.0),  # a pooling
        ((2, 7, 11), (3, 1), (3, 4), (0, 1), (2, 1), 1, 0.1),  # a stride wider than the kernel
        ((5, 6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1, 0.0),  # nothing left
        ((40, 5, 5), (3, 3), (2, 2), (1, 1), (1, 1), 1, 0.1),
        ((150, 6, 6), (5, 5), (1, 1), (2, 2), (1, 1), 1, 1.0),  # sums beyond 16 bits
        ((2, 3, 400), (2, 3), (1, 1), (0, 1), (1, 2), 1, 0.5),  # a row wider than the registers
        ((6, 9, 33), (4, 4), (3, 2), (2, 3), (2, 1), 2, 0.4),
    ],
)
def test_convolutions_of_every_geometry_are_torchs(
    shape: Any,
    size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    density: float,
    gathers: str,
    formats: NumberFormats,
    rng: np.random.Generator,
) -> None:
    channels = 2 * groups if groups > 1 else 20
    weight = 2 * rng.integers(-127, 128, (channels, shape[0] // groups, *size))
    weight *= rng.random(weight.shape) < density
    spikes = (rng.random((3, 5, *shape)) < 0.3).astype(np.uint8)
    # Few spikes, and none, go another way than many.
    spikes[:, 3] *= rng.random(spikes[:, 3].shape) < 0.01
    spikes[:, 4] = 0
    conv = FixedConv(weight, stride, padding, dilation, groups)
    network = listening(shape, formats, (conv, 0))
    assert ("push_maps" in pushes(network)) == (gathers == "maps")
    done = run(network, spikes, states=["a"])
    assert np.array_equal(done.u["a"] // 64, correlated(spikes, conv))
    assert done.u["a"].any() == (density > 0)


def test_drawn_convolutions_are_torchs_whatever_is_said_of_their_poolings(
    gathers: str, formats: NumberFormats
) -> None:
    rng = np.random.default_rng(3)

    def pair(low: int, high: int) -> tuple[int, int]:
        return tuple(rng.integers(low, high + 1, 2).tolist())

    labels = (None, Pooling((2, 2)), Pooling((1, 2)), Pooling((2, 2), (2, 1)))
    for number in range(40):
        shape, size = (2, *pair(5, 9)), pair(1, 4)
        weight = rng.integers(-90, 91, (3, 2, *size)) * (rng.random((3, 2, *size)) < 0.6)
        stride = pair(1, 3)
        if number % 3 == 0:
            # Weights that repeat, as those of a merged pooling do.
            weight, stride = weight[:, :, :1, :1].repeat(2, 2).repeat(2, 3), (2, 2)
        conv = FixedConv(weight, stride, pair(0, 2), pair(1, 2) if number % 2 else (1, 1), 1)
        if min(conv.output_shape(shape)) < 1:
            continue
        label = labels[int(rng.integers(len(labels)))]
        spikes = (rng.random((4, 3, *shape)) < 0.5).astype(np.uint8)
        network = listening(shape, formats, (conv, 0), pooling=label)
        found = run(network, spikes, states=["a"]).u["a"] // 64
        assert np.array_equal(found, correlated(spikes, conv)), (conv, label)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("heard", [120, 128, 129, 257, 258, 259, 516, 520])
def test_sums_at_the_ends_of_16_bits_are_exact(
    heard: int, sign: int, gathers: str, formats: NumberFormats
) -> None:
    # All sources fire and all weights are 127: 258 times that is 32766, 516 times 65532.
    weight = np.full((20, heard), 127 * sign)
    spikes = np.ones((2, 2, heard), np.uint8)
    kernel = FixedConv(weight[:, :, None, None], (1, 1), (0, 0), (1, 1), 1)
    # One in two, and in ten: rows, blocks and lists.
    apart = [weight * (np.arange(20)[:, None] % step == 0) for step in (1, 2, 10)]
    for connection, fired in (
        *((FixedDense(part), spikes) for part in apart),
        (kernel, np.ones((2, 2, heard, 6, 6), np.uint8)),
    ):
        network = listening(fired.shape[2:], formats, (connection, 0))
        found = run(network, fired, states=["a"]).u["a"] // 64
        rows = connection.weight.reshape(20, heard).sum(axis=1)
        assert np.array_equal(found[0, 0], rows.repeat(found.shape[-1] // 20))
    # Poolings of 8 x 8 and 18 x 18, which count to 64 and 324.
    for side, channels in ((8, 5), (18, 1)):
        weight = kernel.weight[:, :channels].repeat(side, 2).repeat(side, 3)
        pooled = FixedConv(weight, (side, side), (0, 0), (1, 1), 1)
        window = Pooling((side, side))
        network = listening((channels, 2 * side, side), formats, (pooled, 0), pooling=window)
        fired = np.ones((1, 1, channels, 2 * side, side), np.uint8)
        found = run(network, fired, states=["a"]).u["a"] // 64
        assert (found == channels * side * side * 127 * sign).all()


def test_codes_that_leave_their_width_take_a_wider_one(formats: NumberFormats) -> None:
    # A code of 128; one that is brought to another's exponent: 127 << 9, 127 << 8.
    spikes = np.eye(3, dtype=np.uint8)[None]
    odd = FixedDense(np.array([[1, 128, 3]]))
    network = listening((3,), formats, (odd, 0))
    network = replace(network, projections=(replace(network.projections[0], sign="excitatory"),))
    assert run(network, spikes, states=["a"]).u["a"].ravel().tolist() == [64, 64 * 128, 64 * 3]
    for exponent in (8, 9):
        large, small = FixedDense(np.array([[127, -127, 0]])), FixedDense(np.array([[1, 2, 3]]))
        found = run(listening((3,), formats, (large, exponent), (small, 0)), spikes, states=["a"])
        expected = [(127 << exponent) + 1, -(127 << exponent) + 2, 3]
        assert (found.u["a"] // 64).ravel().tolist() == expected


def test_a_sum_at_half_the_range_wraps(formats: NumberFormats) -> None:
    # 2 times 128 << 15 is 2^23, which a convolution's sum wraps to -2^23; the other brings it to
    # -2^15. Beside it, a sum that no 32 bits hold is no small one.
    ones = np.ones((1, 1, 2, 1, 1), np.uint8)
    half = FixedConv(np.full((1, 2, 1, 1), 128), (1, 1), (0, 0), (1, 1), 1)
    less = FixedConv(np.array([128, 127]).reshape(1, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1)
    found = run(listening((2, 1, 1), formats, (half, 15), (less, 15)), ones, states=["a"])
    assert found.u["a"].item() == -(2**15) * 64


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_currents_beyond_32_bits_are_refused(kernels: Any, formats: NumberFormats) -> None:
    # Four times 127 * 2^23 + 2^23 is 2^32, which 32 bits take for 0.
    network = listening((2,), formats, *[(FixedDense(np.array([[127, 1]])), 0)] * 4, graded=True)
    network = replace(network, input=InputFormat("integers", 24))
    values = np.array([[[2**23, 2**23]]], np.int32)
    with pytest.raises(FidelityError, match=rf"reaches {2**32 * 64},"):
        run(network, values, kernels=kernels)
    # 1023 << 15 times 64, and a current of 2^21 that stays whole: 2^31, which 32 bits take for
    # -2^31, whose magnitude they do not hold.
    weight = FixedDense(np.array([[254, 254, 254, 254, 7]]))
    network = listening((5,), formats, (weight, 15))
    kept = replace(network.populations[0], du=np.array([-1]), u_init=np.array([2**21]))
    network = replace(network, populations=(kept,))
    with pytest.raises(FidelityError, match=rf"reaches {2**31},"):
        run(network, np.ones((1, 1, 5), np.uint8), kernels=kernels)


def test_shares_of_states_are_exact_where_a_double_is_not(formats: NumberFormats) -> None:
    # u kept / 2^30 lies a 2^30th below a whole number near 2^28, which takes 58 digits.
    wide = replace(formats, state_bits=30, decay_bits=30)
    kept = 2**30 - 2**29 + 1
    u = -pow(kept, -1, 2**30) % 2**30
    assert u < 2**29
    network = listening((1,), wide, (FixedDense(np.array([[2]])), 0))
    slow = replace(
        network.populations[0], du=np.array([2**30 - kept - wide.decay_u_offset]),
        u_init=np.array([u]),
    )  # fmt: skip
    network = replace(network, populations=(slow,))
    found = run(network, np.zeros((1, 1, 1), np.uint8), states=["a"]).u["a"].item()
    assert found == u * kept // 2**30


@pytest.mark.parametrize("exponents", [(0, 0, 0), (3, 0, 1), (-2, 1, -1)])
def test_projections_of_other_margins_and_exponents_meet(
    exponents: tuple[int, ...], gathers: str, formats: NumberFormats, rng: np.random.Generator
) -> None:
    shape = (3, 6, 7)
    wide = FixedConv(rng.integers(-127, 128, (4, 3, 5, 5)), (1, 1), (2, 2), (1, 1), 1)
    small = FixedConv(4 * rng.integers(-60, 61, (4, 3, 1, 1)), (1, 1), (0, 0), (1, 1), 1)
    tall = FixedConv(rng.integers(-127, 128, (4, 3, 3, 1)), (1, 1), (1, 0), (1, 1), 1)
    heard = tuple(zip((wide, small, tall), exponents, strict=True))
    spikes = (rng.random((2, 9, *shape)) < 0.3).astype(np.uint8)
    expected = sum(
        np.floor(correlated(spikes, conv) * 2.0**exponent).astype(int) for conv, exponent in heard
    )
    done = run(listening(shape, formats, *heard), spikes, states=["a"])
    assert np.array_equal(done.u["a"] // 64, expected)


def test_neurons_in_one_window_of_a_pooling_share_their_weights(
    formats: NumberFormats, rng: np.random.Generator
) -> None:
    pooled = rng.integers(-120, 121, (30, 2, 3, 3))
    merged = pooled.repeat(2, axis=2).repeat(2, axis=3).reshape(30, -1)
    spikes = (rng.random((2, 6, 2, 6, 6)) < 0.4).astype(np.uint8)
    windows = spikes.reshape(2, 6, 2, 3, 2, 3, 2).sum(axis=(4, 6), dtype=int).reshape(2, 6, -1)
    for weight in (merged, merged * (np.arange(30) % 15 == 0)[:, None]):
        dense = FixedDense(weight)
        network = listening((2, 6, 6), formats, (dense, 0), pooling=Pooling((2, 2)))
        found = run(network, spikes, states=["a"]).u["a"] // 64
        kept = weight.reshape(30, 2, 3, 2, 3, 2)[:, :, :, 0, :, 0].reshape(30, -1)
        assert np.array_equal(found, windows @ kept.T)


@pytest.mark.parametrize(
    ("window", "kernel", "stride", "padding", "dilation"),
    [
        ((2, 2), (5, 5), (1, 1), (0, 0), (1, 1)),
        ((2, 3), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 2), (3, 2), (2, 3), (0, 1), (1, 1)),
        ((2, 2), (3, 3), (1, 2), (2, 1), (2, 1)),
    ],
)
def test_a_merged_pooling_is_taken_out_of_a_convolution(
    window: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    gathers: str,
    formats: NumberFormats,
    rng: np.random.Generator,
) -> None:
    weight = rng.integers(-60, 61, (9, 4, *kernel)) * (rng.random((9, 4, *kernel)) < 0.4)
    spikes = (rng.random((2, 5, 4, 6 * window[0], 7 * window[1])) < 0.3).astype(np.uint8)
    counted = torch.nn.functional.avg_pool2d(
        torch.tensor(spikes).flatten(0, 1).double(), window, window, divisor_override=1
    )
    expected = correlated(
        counted.unflatten(0, spikes.shape[:2]).numpy(),
        FixedConv(weight, stride, padding, dilation, 1),
    )
    # A kernel with the distances of its dilation written out, each weight once for each place.
    apart = np.zeros((9, 4, *(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))), int)
    apart[:, :, :: dilation[0], :: dilation[1]] = weight
    rows, cols = window
    merged = FixedConv(
        apart.repeat(rows, axis=2).repeat(cols, axis=3),
        (rows * stride[0], cols * stride[1]),
        (rows * padding[0], cols * padding[1]),
        (1, 1),
        1,
    )
    for pooling in (Pooling(window, dilation), Pooling((1, 2)), None):
        # What a network says of its poolings is not believed unless its weights bear it out.
        network = listening(spikes.shape[2:], formats, (merged, 0), pooling=pooling)
        assert ("push_maps" in pushes(network)) == (gathers == "maps")
        assert np.array_equal(run(network, spikes, states=["a"]).u["a"] // 64, expected)


def test_whole_maps_are_better_where_few_weights_are_left(rng: np.random.Generator) -> None:
    weight = rng.integers(1, 100, (32, 32, 3, 3))
    sparse = weight * (rng.random(weight.shape) < 0.1)
    heard = {
        name: FixedProjection(name, "input", "a", FixedConv(w, (1, 1), (1, 1), (1, 1), 1), 8, 0)
        for name, w in {"sparse": sparse, "dense": weight}.items()
    }
    trades = {name: [trade_of(projection, (32, 16, 16))] for name, projection in heard.items()}
    assert saved(trades["sparse"], {}) > 0 > saved(trades["dense"], {})
    # Who fires seldom is better heard one by one, who fires often with all others.
    assert saved(trades["sparse"], {"input": 0.001}) < 0 < saved(trades["dense"], {"input": 0.9})
    # Graded spikes are not counted.
    graded = trade_of(replace(heard["sparse"], graded=True), (32, 16, 16))
    assert saved([graded], {"input": 0.9}) < 0


def test_a_plan_learns_how_often_its_network_fires(
    monkeypatch: pytest.MonkeyPatch, formats: NumberFormats, rng: np.random.Generator
) -> None:
    conv = FixedConv(rng.integers(1, 100, (32, 32, 3, 3)), (1, 1), (1, 1), (1, 1), 1)
    network = listening((32, 12, 12), formats, (conv, 0))
    plan = plan_of(network, 1, frozenset(), strict=True)
    assert isinstance(plan, LearningPlan)
    often = (rng.random((4, 30, 32, 12, 12)) < 0.9).astype(np.uint8)
    assert pushes(network) == {"push_blocks"}
    expected = correlated(often, conv)
    # Nothing is made for less than it takes to make it.
    monkeypatch.setattr(plan, "_price", np.inf)
    run(network, often)
    assert pushes(network) == {"push_blocks"}
    monkeypatch.setattr(plan, "_price", 0.0)
    for _ in range(2):
        done = run(network, often, states=["a"])
        assert np.array_equal(done.u["a"] // 64, expected)
        assert pushes(network) == {"push_maps"}
    # Once is enough: what fires now and then does not have it laid out again and again.
    run(network, np.zeros_like(often))
    assert pushes(network) == {"push_maps"}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("exponent", [4, 7, 10, 15])
@pytest.mark.parametrize(("du", "reset"), [(100, "zero"), (4095, "zero"), (4095, "subtract")])
def test_currents_are_exact_at_every_width(
    du: int, reset: Any, exponent: int, strict: bool, formats: NumberFormats,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    # Four weights of 254 << 10 times 64 are eight times the register's range. 27 neurons are
    # stepped 16, 4 and 1 at a time.
    weight = np.array([[254, -254, 20, 2]] * 27)
    weight[::3] = -weight[::3]
    network = listening((4,), formats, (FixedDense(weight), exponent))
    slow = replace(
        network.populations[0], du=np.full(27, du), dv=np.full(27, 9), reset=reset,
        bias_mant=np.arange(27) * 1000,
    )  # fmt: skip
    network = replace(network, populations=(slow,))
    spikes = (rng.random((2, 30, 4)) < 0.4).astype(np.uint8)
    u = v = np.zeros((2, 27), object)
    top, bias = 131071 * 64, slow.decoded(formats).bias.astype(object)
    seen = dict.fromkeys(("u_peak", "v_peak", "wraps", "saturations", "spikes"), 0)
    done = run(network, spikes, states=["a"], strict=False)
    for t in range(30):
        a = (spikes[:, t].astype(object) @ weight.T.astype(object)) << exponent
        u = np.sign(u) * (abs(u) * (4096 - du - 1) // 4096) + a * 64
        seen["u_peak"] = max(seen["u_peak"], abs(u).max())
        seen["wraps"] += ((u > LIMIT) | (u <= -LIMIT)).sum()
        u = np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))
        v = np.sign(v) * (abs(v) * (4096 - 9) // 4096) + u + bias
        seen["v_peak"] = max(seen["v_peak"], abs(v).max())
        seen["saturations"] += (abs(v) >= LIMIT).sum()
        v = np.clip(v, 1 - LIMIT, LIMIT - 1)
        seen["spikes"] += (v > top).sum()
        v = np.where(v > top, v - top if reset == "subtract" else 0, v)
        if abs(u).max() < 2**31:
            assert np.array_equal(done.u["a"][:, t], u.astype(int))
            assert np.array_equal(done.v["a"][:, t], v.astype(int))
    # What nobody asks for is not written down.
    for silent in (done, run(network, spikes, strict=False)):
        assert {name: getattr(silent.activity["a"], name) for name in seen} == seen
    if strict and seen["u_peak"] <= 3 * LIMIT:
        assert np.array_equal(run(network, spikes, states=["a"]).u["a"], done.u["a"])


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.int64])
def test_graded_input_is_the_same_in_every_type(
    kind: Any, formats: NumberFormats, rng: np.random.Generator
) -> None:
    weight = 2 * rng.integers(-60, 61, (5, 20))
    values = rng.integers(0, 128, (2, 4, 20)) * rng.integers(0, 2, (2, 4, 20))
    network = listening((20,), formats, (FixedDense(weight), 0), graded=True)
    found = run(network, values.astype(kind), states=["a"])
    assert np.array_equal(found.u["a"] // 64, values @ weight.T)


@pytest.mark.parametrize("graded", [False, True])
def test_rows_end_where_their_sums_do(graded: bool) -> None:
    # Two parts of 128 for 129 sums: what is added to behind them is WIDE at most.
    weight, out = np.ones((2, 3, 128), np.int16), np.zeros(3 * 128, np.int32)
    value = np.full((1, 1, 2), 5, np.int32) if graded else None
    ptr, index = np.array([0, 2]), np.arange(2, dtype=np.int32)
    kernels.push_rows(ptr, index, value, 0, (1, 1, 1, 129, 0), index, weight, out)
    assert out[:129].all()
    assert not out[129 + WIDE :].any()


def test_events_of_any_number_of_neurons(rng: np.random.Generator) -> None:
    for n in (1, 7, 8, 9, 70):
        spikes = (rng.random((2, 5, n)) < 0.5).astype(np.uint8)
        ptr, index = np.empty(2 * 3 + 1, np.int64), np.empty(6 * n + 8, np.int32)
        kernels.find_events(spikes, 1, 4, ptr, index)
        found = [index[a:b].tolist() for a, b in pairwise(ptr)]
        assert found == [np.nonzero(row)[0].tolist() for row in spikes[:, 1:4].reshape(6, n)]
