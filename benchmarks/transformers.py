"""Two small spiking transformers at 80 % sparsity and 4 bits: points lost by method, two seeds.

    python benchmarks/transformers.py [--epochs 15] [--keep FOLDER] [--minutes M]

Rounding to nearest alone keeps all weights. Training takes some minutes for each model and seed on
one core, and so do tuned methods; --keep holds what was trained and measured, so that the same call
goes on where --minutes, or an interruption, stopped the last.
"""

from __future__ import annotations

import argparse
import json
import time
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
    "OSBC, auto": {},
    "OSBC": {"allocation": "lamps"},
    "OSBC, global, plain": {"allocation": "global", "tune": False},
    "OSBC, plain": {"tune": False},
    "OBC, plain": {"method": "obc", "tune": False},
    "magnitude and nearest": {"method": "magnitude"},
    "nearest, 0 % sparsity": {"method": "magnitude", "sparsity": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    stop = time.monotonic() + 60 * given.minutes
    torch.set_num_threads(1)
    calibration, _ = frames("calibration")
    test = tuple(part.numpy() for part in frames("test"))
    kept = given.keep and given.keep / f"measured-{given.epochs}.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    rows = []
    for name, kind in MODELS.items():
        for seed in SEEDS:
            model = None
            for method, options in METHODS.items():
                runs = results.setdefault(f"{name} / {method}", [])
                if any(run["seed"] == seed for run in runs):
                    continue
                if time.monotonic() > stop:
                    raise SystemExit("time is up; the same call goes on")
                if model is None:
                    path = given.keep and given.keep / f"{kind.__name__}-{seed}-{given.epochs}.pt"
                    model = _model(name, seed, given.epochs, path)
                done = osbc_deploy.compress_model(
                    model, calibration.numpy(), test=test, **{"sparsity": 0.8, "bits": 4, **options}
                )
                entry = {
                    "seed": seed,
                    "float": done.accuracy.float_,
                    "compressed": done.accuracy.compressed,
                    "sparsity": done.sparsity,
                }
                runs.append(entry)
                print(name, method, entry, flush=True)
                if kept:
                    kept.write_text(json.dumps(results, indent=1) + "\n")
    for key, runs in results.items():
        lost = [100 * (run["float"] - run["compressed"]) for run in runs]
        rows.append([key, *(f"{run['float']:.2%}" for run in runs), *(f"{x:.2f}" for x in lost),
                     f"{np.mean(lost):.2f}"])  # fmt: skip
    names = ["model / method", *(f"float, seed {s}" for s in SEEDS)]
    table([*names, *(f"points lost, seed {s}" for s in SEEDS), "mean"], rows)
    write("transformers", results)


def _model(name: str, seed: int, epochs: int, path: Path | None) -> torch.nn.Module:
    """Return a trained model, which `path` keeps."""
    if path is None or not path.is_file():
        model = trained(name, seed, epochs)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), path)
        return model
    model = MODELS[name]().eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


if __name__ == "__main__":
    main()
