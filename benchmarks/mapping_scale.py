"""Map a synthetic network of a million neurons and a hundred million synapses on many chips.

Run: ``python benchmarks/mapping_scale.py [--layers 1000]``; results in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
from _synthetic import dense_stack

from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import place
from osbc_deploy.chip.target import load_target
from osbc_deploy.chip.traffic import traffic


def random_weights(layers: int, size: int, fan_in: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the weights of equal layers; every neuron has `fan_in` random inputs."""
    rng = np.random.default_rng(seed)
    for _ in range(layers):
        # Random distances between neighbors give rows of exactly `fan_in` distinct inputs.
        steps = rng.random((size, fan_in + 1)).cumsum(axis=1)
        chosen = (steps[:, :-1] / steps[:, -1:] * (size - fan_in)).astype(int) + np.arange(fan_in)
        weight = np.zeros((size, size), np.int16)
        np.put_along_axis(weight, chosen, np.int16(2), axis=1)
        yield weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--fan-in", type=int, default=100)
    parser.add_argument("--target", default="hala-point")
    args = parser.parse_args()
    target = load_target(args.target)
    start = time.perf_counter()
    network = dense_stack(random_weights(args.layers, args.size, args.fan_in))
    built = time.perf_counter()
    synapses = sum(p.nonzero for p in network.projections)
    print(
        f"{args.layers * args.size:,} neurons, {synapses:,} synapses "
        f"(made in {built - start:.1f} s)"
    )
    start = time.perf_counter()
    layers = layers_of(network)
    mapping = map_layers(layers, target)
    cut = time.perf_counter()
    rng = np.random.default_rng(1)
    spikes = {p.name: rng.poisson(3.0, p.size).astype(float) for p in network.populations}
    sent = traffic(mapping, layers, spikes)
    counted = time.perf_counter()
    placed = place(sent, target)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{mapping.cores_used:,} cores (lower bound {mapping.lower_bound:,}) of "
        f"{mapping.available:,}, fits: {mapping.fits}"
    )
    if placed is not None:
        print(
            f"{int(placed.chip.max()) + 1} chips; spikes x hops {placed.spike_hops:,.0f}, layer "
            f"order {placed.layer_order:,.0f}, random order {placed.random_order:,.0f}"
        )
    print(
        f"cut {cut - start:.1f} s, traffic {counted - cut:.1f} s, place {end - counted:.1f} s, "
        f"all {end - start:.1f} s; peak memory {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main()
