"""SpikingJelly's Spike-driven Transformer, unchanged: imported, compressed, mapped, run on Lava.

    python benchmarks/spike_driven_transformer.py [--width 64] [--depth 2] [--side 16]
    python benchmarks/spike_driven_transformer.py --count --width 256 --side 128 --pooled 1110

Weights are random and norms such that neurons fire; what is compared is the arithmetic. The import
is held against the framework's own forward, Lava against the engine, spike by spike. `--count`
reads a model, without samples, and counts what it takes with 8-bit weights, all of them kept.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
from torch import nn

from osbc_deploy.chip.layers import layer_of
from osbc_deploy.chip.mapping import map_layers
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.fitting.candidates import cost_beside
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.lowering import unmeasured
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import Network, Projection
from osbc_deploy.pipeline import deploy


def lively(model: nn.Module) -> nn.Module:
    """Give norms what training would, so that neurons fire."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0.0, 0.05)
                part.running_var.uniform_(0.05, 0.2)
                part.weight.uniform_(0.6, 1.2)
                part.bias.uniform_(0.2, 1.0)
    functional.reset_net(model)
    return model.eval()


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - start:.0f} s, {peak:.1f} GiB at most", flush=True)


DENSE = CompressionOptions(sparsity=0.0, bits=8)


def counted(network: Network, target: Target) -> Counter[str]:
    """Return cores, chips and what is on them of a network whose weights are random codes."""
    apart = kept_apart(network, counted_poolings(network, target, DENSE))
    trained, network = network, apart.network
    times = timing(network)
    rng = np.random.default_rng(0)
    beside = cost_beside(network, target, times)
    gates = [p for p in network.populations if p.neuron.exact]
    found = Counter(
        neurons=sum(p.size for p in network.trained),
        gates=sum(p.size for p in gates),
        relays=sum(
            count * math.prod(network.shape_of(name))
            for name, count in times.relays_of(network).items()
        ),
        cores_of_gates_and_relays=beside.cores,
    )
    for number, population in enumerate(network.trained, start=1):
        afferents = network.afferents(population.name)
        given = {p.name: random_codes(p, rng) for p in trained.afferents(population.name)}
        weights = apart.weights(given)
        projections, fixed = unmeasured(network, population, weights, times, target.number_formats)
        layer = layer_of(
            fixed,
            tuple(
                (p, network.shape_of(q.pre)) for p, q in zip(projections, afferents, strict=True)
            ),
            target.number_formats,
            to_convolution=all(
                p.connection.convolutional for p in network.projections if p.pre == population.name
            ),
            is_output=population is network.output,
        )
        mapping = map_layers((layer,), target, whole=False)
        found["cores_of_neurons"] += mapping.cores_used
        found["weights"] += sum(w.codes.size for w in given.values())
        misfits = mapping.misfits()
        found["populations_that_fit_no_core"] += bool(misfits)
        said = f" ({misfits[0]})" if misfits else ""
        print(
            f"  {number}/{len(network.trained)} {population.name} {population.shape}: "
            f"{len(afferents)} projections, {mapping.cores_used} cores{said}",
            flush=True,
        )
    return found


def random_codes(projection: Projection, rng: np.random.Generator) -> CompressedProjection:
    weight = projection.connection.weight
    codes = rng.integers(-127, 128, weight.shape).astype(np.int8)
    scale = np.full(len(weight), 0.01)
    return CompressedProjection(
        projection.name, codes, scale, 8, weight.size, {"total": 0.0}, "", 0, 0.0
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--pooled", default="1100", help="stages of the stem that pool")
    parser.add_argument("--count", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = lively(
        SpikeDrivenTransformer(
            in_channels=2,
            num_classes=10,
            embed_dims=given.width,
            num_heads=8,
            depths=given.depth,
            pooling_stat=given.pooled,
        )
    )
    if given.count:
        with timed("import"):
            network = read_spikingjelly(model, (2, given.side, given.side))
        with timed("count"):
            found = counted(network, load_target("loihi2"))
        for name, count in found.items():
            print(f"{name.replace('_', ' ')}: {count:,}")
        cores = found["cores_of_neurons"] + found["cores_of_gates_and_relays"]
        print(f"cores: {cores:,}, chips of 120: {-(-cores // 120):,}")
        return 0
    shape = (given.samples, given.steps, 2, given.side, given.side)
    x = (np.random.default_rng(0).random(shape) < 0.2).astype(np.uint8)
    with timed("deploy"):
        done = deploy(
            model,
            calibration=x,
            target="loihi2-sim",
            sparsity=0.5,
            bits=6,
            tune=False,
            backend="lava",
        )
    print(done)
    fired = done.lowered.activity
    relays = [p for p in done.lowered.network.populations if " relay " in p.name]
    print(f"{len(done.lowered.network.populations)} populations, {len(relays)} of them relays")
    spiking = [p.name for p in done.lowered.network.populations if p.spiking]
    silent = [name for name in spiking if not fired[name].spikes]
    print(f"silent: {', '.join(silent) or 'none'}")
    return int(not done.fidelity.exact)


if __name__ == "__main__":
    raise SystemExit(main())
