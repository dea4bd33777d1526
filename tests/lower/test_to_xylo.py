"""Lowering to Xylo: potentials against the float network's, shifts, and what the chip lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from osbc_deploy.chip.target import load_target
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.xylo import faults
from osbc_deploy.formats.folder import read_network, write_network
from osbc_deploy.frameworks.norse.neurons import CubaLIF
from osbc_deploy.frameworks.snntorch.neurons import Leaky, Synaptic
from osbc_deploy.lower.lowering import lower
from osbc_deploy.lower.shifts import shifts_for
from osbc_deploy.lower.xylo import LOWERING
from osbc_deploy.lower.xylo.features import check_features
from osbc_deploy.model.graph import Dense, Network, Population, Projection
from osbc_deploy.model.simulate import simulate

FORMATS = load_target("xylo-audio2").number_formats


def synaptic(alpha: float, beta: float, threshold: float = 1.0) -> Synaptic:
    top = np.array(threshold)
    return Synaptic(np.array(alpha), np.array(beta), top, top)


def two_layers(neuron: Any, threshold: float = 1.0, bias: Any = None) -> Network:
    rng = np.random.default_rng(0)
    return Network(
        (5,),
        (Population("a", (12,), neuron), Population("b", (3,), synaptic(0.75, 0.875, threshold))),
        (
            Projection("in", "input", "a", Dense(rng.normal(0, 0.3, (12, 5)), bias)),
            Projection("out", "a", "b", Dense(rng.normal(0, 0.3, (3, 12)))),
        ),
    )


def spikes() -> Any:
    return (np.random.default_rng(1).random((6, 40, 5)) < 0.3).astype(np.uint8)


def lowered(network: Network) -> Any:
    options = CompressionOptions(sparsity=0.0, bits=8, tune=False, scale_groups=1000)
    return lower(compress(network, spikes(), options), spikes(), FORMATS)


def test_shifts_that_are_the_float_decays_are_found_and_no_gain_is_lost() -> None:
    found = shifts_for(Population("a", (2,), synaptic(0.875, 0.9375)), 15)
    assert found.current.tolist() == [3, 3]
    assert found.membrane.tolist() == [4, 4]
    assert found.gain == pytest.approx(1 / 0.875)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_membrane_that_keeps_nothing_is_not_taken_for_a_leaky_one() -> None:
    one = np.ones(())
    found = shifts_for(Population("a", (1,), Leaky(0.85 * one, one, one)), 15)
    # By the answer to a spike alone: 3 and 0, whose threshold cannot be taken from anything.
    assert (found.current[0], found.membrane[0]) == (1, 3)


@pytest.mark.parametrize("biased", [False, True])
def test_potentials_are_those_of_the_float_network(biased: bool) -> None:
    # Out of reach of the threshold, so that no spike lets the two part.
    bias = np.full(12, 0.02) if biased else None
    network = two_layers(synaptic(0.875, 0.9375, 100.0), bias=bias)
    done = lowered(network)
    fixed = done.network
    want = simulate(network, spikes(), states=["a"], exact=True).v["a"]
    got = run(fixed, spikes(), states=["a"]).v["a"] * fixed.populations[0].v_scale
    # A bias of the current is one of its end value here, so the first steps differ.
    late = 30 if biased else 0
    assert np.abs(got - want)[:, late:].max() < 0.03 * np.abs(want).max()
    assert fixed.populations[0].du.tolist() == [3] * 12


def test_what_changed_is_said(tmp_path: Any) -> None:
    done = lowered(two_layers(synaptic(0.7, 0.8, 0.2)))
    said = "\n".join(d.message for d in done.deviations)
    assert "lose 2^-k of themselves a step" in said
    assert "takes 1.250 times the threshold" in said
    assert "fires up to" in said
    write_network(done.network, tmp_path)
    again = read_network(tmp_path)
    assert again.formats.arithmetic == "xylo"
    assert run(again, spikes()).fingerprint() == run(done.network, spikes()).fingerprint()
    # The exponents of one memory are one register.
    odd = replace(done.network.projections[0], name="more", weight_exp=6)
    both = replace(done.network, projections=(*done.network.projections, odd))
    assert any("share 1" in line for line in faults(both))


def test_the_compression_is_for_the_kernel_of_the_shifts() -> None:
    population = Population("a", (2,), synaptic(0.7, 0.9))
    assert LOWERING.dynamics is not None
    made = LOWERING.dynamics(population, FORMATS)
    assert made.decay_u is not None
    assert set(made.decay_u.tolist()) <= {1 - 2.0**-k for k in range(16)}
    assert set(made.decay_v.tolist()) <= {1 - 2.0**-k for k in range(16)}


def test_all_that_the_chip_lacks_is_refused_at_once() -> None:
    one = np.ones(())
    zero = CubaLIF(0.2 * one, 0.1 * one, 0 * one, one, 0 * one)
    network = two_layers(zero)
    a, b = network.populations
    loop = Projection("loop", "b", "a", Dense(np.ones((12, 3))))
    with pytest.raises(UnsupportedModelError) as caught:
        check_features(replace(network, projections=(*network.projections, loop)))
    assert "a: a spike sets the potential to its reset value" in str(caught.value)
    assert "loop: spikes of the outputs" in str(caught.value)
    assert "output_neurons_cannot_be_recurrent" in str(caught.value)
    single = Network((5,), (replace(a, neuron=b.neuron),), network.projections[:1])
    with pytest.raises(UnsupportedModelError, match="at_least_two_neuron_layers_needed"):
        check_features(single)
