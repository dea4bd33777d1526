"""Neurons that make no difference are left out, and no bit changes."""

from __future__ import annotations

from dataclasses import replace

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy import deploy
from osbc_deploy.backends import load_backend
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.lower.unheard import needed_neurons, part_of, silent_neurons
from osbc_deploy.progress import SILENT
from osbc_deploy.testing.networks import random_networks

FORMATS = load_target("loihi2-sim").number_formats


def _thinned(network: FixedPointNetwork, seed: int) -> FixedPointNetwork:
    """Take whole rows and columns of weights away, as pruning does, and some biases."""
    rng = np.random.default_rng(seed)
    projections = []
    for p in network.projections:
        weight = p.connection.weight.copy()
        weight[rng.random(weight.shape[0]) < 0.3] = 0
        weight[:, rng.random(weight.shape[1]) < 0.4] = 0
        projections.append(replace(p, connection=replace(p.connection, weight=weight)))
    populations = []
    for q in network.populations:
        calm = rng.random(q.size) < 0.5
        changes = {
            name: np.where(calm, 0, getattr(q, name)) for name in ("bias_mant", "u_init", "v_init")
        }
        populations.append(replace(q, **changes))
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def test_random_networks_fire_the_same_without_them() -> None:
    gone = 0
    for number, case in enumerate(random_networks(24, start=3)):
        network = _thinned(case.network, number)
        kept, _ = needed_neurons(network)
        smaller = part_of(network, kept)
        names = [p.name for p in network.populations]
        whole = run(network, case.spikes, record=names, states=names, strict=False)
        part = run(smaller, case.spikes, record=names, states=names, strict=False)
        assert (part.output == whole.output).all()
        for name in names:
            for a, b in ((whole.v, part.v), (whole.u, part.u), (whole.spikes, part.spikes)):
                if name in a:
                    assert (a[name][..., kept[name]] == b[name]).all()
            gone += int((~kept[name]).sum())
    assert gone > 50


def test_a_convolution_without_half_of_its_neurons_is_smaller_with_the_same_bits() -> None:
    torch.manual_seed(0)
    model = norse.SequentialState(
        nn.Conv2d(2, 8, 3, padding=1), norse.LIFBoxCell(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3),
        norse.LIFBoxCell(), nn.Flatten(), nn.Linear(32, 12), norse.LIFBoxCell(),
        nn.Linear(12, 4), norse.LICell(),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    x = (np.random.default_rng(1).random((16, 8, 2, 8, 8)) < 0.3).astype(np.uint8)
    for target, what, most in (("cortex-m4", "ram", 0.55), ("loihi1", "bytes", 0.6)):
        took = []
        for removed in (0.0, 0.6):
            done = deploy(
                model, x, target=target, sparsity=0.5, tune=False, remove_neurons=removed,
                backend_samples=0,
            )  # fmt: skip
            took.append(done.footprint.used.get(what, done.footprint.bytes))
            whole, part = done.lowered.whole, done.lowered.network
            answers = run(whole, x).output
            assert answers.any()
            assert np.array_equal(answers, run(part, x).output)
        assert sum(p.size for p in part.populations) < 0.5 * sum(p.size for p in whole.populations)
        assert took[1] < most * took[0]


def test_what_only_unheard_neurons_hear_goes_too_and_loops_do() -> None:
    """Of a chain by hand: 0 reaches the output; 1 hears 2 and they feed each other alone."""
    network = chain()
    kept, heard = needed_neurons(network)
    assert kept["a"].tolist() == [True, False, False, False]
    assert kept["b"].tolist() == [True, False, False]
    assert heard["a"].tolist() == [True, False, False, True]
    # Neuron 3 of `a` is heard, but nothing reaches it and its bias stays below its threshold.
    assert silent_neurons(network)["a"].tolist() == [False, False, False, True]
    smaller = part_of(network, kept)
    assert [p.shape for p in smaller.populations] == [(1,), (1,), (1,)]


def chain(bias: int = 1) -> FixedPointNetwork:
    def population(name: str, size: int, biases: list[int]) -> FixedPopulation:
        zeros = np.zeros(size, np.int32)
        return FixedPopulation(
            name, (size,), zeros + 4095, zeros + 2048, zeros + 10, np.array(biases), zeros, zeros,
            zeros, True, np.ones(size), np.zeros(size),
        )  # fmt: skip

    def way(name: str, pre: str, post: str, weight: list[list[int]]) -> FixedProjection:
        return FixedProjection(name, pre, post, FixedDense(np.array(weight) * 64), 8, 6)

    return FixedPointNetwork(
        (2,),
        (
            population("a", 4, [0, 0, 0, bias]),
            population("b", 3, [0, 0, 0]),
            population("out", 1, [0]),
        ),
        (
            way("in", "input", "a", [[1, 1], [1, 0], [0, 1], [0, 0]]),
            way("ab", "a", "b", [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]),
            way("loop", "b", "b", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]),
            way("bo", "b", "out", [[1, 0, 0]]),
        ),
        FORMATS,
        "sum",
    )


