"""Points lost by the 2312-800-10 network, by calibration set: four fifths of the samples at a time.

    python benchmarks/accuracy_folds.py [--data FOLDER] [--settings "0.97/8 0/3"] [--keep]

One calibration set gives one draw of the points lost; five overlapping ones show how much of it is
chance. The mean over them is what a user may expect who has other samples.
"""

from __future__ import annotations

import numpy as np
from _accuracy import Meter, parser, read, saccade, table, write
from accuracy import add_settings, named, settings

from osbc_deploy.compress import CompressionOptions, compress

FOLDS = 5


def main() -> None:
    arguments = parser(__doc__ or "")
    add_settings(arguments)
    arguments.add_argument("--keep", action="store_true", help="what was measured before stays")
    given = arguments.parse_args()
    task = saccade(given.data)
    meter = Meter(task)
    held = np.arange(len(task.calibration)) % FOLDS
    rows = []
    found = read("accuracy_folds").get("settings", {}) if given.keep else {}
    for sparsity, bits in settings(given):
        options = CompressionOptions(sparsity=sparsity, bits=bits)
        name = named(sparsity, bits)
        measured = found.setdefault(name, [])
        for fold in range(len(measured), FOLDS):
            done = compress(task.network, task.calibration[held != fold], options)
            measured.append(meter.measure(done.network))
            write("accuracy_folds", {"float": meter.accuracy, "settings": found}, quiet=True)
        lost = [m["drop_points"] for m in measured]
        rows.append(
            [
                name,
                *(f"{points:.2f}" for points in lost),
                f"{np.mean(lost):.2f}",
                f"{np.mean([m['standard_error'] for m in measured]):.2f}",
            ]
        )
        print(*rows[-1], flush=True)
    folds = [f"without fold {fold}" for fold in range(FOLDS)]
    table(["points lost", *folds, "mean", "standard error of one"], rows)


if __name__ == "__main__":
    main()
