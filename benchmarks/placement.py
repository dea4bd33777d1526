"""Spikes x hops of placements: optimized, in layer order, in random order, and the best known.

Run: ``python benchmarks/placement.py``; results in benchmarks/README.md. The best known placement
is that of every way for 8 cores on 3 x 3 places, and that of sixteen times the work above.
"""

from __future__ import annotations

import itertools
import time
from unittest import mock

import numpy as np
from _synthetic import dense_stack
from scipy.sparse import csr_array

from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.chip import place as placing
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import place
from osbc_deploy.chip.step import step_load
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.chip.traffic import traffic
from osbc_deploy.data.samples import check_samples
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.pipeline import deploy


def hundred_layers(seed: int) -> FixedPointNetwork:
    """Return 100 dense layers of 50 to 400 neurons, 30 % of the weights kept, 8 bits."""
    rng = np.random.default_rng(seed)
    weights, inputs = [], 200
    for _ in range(100):
        size = int(rng.integers(50, 400))
        weights.append(2 * (rng.random((size, inputs)) < 0.3))
        inputs = size
    return dense_stack(weights)


def maps(sizes: list[int], seed: int) -> csr_array:
    """Return spikes between layers of so many cores, each hearing the quarter beside its place."""
    rng = np.random.default_rng(seed)
    sent = np.zeros((sum(sizes), sum(sizes)))
    start = 0
    for here, there in itertools.pairwise(sizes):
        away = np.abs(np.arange(here)[:, None] / here - np.arange(there)[None] / there)
        block = rng.poisson(200 * np.maximum(0.3 - away, 0)) * (away < 0.25)
        sent[start : start + here, start + here : start + here + there] = block
        start += here
    return csr_array(sent)


def row(name: str, target: str, spikes: csr_array) -> str:
    chip = load_target(target)
    start = time.process_time()
    found = place(spikes, chip)
    seconds = time.process_time() - start
    assert found is not None
    assert found.spike_hops <= found.layer_order
    with mock.patch.object(placing, "_ANNEALED", 16 * placing._ANNEALED):
        best = place(spikes, chip)
    assert best is not None
    return (
        f"| {name} | {target} | {spikes.shape[0]} | {found.spike_hops:,.0f} | "
        f"{found.spike_hops / max(best.spike_hops, 1e-9) - 1:.1%} | "
        f"{found.layer_order:,.0f} | {found.random_order:,.0f} | "
        f"{found.layer_order / max(found.spike_hops, 1e-9):.2f} | {seconds:.2f} |"
    )


def exact(cases: int) -> str:
    """Place 8 cores on 3 x 3 places, and try every way."""
    every = np.array(list(itertools.permutations(range(9), 8)), np.int16)
    x, y = every % 3, every // 3
    right, excess = 0, 0.0
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        sent = rng.integers(0, 20, (8, 8)) * (rng.random((8, 8)) < 0.5)
        ways = sum(
            sent[a, b] * (np.abs(x[:, a] - x[:, b]) + np.abs(y[:, a] - y[:, b]))
            for a, b in itertools.permutations(range(8), 2)
        )
        found = place(csr_array(sent.astype(float)), nine())
        assert found is not None
        right += found.spike_hops == ways.min()
        excess += found.spike_hops / ways.min() - 1
    return f"8 cores on 3 x 3 places: {right} of {cases} optimal, {excess / cases:.2%} above"


def nine() -> Target:
    """Return a chip of 3 x 3 places."""
    target = load_target("loihi2")
    assert target.mesh is not None
    size = target.mesh.size.model_copy(update={"value": [3, 3]})
    cores = target.chip.cores.model_copy(update={"value": 9})
    return target.model_copy(
        update={
            "mesh": target.mesh.model_copy(update={"size": size}),
            "chip": target.chip.model_copy(update={"cores": cores}),
        }
    )


def sent_in(network: FixedPointNetwork, target: str, spikes: dict[str, np.ndarray]) -> csr_array:
    layers = layers_of(network)
    return traffic(map_layers(layers, load_target(target)), layers, spikes)


def fullest_link(network: FixedPointNetwork, spikes: dict[str, np.ndarray], steps: int) -> str:
    """Return what the fullest link of loihi1 takes in a mean step, beside its busiest core."""
    target, layers = load_target("loihi1"), layers_of(network)
    mapping = map_layers(layers, target)
    placed = place(traffic(mapping, layers, spikes), target)
    mean = {name: counts / steps for name, counts in spikes.items()}
    time = step_load(mapping, layers, mean, placed, target).time(target)
    assert time is not None
    return (
        f"loihi1, {mapping.cores_used} cores: busiest core {time.parts['core'] * 1e6:.2f} us, "
        f"fullest link {time.parts['link'] * 1e6:.3f} us"
    )


def main() -> None:
    print(exact(36), end="\n\n")
    print("| network | target | cores | placed | above best known | layer order | random order "
          "| gain | CPU seconds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    data = digits_events("calibration", seed=0)
    samples = check_samples("digits", data.spikes, data.labels)
    links = []
    for target, sparsity, bits in (("loihi2", 0.9, 4), ("loihi2", 0.0, 8), ("loihi1", 0.0, 8)):
        done = deploy(
            "osbc_deploy.bundled.models:digits_conv",
            samples,
            weights=weights_path("digits_conv"),
            target=target,
            sparsity=sparsity,
            bits=bits,
            backend_samples=0,
        )
        spikes = {n: a.counts / len(samples) for n, a in done.lowered.activity.items()}
        name = f"bundled conv net, {sparsity:.0%} sparse, {bits} bits"
        print(row(name, target, sent_in(done.lowered.network, target, spikes)))
        sent = done.lowered.network.input.codes(samples.spikes)
        given = {"input": np.count_nonzero(sent, axis=(0, 1)).ravel() / len(samples)}
        links.append(fullest_link(done.lowered.network, spikes | given, sent.shape[1]))
    network = hundred_layers(0)
    rng = np.random.default_rng(0)
    spikes = {p.name: rng.poisson(2.0, p.size).astype(float) for p in network.populations}
    for target in ("kapoho-point", "loihi1", "loihi2"):
        if map_layers(layers_of(network), load_target(target)).fits:
            sent = sent_in(network, target, spikes)
            print(row("100 dense layers of 50 to 400 neurons", target, sent), flush=True)
    given = {"input": rng.poisson(2.0, 200).astype(float)}
    links.append(fullest_link(network, spikes | given, 10))
    print(row("maps on 94 cores", "loihi2", maps([16, 32, 24, 12, 8, 2], 0)), flush=True)
    print(row("maps on 400 cores", "kapoho-point", maps([60, 120, 100, 60, 40, 16, 4], 1)))
    print("", *links, sep="\n")


if __name__ == "__main__":
    main()
