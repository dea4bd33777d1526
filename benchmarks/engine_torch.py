"""The engine against the framework's own forward in torch, on the same networks and samples.

    python benchmarks/engine_torch.py

SpikingJelly's networks with drawn weights, the smallest 90 % of every layer set to zero, and each
layer scaled so that about 8 % of its neurons fire. Torch runs them in single precision on two
threads, without gradients, one by one or all at once, whichever is faster; the engine runs
what `deploy` makes of them in 8 bits. Time per sample, best of five, and processor time beside it.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from osbc_deploy import deploy
from osbc_deploy.fixedpoint import run

SPARSITY, FIRING = 0.9, 0.08


def fires() -> nn.Module:
    return neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0, step_mode="m")


def conv(inputs: int, outputs: int, size: int, padding: int = 0) -> nn.Module:
    return layer.Conv2d(inputs, outputs, size, padding=padding, bias=False, step_mode="m")


def pool() -> nn.Module:
    return layer.AvgPool2d(2, step_mode="m")


def ends(inputs: int) -> list[nn.Module]:
    return [
        layer.Flatten(step_mode="m"),
        layer.Linear(inputs, 10, bias=False, step_mode="m"),
        fires(),
    ]


def shallow() -> nn.Sequential:
    """2x34x34-12c5-p2-32c5-p2-10."""
    return nn.Sequential(
        conv(2, 12, 5), fires(), pool(), conv(12, 32, 5), fires(), pool(), *ends(800)
    )


def deep(channels: int, places: int) -> nn.Sequential:
    """Five 3 x 3 convolutions, pooled after the second and the fourth, and a linear layer."""
    layers: list[nn.Module] = []
    for number in range(5):
        layers += [conv(channels if number else 2, channels, 3, 1), fires()]
        layers += [pool()] if number in (1, 3) else []
    return nn.Sequential(*layers, *ends(channels * places))


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...], int, int]] = {
    "2x34x34-12c5-p2-32c5-p2-10": (shallow, (2, 34, 34), 100, 64),
    "2x32x32, five 3x3 of 64": (lambda: deep(64, 64), (2, 32, 32), 16, 64),
}


def prepared(make: Callable[[], nn.Sequential], x: torch.Tensor) -> nn.Sequential:
    """Return a network without its small weights, every layer of which fires."""
    torch.manual_seed(0)
    net = make().eval()
    weighted: Any = None
    for module in net:
        if isinstance(module, neuron.LIFNode):
            current, low, high = x / x.std(), 0.01, 300.0
            for _ in range(12):
                middle = (low * high) ** 0.5
                module.reset()
                often = float(module(current * middle).mean())
                low, high = (middle, high) if often < FIRING else (low, middle)
            weighted.weight.data *= middle / x.std()
            module.reset()
            x = module(current * middle)
        elif hasattr(module, "weight"):
            weighted, size = module, module.weight.abs().flatten()
            module.weight.data[
                module.weight.abs() <= size.kthvalue(int(SPARSITY * len(size)))[0]
            ] = 0
            x = module(x)
        else:
            x = module(x)
    functional.reset_net(net)
    return net


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(function: Callable[[], object], times: int = 5) -> tuple[float, float]:
    """Return the shortest time and the least processor time."""
    wall, processor = [], []
    for _ in range(times):
        start, used = time.perf_counter(), spent()
        function()
        wall.append(time.perf_counter() - start)
        processor.append(spent() - used)
    return min(wall), min(processor)


@torch.no_grad()
def bench(name: str, rate: float) -> dict[str, Any]:
    make, shape, steps, n = NETWORKS[name]
    rng = np.random.default_rng(0)
    spikes = (rng.random((n, steps, *shape)) < rate).astype(np.uint8)
    x = torch.tensor(spikes.swapaxes(0, 1).copy(), dtype=torch.float32)
    net = prepared(make, x[:, :2])
    done = deploy(
        net, spikes[:2], target="loihi2-sim", method="magnitude", sparsity=SPARSITY, bits=8,
        tune=False, backend="engine", backend_samples=0,
    )  # fmt: skip
    network = done.lowered.network
    ours = timed(lambda: run(network, spikes))

    def forward(batch: int) -> None:
        for start in range(0, n, batch):
            functional.reset_net(net)
            net(x[:, start : start + batch])

    forward(n)
    theirs = {batch: timed(lambda batch=batch: forward(batch), 2) for batch in (1, n)}
    best = min(theirs, key=lambda batch: theirs[batch])
    seen = run(network, spikes)
    return {
        "input": rate,
        "fires": {k: round(a.rate, 4) for k, a in seen.activity.items()},
        "engine_s": ours[0] / n,
        "engine_cpu_s": ours[1] / n,
        "torch_s": theirs[best][0] / n,
        "torch_cpu_s": theirs[best][1] / n,
        "torch_batch": best,
        "ratio": theirs[best][0] / ours[0],
        "cpu_ratio": theirs[best][1] / ours[1],
    }


def main() -> None:
    torch.set_num_threads(2)
    results = {}
    print("| network | input | engine (CPU) | torch (CPU) | ratio (CPU) |\n|---|---|---|---|---|")
    for name in NETWORKS:
        for rate in (0.05, 0.1):
            r = results[f"{name}, {rate:.0%}"] = bench(name, rate)
            ours, theirs = (
                f"{r[f'{who}_s'] * 1e3:.2f} ({r[f'{who}_cpu_s'] * 1e3:.2f}) ms"
                for who in ("engine", "torch")
            )
            ratio = f"{r['ratio']:.1f} ({r['cpu_ratio']:.1f})"
            print(f"| {name} | {rate:.0%} | {ours} | {theirs} | {ratio} |", flush=True)
    path = Path(__file__).parent / "results" / "engine_torch.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
