"""Accuracy on real recordings, over five draws of the calibration samples.

    python benchmarks/real_accuracy.py [--data FOLDER] [--only TEXT] [--methods LIST]
        [--settings "0.97/8 0/3"] [--draws 5] [--size 100] [--seed 0] [--weights FOLDER] [--keep]

FOLDER holds ``nmnist/Train`` and ``nmnist/Test`` (Orchard et al. 2015; all of N-MNIST, or a part)
and ``braille7/braille7_events.npz`` with ``networks/*.nir`` (as in real_recordings.py). The N-MNIST
networks are trained here on Train: 2312-256-10 on event counts, 100 frames by number, as published,
and 2312-800-10 on 15 binary frames; ``--weights`` keeps them, and ``--seed`` trains others, which
are rows of their own. The touch networks are recurrent and
were trained by others.

A draw is 100 samples, as many of each class as there are, of those the network was trained on (of a
third of the touch samples, which are not tested on). Points lost are the mean over draws; their
standard error is over test samples, each sample's losses averaged over draws first. With all of
N-MNIST, what Shi, Li, Ward-Cherrier 2025 (arXiv 2506.03996v1, all training samples for calibration)
lost stands beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import graded_nmnist
import numpy as np
import torch
from _accuracy import Clock, Meter, Task, parser, read, table, write
from accuracy import METHODS as ALL
from accuracy import add_settings, named, nearest, settings
from real_recordings import TOUCH

from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.job import VerbCall, prepare
from osbc_deploy.model.graph import Network

METHODS = {name: ALL[name] for name in ("osbc, tuned", "osbc", "obc", "magnitude")} | {
    "paper": CompressionOptions(method="paper", tune=False)
}
NEAREST = {"nearest, max-abs": False, "nearest, searched": True}
PUBLISHED = {
    "published, osbc": {"97%": 1.41, "4 bit": 0.17},
    "published, obc": {"97%": 45.07},
}
"""Points that the 2312-256-10 network loses on all of N-MNIST."""

WHOLE = 10_000
"""Test recordings of N-MNIST."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A task, and the labels of the samples that calibration ones are drawn from."""

    task: Task
    labels: np.ndarray


def draw(labels: np.ndarray, number: int, size: int) -> np.ndarray:
    """Return the indices of a draw, as many of each class as there are."""
    rng = np.random.default_rng([17, number])
    order = rng.permutation(len(labels))
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turn[own] = np.arange(len(own))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:size])


def nmnist(data: Path, hidden: int, steps: int, kept: Path | None, seed: int) -> Drawn:
    """Train a network on N-MNIST, or read it back, and import it."""
    counts = hidden == 256
    request = DatasetRequest(
        "nmnist", data / "nmnist", steps=steps, split="number" if counts else "time",
        count_events=counts, samples_per_class=None,
    )  # fmt: skip
    training, test = (load_dataset(request, part) for part in ("train", "test"))
    assert training.labels is not None
    assert test.labels is not None
    torch.manual_seed(seed)
    model = graded_nmnist.network(hidden)
    file = kept / f"2312-{hidden}-10-{seed}.pth" if kept else None
    if file and file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        # The order of sums, and so what is learned, hangs on the number of threads.
        held = torch.get_num_threads()
        torch.set_num_threads(1)
        graded_nmnist.train(model, training, 30)
        torch.set_num_threads(held)
        if file:
            torch.save(model.state_dict(), file)
    call = VerbCall(
        module=model, calibration=training, test=test, target="loihi2-sim", backend_samples=0
    )
    name = f"N-MNIST 2312-{hidden}-10, T = {steps}, {'counts' if counts else 'binary'}"
    if seed:
        name += f", seed {seed}"
    return Drawn(
        Task(name, prepare(call).network, training.spikes, test.spikes, test.labels),
        training.labels,
    )


