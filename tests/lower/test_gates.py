"""Gates on the chip against Boolean functions, at the limits and beyond them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import float_networks as nets
from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.target import load_target, target_names
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedDense, FixedPointNetwork
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.lower.gates import Way, gate
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Conv, Network, Population, Projection
from osbc_deploy.model.simulate import simulate

LOIHI = [
    t
    for t in map(load_target, target_names())
    if t.formats is not None and t.formats.arithmetic == "loihi"
]
FORMATS = sorted({target.number_formats for target in LOIHI}, key=repr)


def alone(signs: IntArray, least: int, formats: NumberFormats) -> FixedPointNetwork:
    """Return gates that hear the input, with weights (gates, inputs)."""
    ways = [Way("in", "input", FixedDense(signs))]
    projections, population = gate("g", (len(signs),), least, ways, formats)
    network = FixedPointNetwork((signs.shape[1],), (population,), projections, formats, "sum")
    assert faults(network) == []
    return network


@pytest.mark.parametrize("formats", FORMATS, ids=range(len(FORMATS)))
@pytest.mark.parametrize(
    ("excite", "inhibit", "least"),
    [
        *((1, 0, 1), (4, 0, 1), (9, 0, 1), (2, 0, 2), (5, 0, 5), (1, 1, 1), (3, 40, 2)),
        (196, 0, 98),
        # NOT, NOR, NAND, and what else fires when nothing arrives.
        *((0, 1, 0), (0, 2, 0), (0, 2, -1), (3, 2, 0), (1, 3, -2), (0, 196, -97), (5, 5, -9)),
    ],
)
def test_a_gate_is_the_boolean_function_of_what_arrives(
    excite: int, inhibit: int, least: int, formats: NumberFormats
) -> None:
    signs = np.repeat([1, -1], [excite, inhibit])[None]
    rng = np.random.default_rng(0)
    # Sums around the threshold, after anything at all.
    x = (rng.random((4, 200, excite + inhibit)) < rng.choice([0.1, 0.5, 0.9], (4, 200, 1))) + 0
    fired = run(alone(signs, least, formats), x.astype(np.uint8)).output
    counted = x[..., :excite].sum(axis=2) - x[..., excite:].sum(axis=2)
    assert np.array_equal(fired[..., 0], counted >= least)


def test_gates_of_many_thresholds_share_one_and_have_biases(formats: NumberFormats) -> None:
    least = np.arange(-3, 9)
    signs = np.repeat([1, -1], [8, 3])[None].repeat(len(least), 0)
    projections, population = gate(
        "g", (len(least),), least, [Way("in", "input", FixedDense(signs))], formats
    )
    assert len(set(population.vth.tolist())) == 1
    network = FixedPointNetwork((11,), (population,), projections, formats, "sum")
    rng = np.random.default_rng(0)
    x = (rng.random((4, 200, 11)) < rng.choice([0.1, 0.5, 0.9], (4, 200, 1))).astype(np.uint8)
    counted = x @ signs[0].astype(np.int64)
    assert np.array_equal(run(network, x).output, counted[..., None] >= least)


def driven(steps: list[int], inputs: int) -> np.ndarray:
    """Return one sample (1, T, inputs) with so many inputs active in each step."""
    return (np.arange(inputs) < np.array(steps)[:, None]).astype(np.uint8)[None]


def test_the_lowest_bias_is_exact_and_the_next_is_refused(formats: NumberFormats) -> None:
    # Gates of other thresholds are held down by biases, of which a part stays like of inhibition.
    for least in (2048, 2049):
        signs, thresholds = np.ones((2, least), np.int64), np.array([1, least])
        x = np.zeros((1, 8, least), np.uint8)
        # Silence, all, all but one, one; after each of these all once more.
        for step, count in enumerate((0, least, least - 1, least, 1, least, 0, least)):
            x[0, step, :count] = 1
        if least == 2048:
            network = alone(signs, thresholds, formats)  # type: ignore[arg-type]
            fired = run(network, x).output[0]
            assert np.array_equal(fired, x[0].sum(axis=1)[:, None] >= thresholds)
        else:
            with pytest.raises(UnsupportedModelError, match="2048 inputs inhibit, at most 2047"):
                alone(signs, thresholds, formats)  # type: ignore[arg-type]


def test_the_highest_threshold_is_exact_and_the_next_is_refused(formats: NumberFormats) -> None:
    most = 2080
    network = alone(np.ones((1, most), int), most, formats)
    almost = [most - 1] * 40
    assert run(network, driven(almost, most)).output.sum() == 0
    assert run(network, driven([*almost, most, most - 1], most)).output[0, -2:, 0].tolist() == [
        1,
        0,
    ]
    with pytest.raises(UnsupportedModelError, match="fires from 2081 inputs, at most 2080"):
        alone(np.ones((1, most + 1), int), most + 1, formats)


def test_the_strongest_inhibition_is_exact_and_more_is_refused(formats: NumberFormats) -> None:
    most = 2047
    signs = np.repeat([1, -1], [1, most])[None]
    network = alone(signs, 1, formats)
    x = np.zeros((1, 60, most + 1), np.uint8)
    x[:, :-1, 1:] = 1
    x[:, -1, 0] = 1
    assert run(network, x).output[0, :, 0].tolist() == [0] * 59 + [1]
    with pytest.raises(UnsupportedModelError, match="2048 inputs inhibit, at most 2047"):
        alone(np.repeat([1, -1], [1, most + 1])[None], 1, formats)


@pytest.mark.parametrize("least", [2100, 3000])
def test_beyond_the_limit_a_gate_would_fire_falsely(least: int, formats: NumberFormats) -> None:
    """What is refused goes wrong: the limit is no caution."""
    (projection,), population = gate(
        "g", (1,), 1, [Way("in", "input", FixedDense(np.ones((1, least), int)))], formats
    )
    wide = replace(population, vth=2 * np.array([least]) - 1)
    network = FixedPointNetwork((least,), (wide,), (projection,), formats, "sum")
    assert run(network, driven([least - 1] * 9, least)).output.any()


def test_registers_that_hold_less_refuse_wide_gates() -> None:
    formats = replace(load_target("loihi2").number_formats, weight_exp_min=0)
    alone(np.ones((1, 1023), int), 1, formats)
    with pytest.raises(UnsupportedModelError, match="sums 1024 inputs, the registers hold 1023"):
        alone(np.ones((1, 1024), int), 1, formats)


def test_gates_of_the_float_network_are_gates_on_the_chip(formats: NumberFormats) -> None:
    net = nets.gated()
    x = nets.spikes(3, 12, 20, *net.input_shape, rate=0.2)
    compressed = compress(net, x, CompressionOptions(sparsity=0.3, bits=5, tune=False))
    assert set(compressed.projections) == {"to a", "to b", "read and", "read but"}
    assert net.weights == 3 * 2 * 9 + 3 * 3 * 9 + 2 * 5 * 48
    found = lower(compressed, x, formats)
    names = [p.name for p in found.network.populations]
    fired = run(found.network, x, record=names).spikes
    frames = fired["a"].reshape(-1, 3, 8, 8)
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    assert np.array_equal(fired["pool"].reshape(-1, 3, 4, 4), windows.max(axis=(4, 5)))
    assert np.array_equal(fired["and"], fired["pool"] & fired["b"])
    assert np.array_equal(fired["but"], fired["pool"] & ~fired["and"] & 1)
    assert all(0.02 < fired[name].mean() < 0.98 for name in net_gates(net))
    assert {d.subject for d in found.deviations if "gates" in d.message} == set(net_gates(net))
    # A mask hears the pooling one step after the neurons behind it do.
    assert "pool relay 1" in names
    assert found.network.depth["and"] == found.network.depth["b"] + 1


def net_gates(net: Network) -> list[str]:
    return [p.name for p in net.populations if p.neuron.exact]


def test_a_gate_that_needs_no_input_has_a_bias(formats: NumberFormats) -> None:
    window = Conv(-np.ones((2, 1, 1, 1)), groups=2)
    net = Network(
        (2, 4, 4),
        (Population("not", (2, 4, 4), Gate(np.zeros(()))),),
        (Projection("in", "input", "not", window, compressible=False),),
        dtype="float64",
    )
    x = nets.spikes(3, 4, 5, 2, 4, 4, rate=0.2)
    assert np.array_equal(simulate(net, x).output, 1 - x)
    compressed = compress(net, x, CompressionOptions(tune=False))
    fired = run(lower(compressed, x, formats).network, x).output
    assert np.array_equal(fired.reshape(x.shape), 1 - x)


def test_more_silence_than_a_bias_holds_is_refused(formats: NumberFormats) -> None:
    alone(-np.ones((1, 2047), int), 1 - 2047, formats)
    with pytest.raises(UnsupportedModelError, match="is biased by 4096 inputs, the bias holds"):
        alone(np.ones((1, 1), int), 1 - 4096, formats)


def test_math_is_what_the_limits_say(formats: NumberFormats) -> None:
    """Half a weight is what may stay: 2^-decay_bits of the highest silent potential."""
    unity = formats.decay_unity
    # floor((2k - 1) 64 / 4096) <= 64, and floor(2 n 64 / 4096) < 64.
    assert max(k for k in range(1, 4000) if ((2 * k - 1) * 64) // unity <= 64) == 2080
    assert max(n for n in range(1, 4000) if math.floor(2 * n * 64 / unity) < 64) == 2047
