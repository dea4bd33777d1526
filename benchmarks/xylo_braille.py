"""Two networks trained on touch, deployed on Xylo: what each step costs, and xylosim beside it.

    python benchmarks/xylo_braille.py braille7_events.npz [--only norse] [--keep FOLDER]

A recurrent network of snnTorch and one of norse (see _xylo_models.py) read Braille letters from 12
sensors. Each is verified with all weights in 8 bits and with half of them in 4 bits. --keep takes
and leaves trained weights in FOLDER. The result is written to results/xylo_braille.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _xylo_models import letters, norse_net, snntorch_net, train

import osbc_deploy

RESULT = Path(__file__).parent / "results" / "xylo_braille.json"
NETWORKS = {"snntorch": snntorch_net, "norse": norse_net}
SETTINGS = ((0.0, 8), (0.5, 4))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    training, test = letters(given.data)
    rows = []
    for name in [given.only] if given.only else NETWORKS:
        model = NETWORKS[name]()
        kept = None if given.keep is None else given.keep / f"{name}.pt"
        if kept is not None and kept.is_file():
            model.load_state_dict(torch.load(kept, weights_only=True))
            model.eval()
        else:
            model = train(model, training)
            if kept is not None:
                torch.save(model.state_dict(), kept)
        for sparsity, bits in SETTINGS:
            done = osbc_deploy.verify(
                model, training, test=test, target="xylo-audio2", sparsity=sparsity, bits=bits,
                tune=False, backend="xylo", backend_samples=32,
            )  # fmt: skip
            rows.append(row(name, sparsity, bits, done))
            print(json.dumps(rows[-1]), flush=True)
    if not given.only:
        RESULT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def row(name: str, sparsity: float, bits: int, done: Any) -> dict[str, Any]:
    accuracy = done.deployment.accuracy
    bits_seen = done.backend
    return {
        "network": name,
        "sparsity": sparsity,
        "bits": bits,
        "samples": accuracy.samples,
        "float": accuracy.float_,
        "compressed": accuracy.compressed,
        "xylo": accuracy.fixed_point,
        "agreement": accuracy.agreement,
        "memory_bytes": done.deployment.mapping.words,
        "compared_with_xylosim": bits_seen.compared,
        "different": bits_seen.different,
        "deviations": [f"{d.subject}: {d.message}" for d in done.deployment.lowered.deviations],
    }


if __name__ == "__main__":
    main()
