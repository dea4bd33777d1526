"""The engine against Lava on the same networks and samples, in one run, bits compared.

    python benchmarks/engine_speed.py [--lava-samples 6]

T = 300 steps, 5 % input spikes. The engine runs a batch of 128 on all cores; Lava runs some of the
same samples in one run, start and compilation not counted, with whichever of its Dense and Sparse
is faster. Latency is one sample alone, for Lava in a run that is already compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

import osbc_backend_lava.backend as lava
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    run,
)
from osbc_deploy.progress import Silent

STEPS, RATE, BATCH = 300, 0.05, 128
FORMATS = load_target("loihi2-sim").number_formats


class Stopwatch(Silent):
    """Notes when each sample of a Lava run is done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def advance(self, steps: int = 1) -> None:
        """Take the time."""
        self.times += [time.perf_counter()] * steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lava-samples", type=int, default=6)
    few = parser.parse_args().lava_samples
    rng = np.random.default_rng(0)
    results = {}
    print(f"{os.cpu_count()} cores, T = {STEPS}, {RATE:.0%} input, batch {BATCH}")
    print("| network | engine | plain NumPy | Lava | ratio | latency | Lava | ratio | bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, network, forms in (
        ("2312-800-10, 90 % sparse", mlp(rng, 0.1), {"Dense": 0.0, "Sparse": 2.0}),
        ("2312-800-10, dense", mlp(rng, 1.0), {"Dense": 0.0}),
        ("conv 2x34x34-12c5-p2-32c5-p2-10", conv(rng), {"Conv": 0.0}),
    ):
        results[name] = bench(name, network, forms, few, rng)
    path = Path(__file__).parent / "results" / "engine_speed.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def bench(
    name: str,
    network: FixedPointNetwork,
    forms: dict[str, float],
    few: int,
    rng: np.random.Generator,
) -> dict[str, object]:
    spikes = (rng.random((BATCH, STEPS, *network.input_shape)) < RATE).astype(np.uint8)
    names = [p.name for p in network.populations]
    run(network, spikes[:2])  # load the compiled kernels
    engine = min(timed(lambda: run(network, spikes)) for _ in range(3)) / BATCH
    alone = min(timed(lambda: run(network, spikes[:1])) for _ in range(5))
    plain = timed(lambda: run(network, spikes[:32], kernels="plain")) / 32
    ours = run(network, spikes[:few], record=names, states=names)
    found, same = {}, True
    for form, below in forms.items():
        watch = Stopwatch()
        job = lava.Job(network, spikes[:few], (), below)
        theirs = lava.BACKEND.run_many([job], 3600.0, watch)[0]
        same &= all(np.array_equal(ours.spikes[n], theirs.spikes[n]) for n in names)
        # From the end of the first sample on: neither start nor compilation counts.
        found[form] = (watch.times[-1] - watch.times[0]) / (few - 1)
    states = lava.BACKEND.run(
        network, spikes[:1], time_limit=3600.0, progress=Stopwatch(), states=names
    )
    same &= all(
        np.array_equal(getattr(ours, k)[n][:1], getattr(states, k)[n]) for k in "uv" for n in names
    )
    form = min(found, key=lambda key: found[key])
    print(
        f"| {name} | {engine * 1e3:.2f} ms | {plain * 1e3:.0f} ms | {found[form]:.2f} s ({form}) "
        f"| {found[form] / engine:.0f} | {alone * 1e3:.1f} ms | {found[form]:.2f} s "
        f"| {found[form] / alone:.0f} | {'equal' if same else 'DIFFER'} |",
        flush=True,
    )
    return {
        "engine_s": engine,
        "plain_s": plain,
        "lava_s": found,
        "ratio": found[form] / engine,
        "latency_s": alone,
        "latency_ratio": found[form] / alone,
        "equal": same,
    }


def timed(function: object) -> float:
    start = time.perf_counter()
    function()  # type: ignore[operator]
    return time.perf_counter() - start


def population(name: str, shape: tuple[int, ...], vth: int) -> FixedPopulation:
    zero = np.zeros(int(np.prod(shape)), int)
    return FixedPopulation(
        name, shape, zero + 1000, zero + 300, zero + vth, zero, zero, zero, zero, True,
        zero + 1.0, zero + 0.0,
    )  # fmt: skip


def chain(input_shape: tuple[int, ...], *layers: tuple[object, int, int]) -> FixedPointNetwork:
    populations, projections, pre, shape = [], [], "input", input_shape
    for number, (connection, exponent, vth) in enumerate(layers):
        name = f"layer{number}"
        shape = connection.output_shape(shape)  # type: ignore[attr-defined]
        projections.append(
            FixedProjection(f"to {name}", pre, name, connection, 8, exponent)  # type: ignore[arg-type]
        )
        populations.append(population(name, shape, vth))
        pre = name
    return FixedPointNetwork(input_shape, tuple(populations), tuple(projections), FORMATS, "sum")


def mlp(rng: np.random.Generator, density: float) -> FixedPointNetwork:
    def dense(post: int, pre: int) -> FixedDense:
        return FixedDense(
            2 * rng.integers(-128, 128, (post, pre)) * (rng.random((post, pre)) < density)
        )

    return chain((2312,), (dense(800, 2312), -1, 4000), (dense(10, 800), -1, 4000))


def conv(rng: np.random.Generator) -> FixedPointNetwork:
    def kernel(post: int, pre: int) -> FixedConv:
        return FixedConv(2 * rng.integers(-128, 128, (post, pre, 5, 5)), (1, 1), (0, 0), (1, 1), 1)

    def pool(channels: int) -> FixedConv:
        return FixedConv(np.full((channels, 1, 2, 2), 64), (2, 2), (0, 0), (1, 1), channels)

    return chain(
        (2, 34, 34),
        (kernel(12, 2), -1, 800),
        (pool(12), 0, 60),
        (kernel(32, 12), -1, 800),
        (pool(32), 0, 60),
        (FixedDense(2 * rng.integers(-128, 128, (10, 800))), -1, 2000),
    )


if __name__ == "__main__":
    main()
