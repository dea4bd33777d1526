"""The engine against Lava on the same networks and samples, in one run, bits compared.

    python benchmarks/engine_speed.py [--lava-samples 6] [--beside FOLDER]

T = 300 steps, 5 % input spikes. The engine runs a batch of 128 on all cores; Lava runs some of the
same samples in one run, start and compilation not counted, with whichever of its Dense and Sparse
is faster. Latency is one sample alone, for Lava in a run that is already compiled. FOLDER holds the
sources of another commit, whose engine runs the same samples right after, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import osbc_backend_lava.backend as lava
from osbc_deploy.arrays import IntArray
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
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--engine-alone", choices=NETWORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine_alone:
        print(json.dumps(engine_alone(given.engine_alone)))
        return
    few = given.lava_samples
    results = {}
    print(f"{os.cpu_count()} cores, T = {STEPS}, {RATE:.0%} input, batch {BATCH}")
    print("| network | engine (CPU) | before | plain | Lava | ratio | latency | ratio | bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        results[name] = bench(name, few, given.beside)
    path = Path(__file__).parent / "results" / "engine_speed.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def drawn(name: str) -> tuple[FixedPointNetwork, IntArray]:
    """Return a network and samples."""
    rng = np.random.default_rng(0)
    network = NETWORKS[name][0](rng)
    return network, (rng.random((BATCH, STEPS, *network.input_shape)) < RATE).astype(np.uint8)


def engine_alone(name: str) -> dict[str, object]:
    """Time the engine of whichever sources are imported."""
    network, spikes = drawn(name)
    run(network, spikes[:2])  # load the compiled kernels
    batch = [timed(lambda: run(network, spikes)) for _ in range(3)]
    alone = min(timed(lambda: run(network, spikes[:1]))[0] for _ in range(5))
    return {
        "engine_s": min(wall for wall, _ in batch) / BATCH,
        "engine_cpu_s": min(used for _, used in batch) / BATCH,
        "latency_s": alone,
        "output": run(network, spikes).fingerprint(),
    }


def of_sources(folder: Path, name: str) -> dict[str, object]:
    """Time the engine of other sources."""
    paths = os.pathsep.join(str(folder / part) for part in (".", "backends"))
    command = [sys.executable, __file__, "--engine-alone", name]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True, text=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def bench(name: str, few: int, beside: Path | None) -> dict[str, object]:
    found_here: dict[str, Any] = engine_alone(name)
    before: dict[str, Any] = of_sources(beside, name) if beside else {}
    engine, alone = found_here["engine_s"], found_here["latency_s"]
    network, spikes = drawn(name)
    forms = NETWORKS[name][1]
    names = [p.name for p in network.populations]
    plain = timed(lambda: run(network, spikes[:8], kernels="plain"))[0] / 8
    ours = run(network, spikes[:few], record=names, states=names)
    found, same = {}, True
    for form, below in forms.items():
        watch = Stopwatch()
        job = lava.LavaJob(network, spikes[:few], (), below)
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
    same &= before.get("output", found_here["output"]) == found_here["output"]
    faster = f"{before['engine_s'] * 1e3:.2f} ms" if before else "-"
    print(
        f"| {name} | {engine * 1e3:.2f} ({found_here['engine_cpu_s'] * 1e3:.2f}) ms | {faster} "
        f"| {plain * 1e3:.0f} ms | {found[form]:.2f} s ({form}) | {found[form] / engine:.0f} "
        f"| {alone * 1e3:.1f} ms | {found[form] / alone:.0f} | {'equal' if same else 'DIFFER'} |",
        flush=True,
    )
    return {
        **found_here,
        "before": before,
        "plain_s": plain,
        "lava_s": found,
        "ratio": found[form] / engine,
        "latency_ratio": found[form] / alone,
        "equal": same,
    }


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Return the time that a call takes, and the processor time."""
    start, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - used


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


def conv(rng: np.random.Generator, density: float = 1.0) -> FixedPointNetwork:
    vth = 800 if density == 1.0 else 200

    def kernel(post: int, pre: int) -> FixedConv:
        weight = 2 * rng.integers(-128, 128, (post, pre, 5, 5))
        if density < 1.0:
            weight *= rng.random(weight.shape) < density
        return FixedConv(weight, (1, 1), (0, 0), (1, 1), 1)

    def pool(channels: int) -> FixedConv:
        return FixedConv(np.full((channels, 1, 2, 2), 64), (2, 2), (0, 0), (1, 1), channels)

    return chain(
        (2, 34, 34),
        (kernel(12, 2), -1, vth),
        (pool(12), 0, 60),
        (kernel(32, 12), -1, vth),
        (pool(32), 0, 60),
        (FixedDense(2 * rng.integers(-128, 128, (10, 800))), -1, 2000),
    )


NETWORKS: dict[str, tuple[Callable[[np.random.Generator], FixedPointNetwork], dict[str, float]]] = {
    "2312-800-10, 90 % sparse": (lambda rng: mlp(rng, 0.1), {"Dense": 0.0, "Sparse": 2.0}),
    "2312-800-10, dense": (lambda rng: mlp(rng, 1.0), {"Dense": 0.0}),
    "conv 2x34x34-12c5-p2-32c5-p2-10": (conv, {"Conv": 0.0}),
    "the same, 90 % sparse": (lambda rng: conv(rng, 0.1), {"Conv": 0.0}),
}


if __name__ == "__main__":
    main()
