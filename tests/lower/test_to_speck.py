"""Lowering to Speck: potentials against the float network's, and what the chip lacks."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

import osbc_deploy
from osbc_deploy.chip.target import load_target
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.frameworks.snntorch.neurons import Leaky, Synaptic
from osbc_deploy.frameworks.spikingjelly.neurons import IFNode
from osbc_deploy.lower.lowering import lower
from osbc_deploy.lower.speck import LOWERING
from osbc_deploy.model.graph import AvgPool, Conv, Dense, Network, Population, Projection
from osbc_deploy.model.simulate import simulate

FORMATS = load_target("speck").number_formats


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(1.0, None),
        layer.AvgPool2d(2), layer.Conv2d(4, 6, 3, padding=1, bias=False), neuron.IFNode(1.0, None),
        layer.AvgPool2d(2), layer.Flatten(), layer.Linear(6 * 4, 5, bias=False),
        neuron.IFNode(1.0, None),
    )  # fmt: skip
    with torch.no_grad():
        net[3].weight.mul_(4)
        net[7].weight.mul_(4)
    return net


def spikes() -> Any:
    return (np.random.default_rng(1).random((6, 20, 2, 8, 8)) < 0.3).astype(np.uint8)


def if_node(threshold: Any = 1.0) -> IFNode:
    return IFNode(np.array(threshold), np.array(0.0), "subtract")


def test_a_convolution_and_its_poolings_stay_on_three_cores() -> None:
    done = osbc_deploy.deploy(
        conv_net(), spikes(), target="speck", sparsity=0.0, bits=8, tune=False
    )
    network = done.lowered.network
    assert [core.usage.used["kernel"] for core in done.mapping.cores] == [2 << 6, 4 << 7, 6 << 5]
    assert done.mapping.fits
    assert [q.pooling is not None for q in network.projections] == [False, True, True]
    assert {q.weight_exp for q in network.projections} == {-1}
    # The whole range of 8 bits is used.
    assert all(np.abs(q.connection.weight).max() in (2 * 127, 2 * 128) for q in network.projections)


@pytest.mark.parametrize("threshold", [1.0, 150.0])
def test_potentials_are_those_of_the_float_network(threshold: float) -> None:
    # Out of reach of the threshold, so that no spike lets the two part.
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(-0.3, 0.2, (12, 5)), rng.normal(0, 0.05, 12)
    projections = (Projection("in", "input", "a", Dense(weight, bias)),)
    network = Network((5,), (Population("a", (12,), if_node(threshold)),), projections)
    given = (rng.random((4, 20, 5)) < 0.3).astype(np.uint8)
    options = CompressionOptions(sparsity=0.0, bits=8, tune=False, scale_groups=1)
    fixed = lower(compress(network, given, options), given, FORMATS).network
    want = simulate(network, given, states=["a"], exact=True).v["a"]
    got = run(fixed, given, states=["a"]).v["a"] * fixed.populations[0].v_scale
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_a_threshold_is_that_of_the_float_neuron() -> None:
    # Weights of 1 and thresholds of 2: at the threshold SpikingJelly fires, snnTorch does not.
    one = np.ones(())
    given = np.ones((1, 6, 1), np.uint8)
    for kind in (if_node(2.0), Leaky(one, 2 * one, 2 * one)):
        projections = (Projection("in", "input", "a", Dense(np.eye(1))),)
        network = Network((1,), (Population("a", (1,), kind),), projections)
        options = CompressionOptions(sparsity=0.0, bits=8, tune=False, scale_groups=1)
        fixed = lower(compress(network, given, options), given, FORMATS).network
        want = simulate(network, given, record=["a"]).spikes["a"]
        assert run(fixed, given).output.ravel().tolist() == want.ravel().tolist()


def test_neurons_that_return_to_zero_fire_as_norses_do() -> None:
    """Weights of one size make exact potentials, three inputs at most less than two thresholds."""
    torch.manual_seed(1)
    net = norse.SequentialState(nn.Linear(3, 8, bias=False), norse.IAFCell())
    with torch.no_grad():
        net[0].weight.copy_(0.3 * torch.tensor([-1, 1, 1])[torch.randint(3, (8, 3))])
    x = (np.random.default_rng(2).random((20, 15, 3)) < 0.4).astype(np.uint8)
    done = osbc_deploy.deploy(net, x, target="speck", sparsity=0.0, bits=8, method="magnitude")
    state, steps = None, []
    for t in range(x.shape[1]):
        out, state = net(torch.from_numpy(x[:, t]).float(), state)
        steps.append(out.detach().numpy())
    want = np.stack(steps, axis=1)
    assert {p.reset for p in done.lowered.network.populations} == {"zero"}
    assert want.sum() > 20
    assert np.array_equal(run(done.lowered.network, x).output, want)


def test_what_changed_is_said() -> None:
    rng = np.random.default_rng(0)
    first = Dense(rng.normal(0.5, 0.3, (6, 4)), np.full(6, 30.0))
    network = Network(
        (4,), (Population("a", (6,), if_node(0.2)),), (Projection("in", "input", "a", first),)
    )
    given = (rng.random((4, 20, 4)) < 0.3).astype(np.uint8)
    options = CompressionOptions(sparsity=0.0, bits=4, tune=False, scale_groups=1)
    said = "\n".join(
        d.message for d in lower(compress(network, given, options), given, FORMATS).deviations
    )
    assert "fires up to" in said
    assert "weights lose" in said
    assert "threshold is coarse" in said
    assert "4-bit weights are stored in 8 bits" in said


def test_all_that_the_chip_lacks_is_refused_at_once() -> None:
    one = np.ones(())
    a = Population("a", (2, 6, 6), if_node())
    pooled = Projection(
        "pooled", "a", "b", Conv(np.ones((2, 2, 3, 3)), padding=(1, 1)), AvgPool((4, 4), (4, 4))
    )
    network = Network(
        (2, 6, 6),
        (
            a,
            Population("b", (2, 1, 1), Leaky(0.9 * one, one, one)),
            Population("c", (3,), Synaptic(0.5 * one, one, one, one)),
            Population("d", (3,), Leaky(one, one, one, reset="none")),
            Population("e", (3,), if_node(np.array([1.0, 2.0, 3.0]))),
        ),
        (
            Projection("in", "input", "a", Conv(np.ones((2, 2, 1, 1)))),
            pooled,
            Projection("c", "b", "c", Dense(np.ones((3, 2)))),
            Projection("d", "c", "d", Dense(np.ones((3, 3)))),
            Projection("e", "d", "e", Dense(np.ones((3, 3)))),
            Projection("skip", "b", "e", Dense(np.ones((3, 2)))),
        ),
    )
    with pytest.raises(ChipLimitError) as caught:
        LOWERING.check_features(network)
    for words in (
        "b: a leak",
        "c: a synaptic current",
        "d: a spike leaves the potential",
        "e: neurons of different v_threshold",
        "e: hears 2 projections (e, skip); a core has one kernel",
        "pooled: AvgPool2d(kernel (4, 4)",
        "snnTorch's Leaky(beta=1.0), norse's IAFCell, SpikingJelly's IFNode)",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("target", ["speck", "xylo-audio2"])
def test_what_no_spikes_can_be_is_refused_before_any_work(target: str) -> None:
    net = nn.Sequential(layer.Linear(4, 3), neuron.IFNode(1.0, None), layer.Linear(3, 2),
                        neuron.IFNode(1.0, None))  # fmt: skip
    values = np.random.default_rng(0).random((4, 5, 4)).astype(np.float32)
    with pytest.raises(ChipLimitError, match=r"input: .*real values.*"):
        osbc_deploy.deploy(net, values, target=target)
    assert LOWERING.check_input is not None
    with pytest.raises(ChipLimitError, match=r"a channel for each sign, and train on these"):
        LOWERING.check_input(InputFormat("integers", 5, signed=True))