def touch(data: Path, file: str, reset: str) -> Drawn:
    """Import a recurrent network of the NIR paper, with letters that were felt."""
    with np.load(data / "braille7" / "braille7_events.npz") as stored:
        labels = stored["label"].astype(int)
        spikes = np.unpackbits(stored["packed"], axis=1)[:, : 256 * 12].reshape(-1, 256, 12)
    order = np.random.default_rng(0).permutation(len(labels))
    first, rest = order[: len(order) // 3], order[len(order) // 3 :]
    call = VerbCall(
        module=data / "networks" / file, dt=1e-4, reset=reset, calibration=spikes[first],
        target="loihi2-sim", backend_samples=0,
    )  # fmt: skip
    task = Task(f"touch, {file}", prepare(call).network, spikes[first], spikes[rest], labels[rest])
    return Drawn(task, labels[first])


def tasks(data: Path, kept: Path | None, only: str, seed: int) -> Iterator[Drawn]:
    makers: dict[str, Any] = {}
    if (data / "nmnist").is_dir():
        makers |= {
            "2312-256-10": partial(nmnist, data, 256, 100, kept, seed),
            "2312-800-10": partial(nmnist, data, 800, 15, kept, seed),
        }
    if (data / "braille7").is_dir():
        makers |= {file: partial(touch, data, file, reset) for file, reset in TOUCH.items()}
    yield from (make() for name, make in makers.items() if only in name)


def summary(rows: list[np.ndarray]) -> dict[str, Any]:
    """Return points lost by draw, their mean and its standard error over test samples."""
    lost = 100 * np.array(rows)
    mean = lost.mean(axis=0)
    return {
        "by_draw": [round(float(x), 4) for x in lost.mean(axis=1)],
        "drop_points": float(mean.mean()),
        "standard_error": float(mean.std(ddof=1) / np.sqrt(len(mean))),
    }


def networks(
    drawn: Drawn, method: str, sparsity: float, bits: int, given: argparse.Namespace
) -> Iterator[Network]:
    """Yield the compressed network of each draw; rounding to nearest needs none."""
    task = drawn.task
    if method in NEAREST:
        yield nearest(task.network, bits, searched=NEAREST[method])
        return
    options = replace(METHODS[method], sparsity=sparsity, bits=bits)
    for number in range(given.draws):
        samples = task.calibration[draw(drawn.labels, number, given.size)]
        yield compress(task.network, samples, options).network


def measure(
    drawn: Drawn, given: argparse.Namespace, before: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield everything measured so far after each cell."""
    task, meter = drawn.task, Meter(drawn.task)
    # What was measured before stays only if it was measured on the same network.
    drawn_as = {
        "network": task.network.fingerprint()[:16],
        "float": meter.accuracy,
        "draws": given.draws,
        "size": given.size,
    }
    if any(before.get(key, value) != value for key, value in drawn_as.items()):
        before = {}
    found = {**before, "samples": len(task.test), **drawn_as}
    print(f"\n{task.name}: float {meter.accuracy:.2%} of {len(task.test)} test samples", flush=True)
    chosen = [*given.methods.split(";"), *NEAREST]
    for sparsity, bits in settings(given):
        for method in chosen:
            name = f"{named(sparsity, bits)}, {method}"
            if name in found or (
                method in ("magnitude", *NEAREST) and (method == "magnitude") != bool(sparsity)
            ):
                continue
            with Clock() as clock:
                nets = networks(drawn, method, sparsity, bits, given)
                rows = [meter.lost(net) for net in nets]
            done = found[name] = summary(rows) | {"seconds": clock.seconds}
            print(name, cell(done), done["by_draw"], f"{clock.seconds:.0f} s", flush=True)
            yield found
    known = PUBLISHED if len(task.test) == WHOLE and "2312-256-10" in task.name else {}
    table(
        ["points lost", *chosen, *known],
        [
            [
                name,
                *(cell(found.get(f"{name}, {method}")) for method in chosen),
                *(f"{lost[name]:.2f}" if name in lost else "" for lost in known.values()),
            ]
            for name in (named(*setting) for setting in settings(given))
        ],
    )


def cell(measured: dict[str, Any] | None) -> str:
    return f"{measured['drop_points']:.2f} ± {measured['standard_error']:.2f}" if measured else ""


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.set_defaults(data=Path("../shared/data/real"))
    add_settings(arguments)
    arguments.add_argument("--only", default="", help="tasks whose name holds this")
    arguments.add_argument("--methods", default=";".join(METHODS), help="such as 'osbc, tuned;obc'")
    arguments.add_argument("--draws", type=int, default=5)
    arguments.add_argument("--size", type=int, default=100, help="samples of a draw")
    arguments.add_argument("--seed", type=int, default=0, help="of the training")
    arguments.add_argument("--weights", type=Path, help="folder for the networks trained here")
    arguments.add_argument("--keep", action="store_true", help="what was measured before stays")
    given = arguments.parse_args()
    kept = read("real_accuracy").get("tasks", {}) if given.keep else {}
    for drawn in tasks(given.data, given.weights, given.only, given.seed):
        name = drawn.task.name
        for found in measure(drawn, given, kept.get(name, {})):
            kept[name] = found
            write("real_accuracy", {"tasks": kept}, quiet=True)


if __name__ == "__main__":
    main()
