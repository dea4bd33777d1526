"""Spikes x hops of placements: optimized, in layer order, in random order.

Run: ``python benchmarks/placement.py``; results in benchmarks/README.md.
"""

from __future__ import annotations

import time

import numpy as np
from _synthetic import dense_stack

from osbc_deploy.bundled.digits import digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import place
from osbc_deploy.chip.target import load_target
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


def row(name: str, target: str, network: FixedPointNetwork, spikes: dict[str, np.ndarray]) -> str:
    chip = load_target(target)
    layers = layers_of(network)
    mapping = map_layers(layers, chip)
    start = time.perf_counter()
    found = place(traffic(mapping, layers, spikes), chip)
    seconds = time.perf_counter() - start
    assert found is not None
    assert found.spike_hops <= found.layer_order
    return (
        f"| {name} | {target} | {mapping.cores_used} | {found.spike_hops:,.0f} | "
        f"{found.layer_order:,.0f} | {found.random_order:,.0f} | "
        f"{found.layer_order / max(found.spike_hops, 1e-9):.2f} | {seconds:.2f} |"
    )


def main() -> None:
    print("| network | target | cores | placed | layer order | random order | gain | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    data = digits_events("calibration", seed=0)
    samples = check_samples("digits", data.spikes, data.labels)
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
        print(row(name, target, done.lowered.network, spikes))
    network = hundred_layers(0)
    rng = np.random.default_rng(0)
    spikes = {p.name: rng.poisson(2.0, p.size).astype(float) for p in network.populations}
    for target in ("kapoho-point", "loihi1", "loihi2"):
        if map_layers(layers_of(network), load_target(target)).fits:
            print(row("100 dense layers of 50 to 400 neurons", target, network, spikes))


if __name__ == "__main__":
    main()
