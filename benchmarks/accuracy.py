"""Accuracy and time against magnitude, rounding to nearest and OBC.

    python benchmarks/accuracy.py [--data FOLDER] [--only TEXT]

The bundled networks on two camera seeds, and the 2312-800-10 network when its folder is there.
Test samples are only measured on; what is chosen, is chosen on calibration samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from _accuracy import Clock, Meter, Task, bundled, layers, parser, saccade, table, write

from osbc_deploy.compress import CompressedProjection, CompressionOptions, compress
from osbc_deploy.compress.quantize import choose_scales, levels, round_to_grid, search_scales
from osbc_deploy.compress.tuning import adapted
from osbc_deploy.network.graph import Network

PRUNE = [(0.9, 8), (0.95, 8), (0.97, 8), (0.98, 8), (0.9, 4), (0.97, 4)]
QUANTIZE = [(0.0, 4), (0.0, 3), (0.0, 2)]
METHODS = {
    "osbc, tuned": CompressionOptions(),
    "osbc": CompressionOptions(tune=False),
    "obc, tuned": CompressionOptions(method="obc"),
    "obc": CompressionOptions(method="obc", tune=False),
    "magnitude": CompressionOptions(method="magnitude", tune=False),
}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--only", default="", help="tasks whose name holds this")
    arguments.add_argument("--methods", default=";".join(METHODS), help="such as 'osbc, tuned;obc'")
    given = arguments.parse_args()
    found = {}
    for task in tasks(given.data, given.only):
        found[task.name] = bench(task, {m: METHODS[m] for m in given.methods.split(";")})
        write("accuracy", {"tasks": found})


def tasks(data: object, only: str):  # type: ignore[no-untyped-def]
    for model in ("digits_conv", "digits_mlp"):
        for seed in (0, 1):
            if only in f"{model}, camera seed {seed}":
                yield bundled(model, seed)
    if only in "saccade-mnist" and data.is_dir():  # type: ignore[attr-defined]
        yield saccade(data)  # type: ignore[arg-type]


def bench(
    task: Task,
    methods: dict[str, CompressionOptions],
    settings: Sequence[tuple[float, int]] = (*PRUNE, *QUANTIZE),
) -> dict[str, object]:
    meter = Meter(task)
    n = len(task.test)
    print(f"\n{task.name}: float {meter.accuracy:.2%} of {n} test samples")
    results: dict[str, object] = {"float": meter.accuracy, "samples": n}
    rows = []
    for sparsity, bits in settings:
        name = " + ".join(
            part
            for part in (f"{sparsity:.0%}" if sparsity else "", f"{bits} bit" if bits < 8 else "")
            if part
        )
        row = [name]
        for method, options in methods.items():
            if method == "magnitude" and not sparsity:
                continue
            asked = replace(options, sparsity=sparsity, bits=bits)
            with Clock() as clock:
                done = compress(task.network, task.calibration, asked)
            measured = meter.measure(done.network)
            results[f"{name}, {method}"] = {
                **measured,
                "seconds": clock.seconds,
                "layers": layers(done),
            }
            row.append(cell(measured))
            print(name, method, row[-1], f"{clock.seconds:.1f} s", flush=True)
        if not sparsity:
            row.append("")
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
