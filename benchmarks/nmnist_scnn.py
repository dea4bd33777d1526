"""The N-MNIST network of the NIR paper from files in N-MNIST's format to Lava, by command line.

    python benchmarks/nmnist_scnn.py [--data FOLDER] [--network FILE.nir] [--test N]

Digits seen by a simulated event camera (34 x 34 pixels, 15 steps) are written as recordings of
N-MNIST, a file each, and given to ``osbc-deploy`` as a data set.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _accuracy import parser, write

SLICE = 20_000
"""Microseconds of a step."""
OPTIONS = {
    "as it is": ["--sparsity", "0", "--bits", "8", "--no-tune"],
    "50 %, 6 bit": ["--sparsity", "0.5", "--bits", "6"],
    "80 %, 4 bit": ["--sparsity", "0.8", "--bits", "4"],
}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--network", type=Path, default=Path("../shared/data/nir/nmnist_scnn.nir")
    )
    arguments.add_argument("--test", type=int, default=30, help="test digits of each class")
    given = arguments.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        recordings(given.data / "calibration.npz", Path(name) / "Train", 100)
        recordings(given.data / "test.npz", Path(name) / "Test", given.test)
        for title, options in OPTIONS.items():
            report = deploy(given.network, Path(name), options)
            accuracy, fidelity = report["accuracy"], report["fidelity"]
            print(
                f"{title}: float {accuracy['float']:.2%}, compressed {accuracy['compressed']:.2%}, "
                f"fixed point {accuracy['fixed_point']:.2%} of {accuracy['samples']}; "
                f"{report['memory']['cores_used']} cores, "
                f"{report['memory']['deployed_bytes']:,} B; "
                f"Lava: {fidelity['mismatched_spikes']} of {fidelity['compared_spikes']:,} spikes "
                "differ",
                flush=True,
            )
            assert fidelity["mismatched_spikes"] == 0
            found[title] = {k: report[k] for k in ("accuracy", "fidelity", "memory")}
    write("nmnist_scnn", found)


def recordings(source: Path, folder: Path, of_each: int) -> None:
    """Write the spikes of a file as recordings of 40-bit events, in a folder for each digit."""
    with np.load(source) as stored:
        labels = stored["labels"]
        packed = stored["events"]
    rng = np.random.default_rng(0)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number in np.flatnonzero(labels == digit)[:of_each]:
            spikes = np.unpackbits(packed[number])[: 15 * 2 * 34 * 34].reshape(15, 2, 34, 34)
            step, polarity, y, x = np.nonzero(spikes)
            when = step * SLICE + rng.integers(0, SLICE, len(step))
            # The first and the last event say where the slices lie.
            when[0], when[-1] = step[0] * SLICE, (step[-1] + 1) * SLICE - 1
            order = np.argsort(when, kind="stable")
            words = polarity.astype(np.uint64) << 23 | when.astype(np.uint64)
            words |= x.astype(np.uint64) << 32 | y.astype(np.uint64) << 24
            bits = words[order].astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:]
            (folder / str(digit) / f"{number:05d}.bin").write_bytes(bits.tobytes())


def deploy(network: Path, folder: Path, options: list[str]) -> dict:
    command = [
        *(sys.executable, "-m", "osbc_deploy", str(network), "--target", "loihi2-sim"),
        *("--dataset", "nmnist", "--data-root", str(folder), "--steps", "15"),
        *("--reset", "zero", "--samples-per-class", "20", "--backend-samples", "3", "--json", "-q"),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    report: dict = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    main()
