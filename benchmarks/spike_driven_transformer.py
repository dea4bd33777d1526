"""SpikingJelly's Spike-driven Transformer, unchanged: imported, compressed, mapped, run on Lava.

    python benchmarks/spike_driven_transformer.py [--width 64] [--depth 2] [--side 16]

Weights are random and norms such that neurons fire; what is compared is the arithmetic. The import
is held against the framework's own forward, Lava against the engine, spike by spike.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer
from torch import nn

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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--pooled", default="1100", help="stages of the stem that pool")
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
    gates = [p for p in done.lowered.network.populations if " relay " in p.name]
    print(f"{len(done.lowered.network.populations)} populations, {len(gates)} of them relays")
    silent = [name for name, seen in fired.items() if not seen.spikes]
    print(f"silent: {', '.join(silent) or 'none'}")
    return int(not done.fidelity.exact)


if __name__ == "__main__":
    raise SystemExit(main())
