"""NeuroBench's numbers, our count, and a count synapse by synapse agree."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from float_networks import convolutions, loop, mlp, recurrent, residual, spikes
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import FidelityError, UnsupportedModelError, UsageError
from osbc_deploy.frameworks.norse.neurons import IF
from osbc_deploy.model.graph import INPUT, AvgPool, Conv, Network, Population, Projection
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.neurobench.harness import TorchNetwork, neurobench_scores
from osbc_deploy.neurobench.workload import count_workload

needs_neurobench = pytest.mark.skipif(
    importlib.util.find_spec("neurobench") is None,
    reason="neurobench is not installed (pip install 'osbc-deploy[neurobench]')",
)

STEPS = 9


def pooled() -> Network:
    """Padding, overlapping pooling windows and two pixels' stride before a convolution."""
    rng = np.random.default_rng(3)
    one, zero = np.ones(()), np.zeros(())
    return Network(
        (2, 7, 7),
        (
            Population("a", (3, 7, 7), IF(0.8 * one, zero)),
            Population("b", (2, 3, 3), IF(0.5 * one, zero)),
        ),
        (
            Projection("c1", INPUT, "a", Conv(rng.normal(size=(3, 2, 3, 3)), None, (1, 1), (1, 1))),
            Projection(
                "c2",
                "a",
                "b",
                Conv(rng.normal(size=(2, 3, 2, 2)), rng.normal(size=2)),
                AvgPool((3, 3), (2, 2), (1, 1)),
            ),
        ),
        dtype="float32",
    )


NETWORKS = {
    "mlp": lambda: mlp(bias=True),
    "convolutions": convolutions,
    "recurrent": recurrent,
    "residual": residual,
    "loop with delays": loop,
    "pooled": pooled,
}


def pruned(network: Network) -> Network:
    """Half of the weights set to 0."""
    rng = np.random.default_rng(5)
    return network.with_weights(
        {
            p.name: p.connection.weight * (rng.random(p.connection.weight.shape) < 0.5)
            for p in network.projections
        }
    )


def case(name: str, count: int = 6) -> tuple[Network, np.ndarray]:
    network = pruned(NETWORKS[name]())
    return network, spikes(1, count, STEPS, *network.input_shape)


def recorded(network: Network, x: np.ndarray, batch_size: int = 64) -> Any:
    spiking = [p.name for p in network.populations if p.neuron.spiking]
    return simulate(network, x, record=[INPUT, *spiking], batch_size=batch_size)


def synapses(network: Network, projection: Projection, *, everything: bool) -> np.ndarray:
    """How many weights join each presynaptic pixel, pooled, to anything: found by asking each."""
    connection = projection.connection
    shape = network.shape_of(projection.pre)
    if projection.pool is not None:
        shape = projection.pool.output_shape(shape)
    mask = np.ones_like(connection.weight) if everything else connection.weight != 0
    weight = torch.tensor(mask, dtype=torch.float64)
    one_each = torch.eye(int(np.prod(shape)), dtype=torch.float64)
    if isinstance(connection, Conv):
        answers = torch.nn.functional.conv2d(
            one_each.reshape(-1, *shape), weight, None,
            connection.stride, connection.padding, connection.dilation, connection.groups,
        )  # fmt: skip
    else:
        answers = one_each @ weight.T
    return answers.flatten(1).sum(1).numpy()


def arriving(network: Network, projection: Projection, raster: np.ndarray) -> np.ndarray:
    """What arrives, neuron by neuron, (n, T, neurons of the pooled source)."""
    n, steps = raster.shape[:2]
    flat = raster.reshape(n, steps, -1)
    late = np.zeros(flat.shape, np.float64)
    for k in range(flat.shape[2]):
        lag = int(network.is_feedback(projection))
        lag += 0 if projection.delay is None else int(projection.delay[k])
        for t in range(lag, steps):
            late[:, t, k] = flat[:, t - lag, k]
    pool = projection.pool
    if pool is None:
        return late
    maps = torch.from_numpy(late.reshape(-1, *raster.shape[2:]))
    means = torch.nn.functional.avg_pool2d(
        maps, pool.kernel, pool.stride, pool.padding, divisor_override=pool.divisor
    )
    return means.reshape(n, steps, -1).numpy()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_size", [2, 64])
def test_our_count_is_that_of_every_synapse(name: str, batch_size: int) -> None:
    network, x = case(name)
    run = recorded(network, x)
    macs = acs = dense = 0.0
    for projection in network.projections:
        heard = arriving(network, projection, run.spikes[projection.pre])
        fans = synapses(network, projection, everything=False)
        dense += STEPS * synapses(network, projection, everything=True).sum()
        for start in range(0, len(x), batch_size):
            for t in range(STEPS):
                seen = heard[start : start + batch_size, t]
                count = ((seen != 0) * fans).sum()
                if np.isin(seen, [0.0, 1.0]).all():
                    acs += count
                else:
                    macs += count
    found = count_workload(network, run.spikes, batch_size=batch_size)
    assert (found.effective_macs, found.effective_acs) == (macs / len(x), acs / len(x))
    assert found.dense == dense
    assert acs > 0
    if name == "pooled":
        assert macs > 0
    zeros = sum(int((p.connection.weight == 0).sum()) for p in network.projections)
    assert found.connection_sparsity == pytest.approx(zeros / network.weights)
    rasters = [v for k, v in run.spikes.items() if k != INPUT]
    silent = sum(int((v == 0).sum()) for v in rasters)
    assert found.activation_sparsity == pytest.approx(silent / sum(v.size for v in rasters))


