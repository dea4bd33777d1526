"""Accuracy and time against magnitude, rounding to nearest and OBC.

    python benchmarks/accuracy.py [--data FOLDER] [--only TEXT] [--methods LIST]
        [--settings "0.97/8 0/3"] [--keep]

The bundled networks on two camera seeds, and the 2312-800-10 network when its folder is there.
Test samples are only measured on; what is chosen, is chosen on calibration samples. "exact greedy"
removes one weight after the other from all layers, as the paper does, however long that takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from _accuracy import Clock, Meter, Task, bundled, layers, parser, read, saccade, table, write

from osbc_deploy.compress import CompressedProjection, CompressionOptions, compress, ranking
from osbc_deploy.compress.allocation import lamps_allocation
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.layer import prune_layer, quantize_layer, rank_layer
from osbc_deploy.compress.network import assemble
from osbc_deploy.compress.quantize import choose_scales, levels, round_to_grid, search_scales
from osbc_deploy.compress.result import CompressedNetwork, adapted
from osbc_deploy.model.graph import Network

PRUNE = [(0.9, 8), (0.95, 8), (0.97, 8), (0.98, 8), (0.9, 4), (0.97, 4)]
QUANTIZE = [(0.0, 4), (0.0, 3), (0.0, 2)]
METHODS = {
    "osbc, tuned": CompressionOptions(),
    "osbc": CompressionOptions(tune=False),
    "obc, tuned": CompressionOptions(method="obc"),
    "obc": CompressionOptions(method="obc", tune=False),
    "magnitude": CompressionOptions(method="magnitude", tune=False),
    "exact greedy": CompressionOptions(tune=False),
}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--only", default="", help="tasks whose name holds this")
    arguments.add_argument("--methods", default=";".join(METHODS), help="such as 'osbc, tuned;obc'")
    add_settings(arguments)
    arguments.add_argument("--keep", action="store_true", help="other results of before stay")
    given = arguments.parse_args()
    found = read("accuracy").get("tasks", {}) if given.keep else {}
    for task in tasks(given.data, given.only):
        chosen = {m: METHODS[m] for m in given.methods.split(";")}
        done = bench(task, chosen, settings(given))
        found[task.name] = found.get(task.name, {}) | done
        write("accuracy", {"tasks": found})


def add_settings(arguments: argparse.ArgumentParser) -> None:
    every = " ".join(f"{sparsity}/{bits}" for sparsity, bits in PRUNE + QUANTIZE)
    arguments.add_argument("--settings", default=every, help="sparsity/bits, such as '0.97/8 0/3'")


def settings(given: argparse.Namespace) -> list[tuple[float, int]]:
    pairs = [setting.split("/") for setting in given.settings.split()]
    return [(float(sparsity), int(bits)) for sparsity, bits in pairs]


def tasks(data: Path, only: str) -> Iterator[Task]:
    for model in ("digits_conv", "digits_mlp"):
        for seed in (0, 1):
            if only in f"{model}, camera seed {seed}":
                yield bundled(model, seed)
    if only in "saccade-mnist" and data.is_dir():
        yield saccade(data)


def bench(
    task: Task,
    methods: dict[str, CompressionOptions],
    wanted: Sequence[tuple[float, int]],
) -> dict[str, object]:
    meter = Meter(task)
    n = len(task.test)
    print(f"\n{task.name}: float {meter.accuracy:.2%} of {n} test samples")
    results: dict[str, object] = {"float": meter.accuracy, "samples": n}
    rows = []
    greedy = Greedy(task) if "exact greedy" in methods else None
    for sparsity, bits in wanted:
        name = named(sparsity, bits)
        row = [name]
        for method, options in methods.items():
            if method in ("magnitude", "exact greedy") and not sparsity:
                row.append("")
                continue
            asked = replace(options, sparsity=sparsity, bits=bits)
            with Clock() as clock:
                done = (
                    greedy.compress(asked)
                    if greedy and method == "exact greedy"
                    else compress(task.network, task.calibration, asked)
                )
            measured = meter.measure(done.network)
            results[f"{name}, {method}"] = {
                **measured,
                "seconds": clock.seconds,
                "layers": layers(done),
            }
            row.append(cell(measured))
            print(name, method, row[-1], f"{clock.seconds:.1f} s", flush=True)
        if not sparsity:
            for searched in (False, True):
                kind = "searched" if searched else "max-abs"
                measured = meter.measure(nearest(task.network, bits, searched=searched))
                results[f"{name}, nearest, {kind} scale"] = measured
                row.append(cell(measured))
        else:
            row += ["", ""]
        rows.append(row)
    table(["points lost", *methods, "nearest, max-abs", "nearest, searched"], rows)
    return results


def named(sparsity: float, bits: int) -> str:
    """Return a setting as the tables call it, such as "97% + 4 bit"."""
    parts = (f"{sparsity:.0%}" if sparsity else "", f"{bits} bit" if bits < 8 else "")
    return " + ".join(part for part in parts if part)


class Greedy:
    """Exact greedy elimination of all weights of a network, once for all sparsities."""

    def __init__(self, task: Task) -> None:
        self._network = task.network
        self._statistics = collect(task.network, task.calibration, CompressionOptions())
        # However large the layer is.
        ranking._EXACT_WORK, before = np.inf, ranking._EXACT_WORK
        with Clock() as clock:
            self._rankings = [rank_layer(p, p.size) for p in self._statistics.problems]
        ranking._EXACT_WORK = before
        print(f"exact greedy: {clock.seconds:.0f} s", flush=True)

    def compress(self, options: CompressionOptions) -> CompressedNetwork:
        weights = [p.original for p in self._statistics.problems]
        results = {}
        for problem, ranked, keep in zip(
            self._statistics.problems,
            self._rankings,
            lamps_allocation(weights, options.sparsity),
            strict=True,
        ):
            pruned = prune_layer(problem, keep, ranked)
            (layer,) = quantize_layer(problem, pruned, [options.bits], options.scale_groups)
            results |= {p.name: p for p in layer}
        return assemble(self._network, results, options, self._statistics)


def cell(measured: dict[str, float]) -> str:
    return f"{measured['drop_points']:.2f} ± {measured['standard_error']:.2f}"


def nearest(network: Network, bits: int, *, searched: bool) -> Network:
    """Round to nearest with a scale for each output: the largest weight's, or of least error."""
    rounded = {}
    for p in network.projections:
        W = p.connection.weight.reshape(len(p.connection.weight), -1).astype(np.float64)
        scale = np.abs(W).max(axis=1) / levels(bits)
        if searched:
            everything = np.ones(W.shape, bool)
            scale = choose_scales(*search_scales(W, everything, np.ones(W.shape[1]), bits), 8)
        codes = round_to_grid(W, scale[:, None], bits).reshape(p.connection.weight.shape)
        losses = {"pruned": 0.0, "total": 0.0}
        rounded[p.name] = CompressedProjection(
            p.name, codes, scale, bits, W.size, losses, "none", 0
        )
    return adapted(network, rounded)


if __name__ == "__main__":
    main()