def test_silent_is_what_never_fires_however_late() -> None:
    # Without a leak: a bias of 2 that reaches 200 * 64 after 6400 steps; a potential and a current
    # that are there from the beginning; a bias below zero; nothing. With one: 2 of 4 in a step.
    zeros = np.zeros(6, np.int64)
    population = FixedPopulation(
        "a", (6,), du=zeros + 4095, dv=np.array([0, 0, 0, 0, 0, 2048]), vth=zeros + 200,
        bias_mant=np.array([2, 0, 0, -2, 0, 2]), bias_exp=zeros,
        u_init=np.array([0, 0, 200 * 64 + 1, 0, 0, 0]),
        v_init=np.array([0, 200 * 64 + 1, 0, 0, 0, 0]),
        spiking=True, v_scale=np.ones(6), v_offset=np.zeros(6),
    )  # fmt: skip
    population = replace(population, du=np.array([4095, 4095, -1, 4095, 4095, 4095]))
    unreached = FixedProjection("w", "input", "a", FixedDense(np.zeros((6, 1), int)), 8, 0)
    network = FixedPointNetwork((1,), (population,), (unreached,), FORMATS, "sum")
    fired = run(network, np.zeros((1, 6500, 1), np.uint8), record=["a"]).spikes["a"][0].any(axis=0)
    assert fired.tolist() == [True, True, True, False, False, False]
    assert silent_neurons(network)["a"].tolist() == [False, False, False, True, True, True]


def test_a_bias_that_reaches_the_threshold_keeps_its_neuron() -> None:
    """With half of it kept a step, a bias b ends below 2 b: 10 x 64 is passed by 321 alone."""
    x = np.zeros((1, 40, 2), np.uint8)
    for bias, fires in ((320, False), (321, True)):
        network = chain(bias)
        done = run(network, x, record=["a"])
        assert done.spikes["a"][0, :, 3].any() == fires
        assert silent_neurons(network)["a"][3] != fires


def test_lava_fires_the_same_without_them() -> None:
    for case in random_networks(40, start=11):
        network = _thinned(case.network, 1)
        kept, _ = needed_neurons(network)
        gone = sum(int((~mask).sum()) for mask in kept.values())
        kinds = {p.connection.kind for p in network.projections}
        if gone > 10 and kinds == {"dense", "conv"}:
            break
    smaller = part_of(network, kept)
    assert gone > 10
    names = [p.name for p in smaller.populations]
    whole = run(network, case.spikes, record=names, states=names)
    theirs = load_backend("lava").run(
        smaller, case.spikes, states=names, time_limit=120.0, progress=SILENT
    )
    for kind in ("spikes", "u", "v"):
        for name, values in getattr(theirs, kind).items():
            assert np.array_equal(values, getattr(whole, kind)[name][..., kept[name]])


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("removed", [0.0, 0.4])
def test_groups_of_a_pattern_stay_groups(removed: float, convolutional: bool) -> None:
    """Of 4 inputs in a row at most 1 is heard, in the network as it is deployed."""
    torch.manual_seed(0)
    first: nn.Module = nn.Linear(24, 40)
    behind: list[nn.Module] = [nn.Linear(40, 6)]
    if convolutional:
        first = nn.Conv2d(2, 40, 3)
        behind = [nn.Conv2d(40, 6, 3), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(24, 6)]
    model = norse.SequentialState(first, norse.LIFBoxCell(), *behind, norse.LICell())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
        # A whole group, one neuron of another and two of the next can never fire.
        for gone in (*range(8, 12), 17, 21, 22):
            first.weight[gone] = 0.0
            first.bias[gone] = -1.0
    shape = (2, 6, 6) if convolutional else (24,)
    x = (np.random.default_rng(2).random((40, 8, *shape)) < 0.3).astype(np.uint8)
    done = deploy(
        model, x, target="loihi2-sim", pattern="1:4", bits=4, tune=False, backend_samples=0,
        remove_neurons=removed,
    )  # fmt: skip
    hidden = done.lowered.network.populations[0]
    assert hidden.shape[0] < 40
    for p in done.lowered.network.projections:
        rows = p.connection.weight.reshape(len(p.connection.weight), -1)
        whole = rows[:, : rows.shape[1] // 4 * 4].reshape(len(rows), -1, 4)
        assert (whole != 0).sum(2).max() == 1
        assert (rows[:, whole.shape[1] * 4 :] != 0).sum(1).max(initial=0) <= 1
    if not removed:
        assert hidden.shape[0] == 36
