"""Real recordings that neither calibration nor baseline saw: no alarm, and trouble noticed.

    python benchmarks/real_streams.py [--data FOLDER]

FOLDER holds ``nmnist`` (Orchard et al. 2015), ``dvs128gesture/dvs128gesture_events.npz`` (Amir et
al. 2017) and ``networks`` with the recipe's network trained on the one and NeuroBench's on the
other; what is not there is left out. Both are compressed (N-MNIST: 90 % and 4 bits; gestures: 8
bits, average pooling); each recording, and each moment of a gesture, is shown once. One false
alarm in 30 days at a record a minute is promised, by baselines as short as the data are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from false_alarms import trouble
from numpy.typing import NDArray

from osbc_deploy import deploy
from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.monitor.baseline import Promise, make_baseline
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.monitor.judgement import judge
from osbc_deploy.telemetry.counting import count_windows

HERE = Path(__file__).resolve().parent
KINDS = ("10% dead pixels", "5 hot pixels", "20% contrast lost")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/real"))
    data = parser.parse_args().data
    wrong = 0
    if (data / "nmnist").is_dir():
        wrong += nmnist(data)
    if (data / "dvs128gesture").is_dir():
        wrong += gestures(data)
    return int(wrong > 0)


def nmnist(data: Path) -> int:
    sys.path.append(str(HERE.parent / "examples"))
    request = DatasetRequest("nmnist", data / "nmnist", steps=15, samples_per_class=None)
    train, test = (load_dataset(request, part) for part in ("train", "test"))
    network = deployed(
        f"{HERE}/real_streams.py:nmnist_network", train.take(100),
        data / "networks" / "nmnist_2312_800_10_T15.safetensors", sparsity=0.9, bits=4,
    )  # fmt: skip
    # In the files' order the classes take turns until some have no more: that would be drift.
    seen = {"test": test.spikes, "train": train.spikes[100:]}
    wrong = 0
    for part, ordered in seen.items():
        samples = ordered[np.random.default_rng(0).permutation(len(ordered))]
        half = len(samples) // 2
        for name, first, second in (
            ("first half, then second", samples[:half], samples[half:]),
            ("second half, then first", samples[half:], samples[:half]),
        ):
            wrong += stream(f"N-MNIST {part}, {name}", network, first, second, 2)
    return wrong


def nmnist_network() -> Any:
    from recipe import two_fc

    return two_fc((2, 34, 34), 10, 800)


def gestures(data: Path) -> int:
    with np.load(data / "dvs128gesture" / "dvs128gesture_events.npz") as stored:
        events = {key: stored[key] for key in stored.files}
    starts, frame, steps, block = events["offsets"], 2000, 4, 10
    count = len(starts) - 1
    slots = 1_450_000 // (frame * steps) // (3 * block) * (3 * block)
    counts = np.zeros((count, slots * steps, 2, 32, 32), np.int8)
    recording = np.repeat(np.arange(count), np.diff(starts))
    kept = events["t"] < slots * steps * frame
    at = (recording, events["t"] // frame, events["p"], events["y"] // 4, events["x"] // 4)
    np.add.at(counts, tuple(axis[kept] for axis in at), 1)
    # Ten moments in a row for calibration, ten for the baseline, ten for the stream, and again.
    moments = counts.reshape(count, -1, 3, block, steps, 2, 32, 32)
    parts = [
        np.ascontiguousarray(moments[:, :, k].reshape(count, -1, steps, 2, 32, 32).swapaxes(0, 1))
        for k in range(3)
    ]
    calibration, first, second = (p.reshape(-1, steps, 2, 32, 32) for p in parts)
    order = np.random.default_rng(0).permutation(len(calibration))[:100]
    network = deployed(
        f"{HERE}/real_recordings.py:gestures", calibration[order],
        data / "networks" / "neurobench_dvs_gesture_snn.pt", sparsity=0.0, bits=8,
        substitute="maxpool=avg", classes=11,
    )  # fmt: skip
    wrong = stream("gestures, one part, then another", network, first, second, count)
    return wrong + stream("gestures, the other way round", network, second, first, count)


def deployed(model: str, calibration: Any, weights: Path, **options: Any) -> FixedPointNetwork:
    done = deploy(model, calibration, weights=weights, target="loihi2", tune=False,
                  backend_samples=0, **options)  # fmt: skip
    return done.lowered.network


def stream(
    title: str, network: FixedPointNetwork, first: NDArray[Any], second: NDArray[Any], window: int
) -> int:
    """Judge a stream by the baseline of another, healthy and in trouble; return alarms."""
    names = [network.layers[p.name] for p in network.populations]

    def counted(samples: NDArray[Any]) -> Any:
        codes = network.input.codes(samples)
        return count_windows(network, codes.reshape(*codes.shape[:2], *network.input_shape), window)

    baseline = make_baseline(
        Intake(tuple(counted(first)), {}, ()), names, Promise(days=30, per_day=1440),
        source="engine", short=True,
    )  # fmt: skip
    found = judge(counted(second), baseline)
    peak = max(c["peak"] for c in found["channels"])
    said = [f"{title}: baseline {baseline.records} records of {window}, stream {found['records']}: "
            f"{found['verdict']} (highest chart {peak:.2f} of its limit)"]  # fmt: skip
    for kind in KINDS:
        random = np.random.default_rng(0)
        verdict = judge(counted(trouble(kind, second, np.zeros(0), random)), baseline)
        alarms = [c["noticed"]["record"] + 1 for c in verdict["channels"] if c["alarm"]]
        said.append(f"{kind} after {min(alarms)}" if alarms else f"{kind} not")
    print("; ".join(said), flush=True)
    return int(found["verdict"] != "ok")


if __name__ == "__main__":
    raise SystemExit(main())
