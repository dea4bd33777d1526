"""Neurons are removed by what those behind them miss, and what is left is one network."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from float_networks import NEURONS, conv_residual, convolutions, dense, mlp, residual, spikes
from osbc_deploy import deploy
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.thinning import thinned, worths
from osbc_deploy.model.graph import Network, Population, Projection
from osbc_deploy.model.simulate import simulate

OPTIONS = CompressionOptions(sparsity=0.3, bits=6, tune=False)
NETWORKS = {
    "dense": mlp(bias=True),
    "residual": residual(),
    "convolutions": conv_residual(),
}


def test_the_first_to_go_is_what_least_squares_misses_least() -> None:
    """Of every neuron alone: what the layer behind loses when the others make up for it."""
    network = mlp()
    x = spikes(1, 60, 12, 24)
    problems = collect(network, x, OPTIONS).problems
    found = worths(network, problems)["p0"]
    (W,), (d,) = problems[1].blocks, problems[1].damped
    W = W[:, d.live]
    lost = np.empty(len(d.live))
    for gone in range(len(lost)):
        kept = np.delete(np.arange(len(lost)), gone)
        error = W.copy()
        error[:, kept] -= np.linalg.solve(d.H[np.ix_(kept, kept)], d.H[kept] @ W.T).T
        lost[gone] = np.einsum("ri,ij,rj->", error, d.H, error) / problems[1].whole
    assert found.values[d.live].argmin() == lost.argmin()
    assert found.values[d.live].min() == pytest.approx(lost.min())
    # What never fires is missed by nobody.
    assert found.values.sum() == pytest.approx(found.values[d.live].sum())


@pytest.mark.parametrize("name", NETWORKS)
def test_in_full_shapes_the_network_fires_the_same(name: str) -> None:
    network = NETWORKS[name]
    x = spikes(1, 48, 12, *network.input_shape)
    values = worths(network, collect(network, x, OPTIONS).problems)
    less = thinned(network, x, OPTIONS, values, 0.4)
    assert less.network.fingerprint() != network.fingerprint()
    assert sum(p.size for p in less.network.populations) < sum(p.size for p in network.populations)
    small = compress(less.network, x, OPTIONS)
    whole = less.whole(small)
    assert whole.original is network
    a = simulate(small.network, x).output
    b = simulate(whole.network, x).output
    assert np.array_equal(a, b)
    assert {d.subject for d in whole.deviations if "were removed" in d.message}


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (convolutions(), {"w0": "in groups", "w1": "in groups", "w2": "in groups"}),
        (mlp(sizes=(8, 1, 6, 3)), {"w0": "the one neuron stays"}),
    ],
)
def test_what_cannot_lose_neurons_is_named(network: Network, named: dict[str, str]) -> None:
    x = spikes(1, 12, 10, *network.input_shape)
    done = deploy(
        network, x, target="loihi2-sim", remove_neurons=0.5, tune=False, backend_samples=0
    )
    said = {
        d.subject: d.message for d in done.deviations if "no neuron can be removed" in d.message
    }
    assert said.keys() == named.keys()
    assert all(text in said[name] for name, text in named.items())


@pytest.mark.parametrize(("target", "backend"), [("loihi2-sim", "engine"), ("cortex-m4", "host-c")])
def test_branches_and_votes_without_some_neurons(target: str, backend: str) -> None:
    """A branch that nothing reads, and outputs that vote: bits of specification and C runtime."""
    if backend == "host-c" and shutil.which("gcc") is None:
        pytest.skip("gcc missing")
    chain = mlp(sizes=(12, 14, 10, 6))
    aside = Population("aside", (5,), NEURONS["LIF"])
    branch = Projection("side", "p0", "aside", dense(7, 5, 14))
    *before, last = chain.populations
    network = replace(
        chain,
        populations=(*before, aside, last),
        projections=(*chain.projections[:2], branch, chain.projections[2]),
    )
    x = spikes(1, 48, 8, 12)
    labels = np.arange(48) % 3
    asked = {"target": target, "backend": backend, "backend_samples": 2, "readout": "vote:2",
             "remove_neurons": 0.3, "sparsity": 0.5, "tune": False}  # fmt: skip
    done = deploy(network, x, test=(x, labels), **asked)
    assert done.fidelity.compared_spikes > 0
    assert done.fidelity.exact
    sizes = {p.name: p.size for p in done.lowered.network.populations}
    assert sizes["aside"] == 1
    assert sizes[last.name] == 6
    assert sum(sizes.values()) < sum(p.size for p in network.populations) - 4
    # Full shapes, by the float simulation: the same answers as in the report.
    output = simulate(done.compressed.network, x).output.sum(axis=1).reshape(48, 3, 2).sum(axis=2)
    right = (output.argmax(axis=1) == labels) & output.any(axis=1)
    assert done.accuracy.compressed == pytest.approx(right.mean())