def test_footprint_by_hand() -> None:
    # 3 2 3 3 + 2 3 2 2 weights, 2 biases, threshold and reset of two populations; 4 bytes each.
    network, x = case("pooled")
    assert count_workload(network, recorded(network, x).spikes).footprint == 4 * (54 + 24 + 2 + 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_torch_module_gives_the_simulated_output(name: str) -> None:
    network, x = case(name)
    with torch.no_grad():
        output = TorchNetwork(network)(torch.from_numpy(x))
    np.testing.assert_array_equal(output.numpy(), recorded(network, x).output)


@needs_neurobench
@pytest.mark.parametrize("name", NETWORKS)
def test_neurobench_says_the_same(name: str) -> None:
    network, x = case(name)
    # Half of the labels are the network's own answers, where it gives any.
    answers = decode(recorded(network, x).output, "sum", spiking=network.output.neuron.spiking)
    labels = answers.clip(0)
    labels[::2] += 1
    scores = neurobench_scores(network, check_samples("x", x, labels), batch_size=4)
    counted = scores["counted"]
    assert scores["neurobench"] == pytest.approx(counted, abs=0.51e-4, rel=0)
    # What gets no answer is wrong for both.
    assert counted["accuracy"] == np.count_nonzero(answers[1::2] >= 0) / len(x)
    assert 0.0 < counted["activation_sparsity"] < 1.0
    assert counted["effective_acs"] + counted["effective_macs"] > 0


@needs_neurobench
@pytest.mark.parametrize("kind", ["counts", "differences", "signs", "values"])
def test_neurobench_counts_graded_input_as_we_do(kind: str) -> None:
    """Values below 1 and below 0 are operations, too; those of 1 and -1 are additions."""
    network = pruned(NETWORKS["mlp"]())
    rng = np.random.default_rng(2)
    size = (6, STEPS, *network.input_shape)
    x = {
        "counts": rng.poisson(0.3, size),
        "differences": rng.integers(-2, 3, size),
        "signs": rng.integers(-1, 2, size),
        "values": rng.random(size) * (rng.random(size) < 0.5) * 0.9,
    }[kind]
    scores = neurobench_scores(network, check_samples("x", x), batch_size=4)
    # It raises where the two differ.
    first = network.projections[0].connection.weight != 0
    expected = (x.reshape(-1, first.shape[1]) != 0).astype(int) @ first.sum(axis=0)
    macs, acs = (scores["counted"][f"effective_{what}"] for what in ("macs", "acs"))
    assert scores["neurobench"]["effective_macs"] == macs
    if kind == "signs":
        assert macs == 0
        assert acs >= expected.sum() / len(x)
    else:
        assert 0.9 * expected.sum() / len(x) < macs <= expected.sum() / len(x)


@needs_neurobench
def test_a_compressed_network_is_scored_with_its_compressed_weights() -> None:
    network = mlp()
    x = spikes(2, 12, STEPS, 24)
    done = compress(network, x, CompressionOptions(sparsity=0.75, bits=8, tune=False))
    scores = neurobench_scores(done, check_samples("x", x))
    assert scores["neurobench"]["connection_sparsity"] == pytest.approx(done.sparsity, abs=1e-4)
    assert "accuracy" not in scores["counted"]


@needs_neurobench
def test_sums_beyond_float32_are_exact() -> None:
    # Odd numbers beyond 2^24 are no float32: a batch's operations must not be added up in it.
    network = replace(mlp(sizes=(257, 257, 3)), dtype="float32")
    x = spikes(3, 255, 2, 257)
    scores = neurobench_scores(network, check_samples("x", x), batch_size=255)
    assert 255 * 257 * 257 > 2**24
    assert scores["neurobench"]["dense"] == 2 * (257 * 257 + 257 * 3)


@needs_neurobench
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("workload.ActivationSparsity", "activation sparsity 0.0, counted 0"),
        ("static.Footprint", "footprint None"),
        ("workload.SynapticOperations", "effective macs None.*dense None"),
    ],
)
def test_a_metric_that_fails_within_neurobench_is_no_silent_zero(
    monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(f"neurobench.metrics.{place}.__call__", fails)
    network, x = case("mlp")
    with pytest.raises(FidelityError, match=words):
        neurobench_scores(network, check_samples("x", x))


def test_without_neurobench_the_command_that_adds_it_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "neurobench.benchmarks", None)
    network, x = case("mlp")
    with pytest.raises(UsageError, match=r"pip install 'osbc-deploy\[neurobench\]'"):
        neurobench_scores(network, check_samples("x", x))


def test_potentials_passed_on_are_refused() -> None:
    network = recurrent()
    onward = replace(network.projections[-1], pre="out", post="out")
    with pytest.raises(UnsupportedModelError, match="out feeds out"):
        TorchNetwork(replace(network, projections=(*network.projections, onward)))
