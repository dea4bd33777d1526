"""Two small spiking transformers at 80 % sparsity and 4 bits: points lost by method, two seeds.

    python benchmarks/transformers.py [--epochs 15] [--keep FOLDER]

Training takes some minutes for each model and seed on one core; --keep holds what was trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _accuracy import table, write
from _transformers import MODELS, frames, trained

import osbc_deploy

SEEDS = (0, 1)
METHODS: dict[str, dict[str, Any]] = {
    "OSBC, global": {"allocation": "global"},
    "OSBC": {},
    "OSBC, global, plain": {"allocation": "global", "tune": False},
    "OSBC, plain": {"tune": False},
    "OBC, plain": {"method": "obc", "tune": False},
    "magnitude and nearest": {"method": "magnitude"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    calibration, _ = frames("calibration")
    test = tuple(part.numpy() for part in frames("test"))
    results: dict[str, Any] = {}
    rows = []
    for name, kind in MODELS.items():
        for seed in SEEDS:
            model = kind().eval()
            path = given.keep and given.keep / f"{kind.__name__}-{seed}-{given.epochs}.pt"
            if path and path.is_file():
                model.load_state_dict(torch.load(path, weights_only=True))
            else:
                model = trained(name, seed, given.epochs)
                if path:
                    torch.save(model.state_dict(), path)
            for method, options in METHODS.items():
                done = osbc_deploy.compress_model(
                    model, calibration.numpy(), test=test, sparsity=0.8, bits=4, **options
                )
                entry = {
                    "seed": seed,
                    "float": done.accuracy.float_,
                    "compressed": done.accuracy.compressed,
                    "sparsity": done.sparsity,
                }
                key = f"{name} / {method}"
                results.setdefault(key, []).append(entry)
                print(key, entry, flush=True)
    for key, runs in results.items():
        lost = [100 * (run["float"] - run["compressed"]) for run in runs]
        rows.append([key, *(f"{run['float']:.2%}" for run in runs), *(f"{x:.2f}" for x in lost),
                     f"{np.mean(lost):.2f}"])  # fmt: skip
    names = ["model / method", *(f"float, seed {s}" for s in SEEDS)]
    table([*names, *(f"points lost, seed {s}" for s in SEEDS), "mean"], rows)
    write("transformers", results)


if __name__ == "__main__":
    main()
