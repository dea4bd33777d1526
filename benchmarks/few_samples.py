"""What copies of few calibration samples are good for, by how many samples there are.

    python benchmarks/few_samples.py [--sizes 20 40 60 100 200]

The bundled ``digits_mlp``, 800 inputs, on camera seeds 0 and 1, compressed on some of its 200
calibration samples (two draws of each number) at 90 and 97 % and 8 bits, with ``--augment none``
and ``shifts``. Points lost, and the squared error of the output's spike counts relative to their
square, are means over seeds and draws on 400 test samples.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _accuracy import Meter, Task, bundled, table, write

from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

WAYS = ("none", "shifts")
SPARSITIES = (0.9, 0.97)


def counts(network: Network, task: Task) -> np.ndarray:
    return simulate(network, task.test, batch_size=128).output.sum(axis=1, dtype=np.float64)


def measured(task: Task, meter: Meter, wanted: np.ndarray, size: int, **asked: Any) -> np.ndarray:
    """Return points lost and error, of each draw."""
    found = []
    for draw in range(2):
        rng = np.random.default_rng([23, draw])
        chosen = np.sort(rng.permutation(len(task.calibration))[:size])
        options = CompressionOptions(bits=8, **asked)
        done = compress(task.network, task.calibration[chosen], options).network
        error = ((counts(done, task) - wanted) ** 2).mean() / (wanted**2).mean()
        found.append((meter.measure(done)["drop_points"], float(error)))
    return np.array(found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[20, 40, 60, 100, 200])
    given = arguments.parse_args()
    tasks = [bundled("digits_mlp", seed) for seed in (0, 1)]
    meters = [Meter(task) for task in tasks]
    wanted = [counts(task.network, task) for task in tasks]
    rows, kept = [], []
    for sparsity in SPARSITIES:
        for size in given.sizes:
            row = [f"{sparsity:.0%}", str(size)]
            for way in WAYS:
                asked = {"sparsity": sparsity, "augment": way}
                cells = np.concatenate(
                    [
                        measured(task, meter, float_, size, **asked)
                        for task, meter, float_ in zip(tasks, meters, wanted, strict=True)
                    ]
                )
                points, error = cells.mean(axis=0)
                row += [f"{points:.2f}", f"{error:.4f}"]
                kept.append({**asked, "samples": size, "points": points, "error": error})
            rows.append(row)
            print(*row, flush=True)
    write("few_samples", {"rows": kept})
    header = ["removed", "samples", "points lost, as they are", "error", "with copies", "error"]
    table(header, rows)


if __name__ == "__main__":
    main()
