"""Stages: potentials against the step written out, populations alone against the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from float_networks import NEURONS, convolutions, dense, loop, mlp, network, recurrent, residual
from float_networks import spikes as random_spikes
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.testing import random_networks
from osbc_deploy.verification.cost import trials
from osbc_deploy.verification.stages import FixedStage, FloatStage, Record, float_stages
from verified import compressed, job, samples

NETWORKS = [mlp, convolutions, recurrent, residual, loop]


@pytest.mark.parametrize("kind", sorted(NEURONS))
def test_potentials_are_those_after_each_step(kind: str) -> None:
    neuron = NEURONS[kind]
    connection = dense(0, 6, 8, bias=True)
    net = network((8,), (connection, neuron))
    x = random_spikes(1, 3, 10, 8)
    done = simulate(net, x, record=["p0"], states=["p0"])
    state = {
        **dict.fromkeys(neuron.states, np.zeros((3, 6))),
        "v": np.zeros((3, 6)) + neuron.v_init,
    }
    for t in range(10):
        current = x[:, t] @ connection.weight.T.astype(np.float64) + connection.bias
        answer, state = neuron.step(neuron.parameters, state, current, np.where)
        np.testing.assert_allclose(done.v["p0"][:, t], state["v"], atol=1e-12)
        if neuron.spiking:
            assert np.array_equal(done.spikes["p0"][:, t], answer)
    assert simulate(net, x).v == {}


@pytest.mark.parametrize("make", NETWORKS)
def test_a_population_alone_on_its_own_stage_does_what_it_did(
    make: Callable[[], Network],
) -> None:
    net = make()
    stage = FloatStage("float", net)
    whole = stage.run(random_spikes(2, 5, 12, *net.input_shape))
    for population in net.populations:
        same(stage.alone(population.name, whole), whole, population.name)


def same(alone: Record, whole: Record, name: str) -> None:
    assert np.array_equal(alone.v[name], whole.v[name])
    if name in whole.spikes:
        assert np.array_equal(alone.spikes[name], whole.spikes[name])


def test_a_population_alone_hears_the_other_stage() -> None:
    net = mlp()
    x = random_spikes(2, 5, 12, *net.input_shape)
    stage = FloatStage("float", net)
    whole = stage.run(x)
    silent = Record({n: np.zeros_like(r) for n, r in whole.spikes.items()}, whole.v, whole.output)
    alone = stage.alone("p1", silent)
    assert whole.v["p1"].any()
    assert not alone.v["p1"].any()


def test_integers_alone_do_what_they_did(formats: NumberFormats) -> None:
    """Random networks: several sources, recurrence, delays, graded input, resets."""
    found = random_networks(14, formats)
    for case in found:
        stage = FixedStage("fixed point", case.network)
        whole = stage.run(case.spikes)
        for population in case.network.populations:
            same(stage.alone(population.name, whole), whole, population.name)
    features = {feature for case in found for feature in case.features}
    assert {"skip", "recurrent", "delays", "graded input"} <= features


def test_integer_potentials_are_the_float_networks(formats: NumberFormats) -> None:
    net = mlp(bias=True)
    work = job(net)
    done = compressed(net, work, bits=8)
    x = work.typical.spikes
    stage = FixedStage("fixed point", lower(done, x, formats).network)
    reference = FloatStage("compressed", done.network).run(x)
    for population in net.populations:
        name = population.name
        part = stage.alone(name, reference)
        still = (part.spikes[name] | reference.spikes[name]) == 0
        error = np.abs(part.v[name] - reference.v[name])[still]
        # Rounding of decays and thresholds to the registers: far below a threshold of 0.2.
        assert np.median(error) < 1e-3
        assert np.mean(part.spikes[name] != reference.spikes[name]) < 0.01


@pytest.mark.parametrize("method", ["osbc", "magnitude"])
def test_pruned_weights_are_those_before_quantization(method: str) -> None:
    net = mlp()
    done = compressed(net, job(net), method=method, sparsity=0.6, bits=3)
    names = [stage.name for stage in float_stages(done)]
    assert names == ["float", "pruned", "compressed"]
    pruned = float_stages(done)[1].network
    for projection in pruned.projections:
        layer = done.projections[projection.name]
        weight = projection.connection.weight
        assert np.count_nonzero(weight) == layer.kept < weight.size
        assert not (layer.codes != 0)[weight == 0].any()
        if method == "magnitude":
            original = net.incoming(projection.post).connection.weight
            assert np.array_equal(weight[weight != 0], original[weight != 0])


@pytest.mark.parametrize("make", NETWORKS)
def test_a_layer_alone_is_the_whole_network_with_that_layer(make: Callable[[], Network]) -> None:
    net = make()
    data = samples(net, 20, labels=False)
    done = compressed(net, job(net), bits=3)
    reference = FloatStage("float", net).run(data.spikes)
    found = trials(done)
    assert {t.population for t in found} == {p.name for p in net.populations}
    for trial in found:
        changed = {
            p.name
            for p, q in zip(trial.network.projections, net.projections, strict=True)
            if not np.array_equal(p.connection.weight, q.connection.weight)
        }
        assert changed == set(trial.projections)
        whole = simulate(trial.network, data.spikes)
        assert np.array_equal(trial.run(reference), whole.output)
