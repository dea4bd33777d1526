"""Lowering: the integers fire as the compressed float network does, and say where they cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from norse.torch.functional.reset import reset_subtract
from norse.torch.module.leaky_integrator_box import LIBoxCell
from torch import nn

import float_networks
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.frameworks.spikingjelly.neurons import IFNode
from osbc_deploy.lower.loihi import _Growing
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import Dense
from osbc_deploy.model.simulate import simulate

T = 30


def box(**changes: float) -> Any:
    values = {"tau_mem_inv": 400.0, "v_leak": 0.0, "v_reset": 0.0, **changes}
    return norse.LIFBoxCell(
        norse.LIFBoxParameters(**{k: torch.tensor(v) for k, v in values.items()})
    )


def cuba(**changes: float) -> Any:
    values = {"tau_mem_inv": 500.0, "tau_syn_inv": 300.0, "v_leak": 0.0, "v_reset": 0.0, **changes}
    return norse.LIFCell(norse.LIFParameters(**{k: torch.tensor(v) for k, v in values.items()}))


def both(model: nn.Module, shape: tuple[int, ...], formats: NumberFormats, **options: Any) -> Any:
    """Return float and fixed-point runs of the compressed network, and the lowering."""
    torch.manual_seed(2)
    network = read_norse(model.eval(), shape)
    rng = np.random.default_rng(0)
    spikes = (rng.random((16, T, *shape)) < 0.3).astype(np.uint8)
    compressed = compress(network, spikes, CompressionOptions(**options))
    lowered = lower(compressed, spikes, formats)
    names = [p.name for p in network.populations]
    return (
        simulate(compressed.network, spikes, record=names),
        run(lowered.network, spikes, record=names),
        lowered,
    )


def linear(n_in: int, n_out: int, gain: float, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(n_in)
    layer = nn.Linear(n_in, n_out, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(gain)
    return layer


def subtracting(**changes: float) -> Any:
    values = {"tau_mem_inv": 400.0, "v_leak": 0.0, **changes}
    return norse.LIFBoxCell(
        norse.LIFBoxParameters(
            **{k: torch.tensor(v) for k, v in values.items()}, reset_method=reset_subtract
        )
    )


NEURONS = {
    "box": box,
    "box with leak and reset potentials": lambda: box(v_leak=0.2, v_reset=-0.15),
    "cuba with bias in its current": cuba,
    "cuba with potentials": lambda: cuba(v_leak=0.1, v_reset=-0.3),
    "integrate and fire": norse.IAFCell,
    "box reset by subtraction": lambda: subtracting(v_leak=0.1),
}


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_spikes_are_those_of_the_compressed_float_network(
    name: str, bits: int, formats: NumberFormats
) -> None:
    model = norse.SequentialState(linear(20, 40, 4.0), NEURONS[name]())
    before, after, _ = both(model, (20,), formats, sparsity=0.3, bits=bits)
    rate = before.rates["1"]
    assert 0.02 < rate < 0.9
    # Thresholds, biases and decays are rounded, so a few near ties may turn out differently.
    assert np.mean(before.spikes["1"] != after.spikes["1"]) < 0.02 * rate + 5e-4


@pytest.mark.parametrize(
    "cell",
    [
        LIBoxCell,
        norse.LICell,
    ],
)
def test_readout_potentials_scale_back_to_the_float_ones(cell: Any, formats: Any) -> None:
    model = norse.SequentialState(linear(20, 30, 4.0), box(), linear(30, 5, 2.0), cell())
    before, after, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    output = lowered.network.output
    restored = after.output * output.v_scale + output.v_offset
    assert np.abs(restored - before.output).max() < 0.02 * np.abs(before.output).max()
    # Potentials are compared with each other on the chip, so they need one scale.
    assert len(np.unique(output.v_scale)) == 1


@pytest.mark.parametrize(
    ("pool", "conv"),
    [
        (nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1)),
        (nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, stride=2, dilation=2, groups=2)),
        (nn.AvgPool2d((3, 2)), nn.Conv2d(4, 6, (2, 3))),
    ],
)
def test_pooling_is_merged_exactly(pool: Any, conv: Any, formats: NumberFormats) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
    with torch.no_grad():
        first.weight.mul_(5)
        conv.weight.abs_().mul_(12)
    model = norse.SequentialState(
        first,
        box(),
        pool,
        conv,
        box(),
        nn.AvgPool2d((2, 1)),
        nn.Flatten(),
        nn.LazyLinear(9),
        cuba(),
    )
    with torch.no_grad():
        model(torch.zeros(1, 2, 18, 16))
        model[7].weight.abs_().mul_(12)
    before, after, _ = both(model, (2, 18, 16), formats, sparsity=0.2, bits=8)
    for name in ("1", "4", "8"):
        assert before.rates[name] > 0.005
        same = before.spikes[name].reshape(after.spikes[name].shape) == after.spikes[name]
        assert np.mean(~same) < 0.03 * before.rates[name] + 5e-4


def test_registers_stay_in_range_and_use_it(formats: NumberFormats) -> None:
    model = norse.SequentialState(linear(20, 40, 4.0), cuba(), linear(40, 10, 4.0), box())
    _, after, lowered = both(model, (20,), formats, sparsity=0.5, bits=4)
    for population, projection in zip(
        lowered.network.populations, lowered.network.projections, strict=True
    ):
        assert population.vth.min() >= 0
        assert population.vth.max() <= 131071
        assert np.abs(population.bias_mant).max() <= 4095
        assert population.bias_exp.min() >= 0
        assert population.bias_exp.max() <= 7
        assert 0 <= population.du.min() <= population.du.max() <= 4095
        assert 0 <= population.dv.min() <= population.dv.max() <= 4095
        assert -7 <= projection.weight_exp <= 7
        weight = projection.connection.weight
        assert (weight % 2 ** (9 - projection.weight_bits) == 0).all()
        assert -256 <= weight.min() <= weight.max() <= 254
        # Good use: no register could be doubled for all neurons at once.
        assert after.activity[population.name].v_peak * 3.1 > 2**23 or population.vth.max() > 2**15
        assert len(np.unique(population.vth)) <= 8
    assert not lowered.deviations


def test_a_wide_layer_of_few_bits_uses_its_registers_too(formats: NumberFormats) -> None:
    # Only the sum that reaches the neuron must fit in 32 bits; how far two-bit codes are shifted
    # inside the weight does not count.
    model = norse.SequentialState(linear(1500, 20, 8.0, bias=False), box())
    _, after, lowered = both(model, (1500,), formats, sparsity=0.0, bits=2)
    (population,) = lowered.network.populations
    assert after.activity[population.name].v_peak * 3.1 > 2**23 or population.vth.max() > 2**15


def test_a_leak_longer_than_the_register_is_clipped_and_said(formats: NumberFormats) -> None:
    model = norse.SequentialState(linear(20, 10, 4.0), box(tau_mem_inv=1000.0))
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    assert any("dv clipped to 0..4095" in d.message for d in lowered.deviations)


def test_registers_too_coarse_for_what_they_hold_are_reported(formats: NumberFormats) -> None:
    slow = norse.SequentialState(linear(20, 10, 4.0), box(tau_mem_inv=0.1, v_th=1e-4))
    _, _, lowered = both(slow, (20,), formats, sparsity=0.0, bits=8)
    text = " ".join(d.message for d in lowered.deviations)
    assert (
        "dv is coarse in 10 neurons: 0.41 of 4096 parts go in a step, the register holds 0" in text
    )
    large = linear(20, 10, 4.0)
    with torch.no_grad():
        large.weight[0] *= 5000
        large.bias[0] = 0
    wide = norse.SequentialState(large, box(v_th=0.05))
    _, _, lowered = both(wide, (20,), formats, sparsity=0.0, bits=8)
    text = " ".join(d.message for d in lowered.deviations)
    assert "vth is coarse in 1 neuron: wanted down to" in text


def test_a_readout_without_weights_is_lowered_and_said(formats: NumberFormats) -> None:
    last = linear(10, 3, 0.0)
    with torch.no_grad():
        last.bias.zero_()
    model = norse.SequentialState(linear(20, 10, 4.0), box(), last, norse.LICell())
    before, after, _ = both(model, (20,), formats, sparsity=0.0, bits=8)
    assert not before.output.any()
    assert not after.output.any()


def test_an_enormous_threshold_is_held_by_coarser_weights(formats: NumberFormats) -> None:
    model = norse.SequentialState(linear(20, 10, 0.01), box(v_th=1000.0))
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    text = " ".join(d.message for d in lowered.deviations)
    assert "weights of 10 outputs are tiny beside threshold or bias" in text
    assert "clipped" not in text
    assert "no neuron fires" in text


@pytest.mark.parametrize("gain", [1e-2, 1e-3, 1e-5])
def test_an_output_that_only_its_bias_drives_fires_as_often_as_that_says(
    gain: float, formats: NumberFormats
) -> None:
    # As behind a BatchNorm that training nearly silenced. A quarter of what a threshold of 1 takes
    # and a bit more: every fourth step; the other outputs keep all of their bits.
    first = linear(20, 4, 1.0)
    with torch.no_grad():
        first.weight[3] = first.weight[3].abs() * gain
        first.bias[3] = 0.26
    model = norse.SequentialState(first, norse.IAFCell())
    before, after, lowered = both(model, (20,), formats, sparsity=0.0, bits=8, tune=False)
    fired = after.spikes["1"][:, :, 3]
    assert np.array_equal(np.flatnonzero(fired[0]), np.arange(3, T, 4))
    assert (fired == fired[0]).all()
    assert np.mean(after.spikes["1"] != before.spikes["1"]) < 0.001
    (said,) = [d.message for d in lowered.deviations if "tiny" in d.message]
    assert said.startswith("weights of 1 output are tiny beside threshold or bias")
    codes = np.abs(lowered.network.projections[0].connection.weight).max(axis=1)
    assert (codes[:3] >= 64).all()


def test_one_bit_weights_are_stored_in_two_and_said(formats: NumberFormats) -> None:
    model = norse.SequentialState(linear(20, 10, 4.0), box())
    _, _, lowered = both(model, (20,), formats, sparsity=0.5, bits=1)
    assert lowered.network.projections[0].weight_bits == 2
    assert any("stored in 2 bits" in d.message for d in lowered.deviations)


def test_neurons_the_chip_lacks_are_listed(formats: NumberFormats) -> None:
    model = norse.SequentialState(
        linear(20, 10, 4.0), subtracting(v_th=-0.1), linear(10, 5, 4.0), box(v_th=-0.5)
    )
    with pytest.raises(UnsupportedModelError) as caught:
        both(model, (20,), formats)
    assert "1: v_threshold lies below 0" in str(caught.value)
    assert "3: v_threshold lies below v_reset" in str(caught.value)


@pytest.mark.parametrize("size", [80, 110, 150, 200, 260])
def test_potentials_have_half_as_much_again_as_their_peak(
    size: int, formats: NumberFormats
) -> None:
    last = linear(size, 10, 4.0, bias=False)
    with torch.no_grad():
        last.weight.abs_()
    model = norse.SequentialState(last, LIBoxCell())
    _, after, lowered = both(model, (size,), formats, sparsity=0.0, bits=8)
    peak = after.activity["1"].v_peak
    # Half as much again, and no power of two is left unused.
    assert 1.5 * peak <= 2**23 < 3 * peak
    assert not lowered.deviations


def test_exponents_end_where_the_chip_s_do(formats: NumberFormats) -> None:
    last = linear(1500, 10, 4.0, bias=False)
    with torch.no_grad():
        last.weight.abs_()
    model = norse.SequentialState(last, LIBoxCell())
    # Peaks ask for less, but an exponent below this chip's least is none.
    _, after, lowered = both(
        model, (1500,), replace(formats, weight_exp_min=0), sparsity=0.0, bits=8
    )
    assert lowered.network.projections[0].weight_exp == 0
    assert 1.5 * after.activity["1"].v_peak > 2**23
    assert any("times the peak of calibration" in d.message for d in lowered.deviations)


def test_a_readout_stays_below_the_largest_threshold(formats: NumberFormats) -> None:
    # 2^23 / 1.5 = 5592405.3 and (2^23 - 64) / 1.5 = 5592362.7: between them only spikes may be.
    model = norse.SequentialState(linear(20, 3, 1.0), box(), linear(3, 3, 1.0), LIBoxCell())
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    spiking, readout = lowered.network.populations
    growing = _Growing.__new__(_Growing)
    growing.formats = formats
    seen = replace(lowered.activity["3"], u_peak=0, v_peak=5592400)
    assert growing._over(spiking, seen) < 1 < growing._over(readout, seen)


def test_a_readout_does_not_fire_where_registers_are_wider(formats: NumberFormats) -> None:
    # As on a Cortex-M4, whose registers hold 32 times the largest threshold.
    last = linear(100, 10, 4.0, bias=False)
    with torch.no_grad():
        last.weight.abs_()
    model = norse.SequentialState(last, LIBoxCell())
    wide = replace(formats, state_bits=29)
    before, after, lowered = both(model, (100,), wide, sparsity=0.0, bits=8)
    assert 1.5 * after.activity["1"].v_peak <= 2**23
    readout = lowered.network.output
    np.testing.assert_allclose(after.output * readout.v_scale, before.output, rtol=0.05)


def test_biases_that_hold_almost_nothing_are_reported(formats: NumberFormats) -> None:
    # Codes are the weights, up to 127 of them; NetX holds them twice and biases in the same unit.
    weight = torch.randint(-127, 128, (4, 20), generator=torch.Generator().manual_seed(0)) / 127
    weight[:, 0] = 1
    last = nn.Linear(20, 4)
    with torch.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(torch.tensor([0.4, 0.8, 1.2, 1.6]) / 254)
    model = norse.SequentialState(last, LIBoxCell())
    netx = load_target("loihi2-netx").number_formats
    _, _, lowered = both(model, (20,), netx, sparsity=0.0, bits=8)
    held = lowered.network.output.bias_mant
    assert held.tolist() == [0, 1, 1, 2]
    # Errors -0.4, 0.2, -0.2, 0.4 of values -0.6, -0.2, 0.2, 0.6 about their mean.
    assert [d.message for d in lowered.deviations] == [
        "bias is coarse: 0.4 to 1.6 steps of 64 are wanted, the registers hold 0, 1, 2; 71% of "
        "what tells them apart is lost to rounding"
    ]
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    assert not lowered.deviations


def test_weights_that_hold_almost_nothing_are_reported(formats: NumberFormats) -> None:
    last = nn.Linear(20, 4, bias=False)
    with torch.no_grad():
        # 4 bits hold 7 steps of the one large weight, which the scale must reach in all rows.
        last.weight.fill_(0.01)
        last.weight[:, 0] = 100
    model = norse.SequentialState(last, LIBoxCell())
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=4, tune=False)
    assert np.count_nonzero(lowered.network.projections[0].connection.weight) == 4
    assert [d.message for d in lowered.deviations] == [
        "weights are coarse: 76 of the 80 that pruning kept are 0 in 4 bits"
    ]


def test_reset_amounts_that_hold_almost_nothing_are_reported(formats: NumberFormats) -> None:
    # A spike takes away a threshold far below what one code of a weight stands for.
    wide = linear(20, 10, 4.0, bias=False)
    model = norse.SequentialState(wide, subtracting(v_th=2e-4))
    _, _, lowered = both(model, (20,), formats, sparsity=0.0, bits=8)
    population = lowered.network.populations[0]
    assert set(population.reset_amount) == set(population.vth) == {5}
    # |5 - 4.55| / 4.55 is 10 %.
    assert [d.message for d in lowered.deviations] == [
        "reset amount is coarse: 4.55 to 4.55 steps of 1 are wanted, the registers hold 5; 10% is "
        "lost to rounding",
        "vth is coarse in 10 neurons: wanted down to 4.55, whole numbers are held",
    ]


def test_small_codes_leave_their_upper_bits_to_the_biases() -> None:
    netx = load_target("loihi2-netx").number_formats
    last = linear(6, 2, 1.0)
    network = read_norse(norse.SequentialState(last, LIBoxCell()).eval(), (6,))
    spikes = (np.random.default_rng(0).random((8, 10, 6)) < 0.2).astype(np.uint8)
    compressed = compress(network, spikes, CompressionOptions(sparsity=0.0, bits=8, tune=False))
    (found,) = compressed.projections.values()
    codes = np.array([[1, -2, 3, 0, 1, 2], [0, 3, -1, 2, 2, 1]], np.int8)
    small = replace(found, codes=codes, scale=np.full(2, 0.5), bits=8, bias=np.array([0.1, -0.02]))
    lowered = lower(replace(compressed, projections={found.name: small}), spikes, netx)
    (projection,) = lowered.network.projections
    plain = projection.connection.weight >> -projection.weight_exp
    # Up to 3 * 2^6 of 255; a bias of 0.1 is a fifth of a code, 12.8 of 64.
    assert np.array_equal(plain, 64 * codes.astype(int))
    assert projection.weight_bits == 8
    assert lowered.network.output.bias_mant.tolist() == [13, -3]


def test_no_input_at_all_drives_a_sum_beyond_32_bits(formats: NumberFormats) -> None:
    # Few of many inputs are ever on, so what is measured leaves room for larger weights.
    layer = float_networks.network(
        (4500,), (Dense(np.ones((1, 4500))), float_networks.NEURONS["LI"])
    )
    spikes = np.zeros((4, 5, 4500), np.uint8)
    spikes[:, :, :3] = 1
    options = CompressionOptions(method="magnitude", sparsity=0.0, bits=8)
    network = lower(compress(layer, spikes, options), spikes, formats).network
    (projection,) = network.projections
    widest = int(projection.connection.weight.astype(np.int64).sum()) << projection.weight_exp
    assert 2**30 < 64 * widest + 2**23 <= 2**31 - 1


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_spike_that_reaches_the_threshold_fires_where_it_does_in_the_model(
    bits: int, formats: NumberFormats
) -> None:
    # Identities: a spike brings a potential of 0 right to the threshold, two bring it beyond.
    spikes = np.ones((3, 6, 4), np.uint8)
    one, zero = np.ones(()), np.zeros(())
    for neuron, fired in (
        (IFNode(one, zero, "zero"), [1, 1, 1, 1, 1, 1]),
        (IFNode(one, zero, "subtract"), [1, 1, 1, 1, 1, 1]),
        (float_networks.NEURONS["IF"], [0, 1, 0, 1, 0, 1]),
    ):
        layer = float_networks.network((4,), (Dense(np.eye(4)), neuron))
        options = CompressionOptions(method="magnitude", sparsity=0.0, bits=bits)
        network = lower(compress(layer, spikes, options), spikes, formats).network
        assert (run(network, spikes).output == np.array(fired)[:, None]).all()
