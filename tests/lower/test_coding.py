"""Graded input in integers: what float neurons make of it, and the scale of real values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from float_networks import dense, network
from osbc_deploy.backends import load_backend
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.frameworks.norse.neurons import IF, LIF
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.lower.coding import check_graded, input_format, payload
from osbc_deploy.lower.lowering import Lowered, lower
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Conv, Network, Population, Projection
from osbc_deploy.model.simulate import simulate
from osbc_deploy.progress import SILENT

ONE, ZERO = np.ones(()), np.zeros(())
STEPS = 20


def lowered(module: nn.Module, samples: Any, formats: NumberFormats, **more: Any) -> Lowered:
    read = read_norse(module, samples.shape[2:], samples=samples)
    done = compress(read, samples, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    return lower(done, samples, formats, **more)


def samples_of(kind: str, shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(3)
    if kind == "counts":
        return rng.poisson(0.8, (24, STEPS, *shape)).astype(np.int8)
    if kind == "differences":
        return rng.integers(-4, 5, (24, STEPS, *shape)).astype(np.int8)
    if kind == "positive":
        return rng.random((24, STEPS, *shape)).astype(np.float32)
    return rng.normal(size=(24, STEPS, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", ["counts", "differences", "positive", "signed"])
@pytest.mark.parametrize("shape", [(30,), (2, 8, 8)], ids=["dense", "conv"])
def test_integers_fire_as_norse_does(
    kind: str, shape: tuple[int, ...], formats: NumberFormats
) -> None:
    torch.manual_seed(1)
    x = samples_of(kind, shape)
    first = nn.Linear(30, 40) if len(shape) == 1 else nn.Conv2d(2, 6, 3, padding=1)
    gain = (12.0 if len(shape) == 1 else 24.0) / float(np.abs(x).mean())
    first.weight.data *= gain
    module = norse.SequentialState(first, norse.LIFBoxCell())
    found = lowered(module, x, formats)
    given = found.network.input
    assert given.kind == ("integers" if x.dtype == np.int8 else "values")
    assert given.signed == (kind in ("differences", "signed"))
    state, fired = None, []
    with torch.no_grad():
        for t in range(STEPS):
            spikes, state = module(torch.tensor(x[:, t]).float(), state)
            fired.append(spikes.flatten(1).numpy())
    expected = np.stack(fired, axis=1)
    ours = run(found.network, given.codes(x)).output
    assert 0.02 < expected.mean() < 0.9
    # 8 bits of weights and of input round here and there; payloads taken for 0 or 1 would not do.
    assert np.mean(ours != expected) < 0.01
    assert np.mean(run(found.network, (x != 0).astype(np.int32)).output != expected) > 0.03


def trace_error(weight: Any, x: Any, scale: float, low: int, high: int, keep: float) -> float:
    """How far the potentials of leaky neurons move: with loops, in plain double precision."""
    rounded = np.clip(np.rint(x.astype(np.float64) / scale), low, high) * scale
    moved, size = 0.0, 0.0
    lost_v = np.zeros((len(x), len(weight)))
    v = np.zeros_like(lost_v)
    for t in range(x.shape[1]):
        lost_v = keep * lost_v + (x[:, t] - rounded[:, t]) @ weight.T
        v = keep * v + x[:, t] @ weight.T
        moved += float((lost_v**2).sum())
        size += float((v**2).sum())
    return moved / size


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["positive", "signed", "tails"])
def test_the_scale_moves_potentials_least(kind: str, bits: int) -> None:
    net = network((20,), (dense(0, 15, 20), LIF(0.3 * ONE, ZERO, ONE, ZERO)))
    x = samples_of("positive" if kind == "positive" else "signed", (20,))
    if kind == "tails":
        x = (x**5).astype(np.float32)
    found, notes = input_format(net, x, payload("values", x.min(), x.max(), bits))
    weight = net.projections[0].connection.weight
    ends = (weight, x), (found.low, found.high, 0.7)

    def error(scale: float) -> float:
        return trace_error(*ends[0], scale, *ends[1])

    widest = max(float(x.max()) / found.high, float(x.min()) / (found.low or -1))
    tried = [error(widest * share) for share in np.geomspace(1 / 16, 1.2, 60)]
    assert error(found.scale) <= 1.1 * min(tried)
    if kind == "tails" and bits < 8:
        assert error(found.scale) < 0.8 * error(widest)
        assert found.clipped(x) > 0
    assert f"{bits} " in notes[0]


def test_other_spikes_at_the_same_neurons_make_the_scale_a_power_of_two(
    formats: NumberFormats,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((16, STEPS, 12)).astype(np.float32) * 0.9
    neuron = LIF(0.3 * ONE, ZERO, 0.8 * ONE, ZERO)
    net = Network(
        (12,),
        (Population("p", (9,), neuron), Population("out", (4,), IF(0.5 * ONE, ZERO))),
        (
            Projection("in", "input", "p", dense(1, 9, 12)),
            Projection("back", "p", "p", dense(2, 9, 9)),
            Projection("to out", "p", "out", dense(3, 4, 9)),
        ),
    )
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats)
    assert np.log2(found.network.input.scale) % 1 == 0
    assert any("power of two, as spikes of others end where it does: p" in d.message
               for d in found.deviations)  # fmt: skip
    into = {p.name: p for p in found.network.projections}
    # What one spike of either adds, in the unit of the float weights.
    (population,) = [p for p in found.network.populations if p.name == "p"]
    unit = population.v_scale[:, None] * 64
    for name, worth in (("in", found.network.input.scale), ("back", 1.0)):
        added = into[name].connection.weight * 2.0 ** into[name].weight_exp * unit / 0.3
        expected = done.projections[name].codes * done.projections[name].scale[:, None] * worth
        np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("low", [0, -3])
def test_counts_that_a_convolution_hears_past_a_population_are_shown_late(
    low: int, formats: NumberFormats
) -> None:
    """Whole weights to 127 need no rounding, so spikes are those of the float network."""
    rng = np.random.default_rng(4)
    kernels = [rng.integers(-127, 128, (2, 2, 3, 3)).astype(np.float64) for _ in range(3)]
    for kernel in kernels:
        kernel[:, 0, 1, 1] = 127
    first, second, skip = (Conv(kernel, padding=(1, 1)) for kernel in kernels)
    shape = (2, 5, 6)
    net = Network(
        shape,
        (Population("a", shape, IF(ONE * 900, ZERO)), Population("b", shape, IF(ONE * 1500, ZERO))),
        (
            Projection("first", "input", "a", first),
            Projection("second", "a", "b", second),
            Projection("skip", "input", "b", skip),
        ),
    )
    x = rng.integers(low, 5, (3, 20, *shape)).astype(np.int8)
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats).network
    assert [p.name for p in found.populations] == ["a", "b"]
    assert [found.shown_late(p) for p in found.projections] == [0, 0, 1]
    ours = run(found, x, record=["a", "b"], states=["b"])
    wanted = simulate(net, x, record=["a", "b"]).spikes
    for name in ("a", "b"):
        assert 0.05 < wanted[name].mean() < 0.95
        assert np.array_equal(ours.spikes[name], wanted[name].reshape(3, 20, -1))
    theirs = load_backend("lava").run(
        found, x.astype(np.int32), states=["b"], time_limit=120.0, progress=SILENT
    )
    assert np.array_equal(theirs.v["b"], ours.v["b"])


def test_what_compares_the_input_is_refused() -> None:
    shape = (2, 6, 6)
    gate = Projection("or", "input", "a", Conv(np.ones((2, 1, 1, 1)), groups=2))
    gates = Network(shape, (Population("a", shape, Gate(ONE)),), (gate,))
    with pytest.raises(UnsupportedModelError, match="a: gates .*take 0 or 1, and the input is"):
        check_graded(gates)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("integers", 0, 300, 8), "whole numbers from 0 to 300 need 9, 8 were asked for"),
        (("integers", -3, 4, 3), "from -3 to 4 need 4, 3 were"),
        (("values", -1.0, 1.0, 1), "1 bit holds no sign"),
        (("spikes", 0, 1, 8), "the calibration samples hold 0 and 1, which take one bit"),
    ],
)
def test_bits_that_hold_it_not_are_refused(asked: Any, words: str) -> None:
    with pytest.raises(UsageError, match=f"^--input-bits: .*{words}"):
        payload(*asked)


def test_a_convolution_takes_a_coarser_input_where_registers_are_narrow(
    formats: NumberFormats,
) -> None:
    torch.manual_seed(0)
    x = samples_of("signed", (2, 8, 8))
    conv = nn.Conv2d(2, 4, 3, padding=1)
    # Thresholds that are large beside the weights.
    cell = norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(60.0)))
    conv.weight.data *= 60
    found = lowered(norse.SequentialState(conv, cell), x, formats)
    assert found.network.projections[0].weight_exp >= -1
    assert any("do not hold thresholds, biases or potentials in finer ones" in d.message
               for d in found.deviations)  # fmt: skip
    given = found.network.input
    # Longer steps, and nothing more is cut off for that.
    assert given.scale > 1.2 * np.abs(x).max() / 128
    assert given.clipped(x) < 0.002


def test_one_nearly_silenced_channel_does_not_make_the_input_coarser(
    formats: NumberFormats,
) -> None:
    torch.manual_seed(0)
    x = samples_of("positive", (2, 8, 8))
    conv = nn.Conv2d(2, 8, 3, padding=1)
    module = norse.SequentialState(conv, norse.IAFCell())
    alike = lowered(module, x, formats).network.input
    with torch.no_grad():
        conv.weight[5] *= 1e-3
        conv.bias[5] = 0.26
    found = lowered(module, x, formats)
    assert found.network.input.bits == alike.bits
    assert found.network.input.scale < 1.05 * alike.scale
    # What its inputs add to the bias is about 1e-3, so it fires in every fourth step.
    spikes = run(found.network, found.network.input.codes(x), record=["1"]).spikes["1"]
    quiet = spikes.reshape(len(x), STEPS, 8, -1)[:, :, 5]
    assert quiet.mean() == pytest.approx(STEPS // 4 / STEPS)
    assert any("into 1 are held up to 10 bits coarser" in d.message for d in found.deviations)


def test_a_channel_that_can_never_fire_takes_nothing_of_the_others(formats: NumberFormats) -> None:
    """Whatever its threshold is: infinite, or more than anything reaches."""
    torch.manual_seed(0)
    x = samples_of("positive", (2, 8, 8))
    read = read_norse(
        norse.SequentialState(nn.Conv2d(2, 4, 3, padding=1), norse.IAFCell()), (2, 8, 8), samples=x
    )
    for threshold in (100.0, 1e4, np.inf):
        own = np.array([1.0, 1.0, threshold, 1.0]).reshape(4, 1, 1)
        (population,) = read.populations
        net = replace(read, populations=(replace(population, neuron=IF(own, ZERO)),))
        done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
        found = lower(done, x, formats).network
        ours = run(found, found.input.codes(x)).output.reshape(len(x), STEPS, 4, -1)
        wanted = simulate(net, x).output.reshape(ours.shape)
        assert wanted.any(axis=(0, 1, 3)).tolist() == [True, True, False, True]
        # Nearly all of them, and payloads of 0 to 3, where every potential counts alike.
        assert np.sum(ours != wanted) < 0.15 * wanted.sum()
        assert found.input.bits >= 6


def test_an_input_keeps_its_levels_where_no_step_of_it_would_do(formats: NumberFormats) -> None:
    # Of two outputs alike, whose biases no step of the input brings into the registers.
    conv = nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        conv.weight.fill_(1e-7)
        conv.bias.fill_(0.26)
    x = samples_of("positive", (1, 6, 6))
    found = lowered(norse.SequentialState(conv, norse.IAFCell()), x, formats)
    payloads = found.network.input.codes(x)
    assert 127 < payloads.max() <= 255
    # Four biases are a threshold, whatever comes in: 1e-7 in every place.
    fired = run(found.network, payloads).output
    assert np.array_equal(np.flatnonzero(fired[0, :, 0]), np.arange(3, STEPS, 4))
    assert (fired == fired[:1, :, :1]).all()
    assert not any("clipped" in d.message for d in found.deviations)


@pytest.mark.parametrize("kind", ["positive", "signed"])
def test_input_and_weights_share_what_large_biases_take(kind: str, formats: NumberFormats) -> None:
    """Of still images whose pixels are like their neighbors, beside norse."""
    torch.manual_seed(0)
    noise = np.random.default_rng(1).normal(size=(24, 1, 3, 12, 12))
    smooth = sum(np.roll(noise, (a, b), (-2, -1)) for a in range(3) for b in range(3)) / 3
    image = smooth if kind == "signed" else (smooth - smooth.min()) / np.ptp(smooth)
    x = np.repeat(image.astype(np.float32), STEPS, axis=1)
    conv = nn.Conv2d(3, 8, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(1.0 if kind == "positive" else 0.5)
        conv.bias.copy_(torch.linspace(-1.0, 1.0, 8))
    module = norse.SequentialState(conv, norse.IAFCell())
    found = lowered(module, x, formats)
    state, fired = None, []
    with torch.no_grad():
        for t in range(STEPS):
            spikes, state = module(torch.tensor(x[:, t]), state)
            fired.append(spikes.flatten(1).numpy())
    expected = np.stack(fired, axis=1)
    payloads = found.network.input.codes(x)
    ours = run(found.network, payloads).output
    assert 0.1 < expected.mean() < 0.9
    # 18 % where the input's steps alone are longer.
    assert np.sum(ours != expected) < 0.05 * expected.sum()
    # As many bits as the levels need, and not all of them are the input's to give.
    given = found.network.input
    assert given.bits == int(np.abs(payloads).max()).bit_length() + given.signed
    assert given.scale < 8 * np.abs(x).max() / (127 if given.signed else 255)
    codes = np.abs(found.network.projections[0].connection.weight).reshape(8, -1).max(axis=1)
    assert codes.min() < 64 < codes.max()
    # What is lost on the chip beside the float network is what the report says.
    (said,) = [d.message for d in found.deviations if "in finer ones" in d.message]
    assert "input and weights share it" in said
    assert not any("clipped" in d.message for d in found.deviations)


@pytest.mark.parametrize("groups", [1, 2])
def test_what_registers_take_of_one_output_is_not_taken_of_others(
    groups: int, formats: NumberFormats
) -> None:
    torch.manual_seed(0)
    x = samples_of("positive", (2, 8, 8))
    conv = nn.Conv2d(2, 8, 3, padding=1, groups=groups)
    with torch.no_grad():
        conv.weight.mul_(2.0)
        conv.bias.zero_()
        conv.bias[2] = -8.0
    module = norse.SequentialState(conv, norse.LIFBoxCell())
    net = read_norse(module, x.shape[2:], samples=x)
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats).network
    (into,) = found.projections
    tops = np.abs(into.connection.weight).reshape(8, -1).max(axis=1)
    assert 3 * tops[2] < np.delete(tops, 2).min()
    # Each weight is what it was up to two of its output's steps, in the unit of the float weights.
    unit = found.populations[0].v_scale.reshape(8, -1)[:, 0] * 64 * 2.0**into.weight_exp / 0.1
    held = into.connection.weight * unit[:, None, None, None] / found.input.scale
    step = 2 * unit / found.input.scale
    assert (np.abs(held - done.projections["0"].weight) <= 2 * step[:, None, None, None]).all()


def test_codes_that_spikes_share_stay_as_they_are(formats: NumberFormats) -> None:
    # Only the input's steps are left, a power of two.
    rng = np.random.default_rng(0)
    x = rng.random((12, STEPS, 2, 6, 6)).astype(np.float32)
    first, back = (
        Conv(rng.normal(size=(4, c, 3, 3)) * 0.3, bias=bias, padding=(1, 1))
        for c, bias in ((2, np.linspace(-1, 1, 4)), (4, None))
    )
    net = Network(
        (2, 6, 6),
        (Population("p", (4, 6, 6), IF(ONE, ZERO)),),
        (Projection("in", "input", "p", first), Projection("back", "p", "p", back)),
    )
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats).network
    assert np.log2(found.input.scale) % 1 == 0
    assert found.input.scale > 2 * x.max() / 255
    codes, into = done.projections["in"].codes, found.projections[0].connection.weight
    assert np.unique(np.abs(into[codes != 0] / codes[codes != 0])).size == 1


def test_a_threshold_beyond_all_registers_ends_and_is_said(formats: NumberFormats) -> None:
    x = samples_of("positive", (1, 6, 6))
    net = Network(
        (1, 6, 6),
        (Population("p", (2, 6, 6), IF(1e300 * ONE, ZERO)),),
        (Projection("in", "input", "p", Conv(np.ones((2, 1, 3, 3)), padding=(1, 1))),),
    )
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats)
    assert not run(found.network, found.network.input.codes(x)).output.any()
    assert any("vth clipped" in d.message for d in found.deviations)


def test_codes_that_spikes_share_give_way_where_the_input_has_no_more(
    formats: NumberFormats,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((12, STEPS, 2, 6, 6)).astype(np.float32)
    first = Conv(rng.normal(size=(1, 2, 3, 3)) * 1e-3, bias=np.array([40.0]), padding=(1, 1))
    back = Conv(np.array([[[[0.3]]]]))
    net = Network(
        (2, 6, 6),
        (Population("p", (1, 6, 6), IF(ONE, ZERO)),),
        (Projection("in", "input", "p", first), Projection("back", "p", "p", back)),
    )
    done = compress(net, x, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    found = lower(done, x, formats)
    # The bias is forty thresholds.
    assert run(found.network, found.network.input.codes(x)).output.all()
    assert not any("clipped" in d.message for d in found.deviations)
