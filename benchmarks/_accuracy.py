"""Networks and labelled samples to measure accuracy on, and what is measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from typing_extensions import Self

from osbc_deploy._version import __version__
from osbc_deploy.compress import CompressedNetwork
from osbc_deploy.frameworks.norse.neurons import LIF
from osbc_deploy.model.graph import Dense, Network, Population, Projection
from osbc_deploy.model.readout import evidence
from osbc_deploy.model.simulate import simulate

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, eq=False)
class Task:
    """A float network with its samples."""

    name: str
    network: Network
    calibration: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def bundled(model: str, seed: int = 0) -> Task:
    from osbc_deploy.bundled.models import weights_path
    from osbc_deploy.cli.job import load_inputs
    from osbc_deploy.job import VerbCall, prepare
    from osbc_deploy.options import InputOptions

    inputs = load_inputs(None, InputOptions(seed=seed))
    inputs["module"] = f"osbc_deploy.bundled.models:{model}"
    inputs["weights"] = weights_path(model)
    job = prepare(VerbCall(**inputs, backend_samples=0))
    return Task(
        f"{model}, camera seed {seed}",
        job.network,
        job.typical.spikes,
        job.evaluated.spikes,
        job.evaluated.labels,
    )


def saccade(folder: Path) -> Task:
    """Return the 2312-800-10 network: v = 0.5 v + W x, spike where v >= 1, reset to 0."""
    weights = load_file(str(folder / "mlp_2312_800_10.safetensors"))
    # alpha_v = 0.5 halves the input too, and spikes come at "more than": the threshold is the
    # number before one half.
    just_below = np.nextafter(np.float32(0.5), np.float32(0)).astype(np.float64)
    zero = np.zeros(())
    neuron = LIF(np.array(0.5), zero, just_below, zero)
    network = Network(
        (2312,),
        (Population("hidden", (800,), neuron), Population("out", (10,), neuron)),
        (
            Projection("fc1", "input", "hidden", Dense(weights["fc1.weight"])),
            Projection("fc2", "hidden", "out", Dense(weights["fc2.weight"])),
        ),
    )
    (calibration, _), (test, labels) = (
        _events(folder / f"{n}.npz") for n in ("calibration", "test")
    )
    return Task("saccade-mnist 2312-800-10", network, calibration, test, labels)


def _events(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as data:
        labels = data["labels"].astype(int)
        bits = np.unpackbits(data["events"], axis=1)
    return bits[:, : 15 * 2312].reshape(len(labels), 15, 2312), labels


class Meter:
    """Measures networks against the float network on the test samples."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._float = self._classes(task.network)
        self.accuracy = float(np.mean(self._float == task.labels))

    def _classes(self, network: Network) -> np.ndarray:
        # As published methods are scored: a silent output is class 0, where reports of this tool
        # say that there is no answer.
        output = simulate(network, self._task.test, batch_size=128).output
        return evidence(output, "sum").argmax(axis=1)

    def measure(self, network: Network) -> dict[str, float]:
        """Return accuracy, points lost and their standard error (paired), and agreement."""
        classes = self._classes(network)
        lost = self._lost(classes)
        return {
            "accuracy": float(np.mean(classes == self._task.labels)),
            "drop_points": float(100 * lost.mean()),
            "standard_error": float(100 * lost.std(ddof=1) / np.sqrt(len(lost))),
            "agreement": float(np.mean(classes == self._float)),
        }

    def lost(self, network: Network) -> np.ndarray:
        """Return for each test sample 1 where it was right and is wrong now, -1 the other way."""
        return self._lost(self._classes(network))

    def _lost(self, classes: np.ndarray) -> np.ndarray:
        return (self._float == self._task.labels).astype(float) - (classes == self._task.labels)


def layers(done: CompressedNetwork) -> dict[str, Any]:
    return {
        name: {
            "kept": p.kept,
            "bits": p.bits,
            "selection": p.selection,
            "variant": p.chosen,
            "threshold": p.threshold,
            "loss": p.relative_loss["total"],
        }
        for name, p in done.projections.items()
    }


def machine() -> dict[str, Any]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cores": len(os.sched_getaffinity(0)),
    }


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, default=Path("../shared/data/saccade-mnist"))
    return made


def read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, content: Mapping[str, Any], *, quiet: bool = False) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    if not quiet:
        print(f"\nwrote {path}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


class Clock:
    """Seconds of a block."""

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
