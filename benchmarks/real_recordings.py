"""Networks that others trained, on real recordings, by command line.

    python benchmarks/real_recordings.py [--data FOLDER]

FOLDER holds ``braille7/braille7_events.npz`` (tactile letters; Mueller-Cleve et al. 2022, Zenodo
record 7050094) and ``networks/`` with the two recurrent networks of the NIR paper trained on them.
What is not there is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy import parser, write

OPTIONS = {
    "8 bit": ["--sparsity", "0", "--bits", "8"],
    "50 %, 6 bit": ["--sparsity", "0.5", "--bits", "6"],
    "80 %, 4 bit": ["--sparsity", "0.8", "--bits", "4"],
}
TOUCH = {"braille_noDelay_noBias_subtract.nir": "subtract", "braille_noDelay_bias_zero.nir": "zero"}
CALIBRATION = 100


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.set_defaults(data=Path("../shared/data/real"))
    data = arguments.parse_args().data
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (data / "braille7" / "braille7_events.npz").is_file():
            touch(data / "braille7" / "braille7_events.npz", folder)
            for file, reset in TOUCH.items():
                of = [str(data / "networks" / file), "--dt", "1e-4", "--reset", reset]
                for title, options in OPTIONS.items():
                    row(f"{file}, {title}", [*of, *options], folder, found)
    write("real_recordings", found)


def touch(source: Path, folder: Path) -> None:
    """Write the touch samples, 256 steps of 12 taxels, as two files without a sample in common."""
    with np.load(source) as stored:
        labels = stored["label"]
        bits = np.unpackbits(stored["packed"], axis=1)[:, : 256 * 12]
    order = np.random.default_rng(0).permutation(len(labels))
    for file, chosen in (
        ("calibration.npz", order[:CALIBRATION]),
        ("test.npz", order[CALIBRATION:]),
    ):
        spikes = bits[chosen].reshape(-1, 256, 12)
        np.savez(folder / file, spikes=spikes, labels=labels[chosen])


def row(title: str, arguments: list[str], folder: Path, found: dict[str, Any]) -> None:
    """Deploy, print a line, and keep what the report says."""
    command = [
        *(sys.executable, "-m", "osbc_deploy", *arguments, "--target", "loihi2-sim"),
        *("--calibration", str(folder / "calibration.npz"), "--test", str(folder / "test.npz")),
        *("--backend-samples", "8", "--json", "-q"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    accuracy, fidelity = report["accuracy"], report["fidelity"]
    print(
        f"| {title} | {accuracy['float']:.2%} | {accuracy['compressed']:.2%} | "
        f"{accuracy['fixed_point']:.2%} | {accuracy['samples']} | "
        f"{fidelity['mismatched_spikes']} of {fidelity['compared_spikes']:,} |",
        flush=True,
    )
    assert fidelity["mismatched_spikes"] == 0
    found[title] = {key: report[key] for key in ("accuracy", "fidelity", "memory")}


if __name__ == "__main__":
    main()
