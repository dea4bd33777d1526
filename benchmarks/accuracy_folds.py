"""Points lost by the 2312-800-10 network, by calibration set: four fifths of the samples at a time.

    python benchmarks/accuracy_folds.py [--data FOLDER] [--settings "0.97/8 0/3"] [--keep]
        [--digits FOLDER]

One calibration set gives one draw of the points lost; five overlapping ones show how much of it is
chance. The mean over them is what a user may expect who has other samples. With MNIST's test digits
in ``--digits``, as torchvision keeps them, the same networks answer to 10,000 more samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from _accuracy import Meter, parser, read, saccade, table, write
from _digits import mnist_events
from accuracy import add_settings, named, settings

from osbc_deploy.compress import CompressionOptions, compress

FOLDS = 5


def main() -> None:
    arguments = parser(__doc__ or "")
    add_settings(arguments)
    arguments.add_argument("--keep", action="store_true", help="what was measured before stays")
    arguments.add_argument("--digits", type=Path, help="MNIST/raw/t10k-* are in it")
    given = arguments.parse_args()
    task = saccade(given.data)
    meters = {"1250 samples": Meter(task)}
    if given.digits:
        events, labels = mnist_events(given.digits)
        meters["10,000 digits"] = Meter(replace(task, test=events, labels=labels))
    held = np.arange(len(task.calibration)) % FOLDS
    floats = {kind: meter.accuracy for kind, meter in meters.items()}
    print("float:", *(f"{kind} {accuracy:.2%}" for kind, accuracy in floats.items()))
    rows = []
    found = read("accuracy_folds").get("settings", {}) if given.keep else {}
    for sparsity, bits in settings(given):
        options = CompressionOptions(sparsity=sparsity, bits=bits)
        name = named(sparsity, bits)
        measured = found.setdefault(name, [])
        for fold in range(len(measured), FOLDS):
            done = compress(task.network, task.calibration[held != fold], options)
            measured.append({kind: meter.measure(done.network) for kind, meter in meters.items()})
            write("accuracy_folds", {"float": floats, "settings": found}, quiet=True)
        rows += [row(name, kind, [m[kind] for m in measured]) for kind in meters]
        print(*rows[-len(meters) :], sep="\n", flush=True)
    folds = [f"without fold {fold}" for fold in range(FOLDS)]
    table(["points lost", "of", *folds, "mean", "standard error of one"], rows)


def row(name: str, kind: str, measured: Sequence[Mapping[str, float]]) -> list[str]:
    lost = [m["drop_points"] for m in measured]
    return [
        name,
        kind,
        *(f"{points:.2f}" for points in lost),
        f"{np.mean(lost):.2f}",
        f"{np.mean([m['standard_error'] for m in measured]):.2f}",
    ]


if __name__ == "__main__":
    main()
