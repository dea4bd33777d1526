"""Networks that others trained, on real recordings, by command line.

    python benchmarks/real_recordings.py [--data FOLDER]

FOLDER holds ``braille7/braille7_events.npz`` (tactile letters; Mueller-Cleve et al. 2022, Zenodo
record 7050094), ``dvs128gesture/dvs128gesture_events.npz`` (Amir et al., CVPR 2017), and
``networks/`` with the two recurrent networks of the NIR paper trained on the one and NeuroBench's
network trained on the other. What is not there is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import snntorch as snn
import torch
from _accuracy import parser, write
from torch import nn

OPTIONS = {
    "8 bit": ["--sparsity", "0", "--bits", "8"],
    "50 %, 6 bit": ["--sparsity", "0.5", "--bits", "6"],
    "80 %, 4 bit": ["--sparsity", "0.8", "--bits", "4"],
}
TOUCH = {"braille_noDelay_noBias_subtract.nir": "subtract", "braille_noDelay_bias_zero.nir": "zero"}
CALIBRATION = 100


class Gestures(nn.Module):
    """NeuroBench's network: max pooling of currents, in front of the neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 16, 5, padding="same")
        self.conv2 = nn.Conv2d(16, 32, 5, padding="same")
        self.conv3 = nn.Conv2d(32, 64, 5, padding="same")
        self.linear1 = nn.Linear(1024, 11)
        self.pool = nn.MaxPool2d(2)
        for number in range(1, 5):
            self.add_module(f"lif{number}", snn.Leaky(0.9, reset_mechanism="subtract"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        neurons = [self.lif1, self.lif2, self.lif3, self.lif4]
        potentials = [cell.reset_mem() for cell in neurons]
        answers = []
        for frame in x:
            s = frame
            for k, conv in enumerate((self.conv1, self.conv2, self.conv3)):
                s, potentials[k] = neurons[k](self.pool(conv(s)), potentials[k])
            s, potentials[3] = self.lif4(self.linear1(s.flatten(1)), potentials[3])
            answers.append(s)
        return torch.stack(answers)


def gestures() -> nn.Module:
    return Gestures()


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
        if (data / "dvs128gesture" / "dvs128gesture_events.npz").is_file():
            frames(data / "dvs128gesture" / "dvs128gesture_events.npz", folder)
            weights = str(data / "networks" / "neurobench_dvs_gesture_snn.pt")
            of = [f"{__file__}:gestures", "--weights", weights, "--classes", "11", "--no-tune"]
            for title, more in (("as it is", []), ("maxpool=avg", ["--substitute", "maxpool=avg"])):
                options = [*of, *OPTIONS["8 bit"], *more]
                row(f"NeuroBench gestures, {title}", options, folder, found)
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


def frames(source: Path, folder: Path) -> None:
    """Write the gestures as event counts of 10 ms and 4 x 4 pixels."""
    with np.load(source) as stored:
        events = {key: stored[key] for key in stored.files}
    starts = events["offsets"]
    counts = np.zeros((len(starts) - 1, 145, 2, 32, 32), np.uint8)
    sample = np.repeat(np.arange(len(counts)), np.diff(starts))
    step = np.minimum(events["t"] // 10_000, 144)
    np.add.at(counts, (sample, step, events["p"], events["y"] // 4, events["x"] // 4), 1)
    for file in ("calibration.npz", "test.npz"):
        np.savez(folder / file, spikes=counts, labels=events["label"])


def row(title: str, arguments: list[str], folder: Path, found: dict[str, Any]) -> None:
    """Deploy, print a line, and keep what the report says."""
    command = [
        *(sys.executable, "-m", "osbc_deploy", *arguments, "--target", "loihi2-sim"),
        *("--calibration", str(folder / "calibration.npz"), "--test", str(folder / "test.npz")),
        *("--backend-samples", "8", "--json", "-q"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        reason = done.stderr.splitlines()[1].strip(" -")
        print(f"| {title} | refused: {reason} |", flush=True)
        found[title] = {"refused": reason}
        return
    done.check_returncode()
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
