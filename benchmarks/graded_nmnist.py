"""N-MNIST as the paper has it: 2312-256-10 on event counts, 100 frames split by number.

    python benchmarks/graded_nmnist.py [--data FOLDER] [--steps 100] [--epochs 12]

SpikingJelly's Flatten, Linear and LIFNode(tau 2) are trained on the recordings of Train and
evaluated on those of Test: by SpikingJelly, as imported, and in fixed point at 8 bits dense
through ``osbc-deploy deploy --dataset nmnist``, the first of them on Lava as well. Exits with 1
when bits differ or more than a point is lost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from osbc_deploy.data.datasets import DatasetRequest, load_dataset
from osbc_deploy.data.samples import Samples

MOST_LOST = 0.01


def network(hidden: int = 256) -> nn.Sequential:
    """Two layers without biases."""
    make: Any = lambda: neuron.LIFNode(  # noqa: E731
        tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
    )
    return nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Linear(2312, hidden, bias=False, step_mode="m"),
        make(),
        layer.Linear(hidden, 10, bias=False, step_mode="m"),
        make(),
    )


def rates(model: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """Return the output's mean spikes (n, 10) for frames (n, T, 2, 34, 34)."""
    functional.reset_net(model)
    answer: torch.Tensor = model(frames.movedim(1, 0).float()).mean(0)
    functional.reset_net(model)
    return answer


def train(model: nn.Module, samples: Samples, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    frames, labels = torch.tensor(samples.spikes), torch.tensor(samples.labels)
    for epoch in range(epochs):
        total = 0.0
        for part in torch.randperm(len(frames)).split(20):
            wanted = nn.functional.one_hot(labels[part], 10).float()
            loss = nn.functional.mse_loss(rates(model, frames[part]), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / len(frames):.4f}", flush=True)


def accuracy(model: nn.Module, samples: Samples) -> float:
    with torch.no_grad():
        classes = [rates(model, part).argmax(1) for part in torch.tensor(samples.spikes).split(50)]
    return float((torch.cat(classes).numpy() == samples.labels).mean())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/real/nmnist"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lava-samples", type=int, default=3)
    given = parser.parse_args()
    if not given.data.is_dir():
        print(f"{given.data}: not there, nothing to do. Give N-MNIST's folder with --data.")
        return 0
    torch.manual_seed(0)
    request = DatasetRequest(
        "nmnist", given.data, steps=given.steps, split="number", count_events=True,
        samples_per_class=None,
    )  # fmt: skip
    training, test = (load_dataset(request, part) for part in ("train", "test"))
    assert training.labels is not None
    print(
        f"{len(training)} recordings to train on, {len(test)} to test, {given.steps} frames by "
        f"number, counts to {training.spikes.max()} and {test.spikes.max()}"
    )
    model = network()
    train(model, training, given.epochs)
    theirs = accuracy(model, test)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pth"
        torch.save(model.state_dict(), weights)
        command = [
            sys.executable, "-m", "osbc_deploy", "deploy", f"{Path(__file__)}:network",
            "--weights", weights, "--target", "loihi2-sim", "--dataset", "nmnist",
            "--data-root", given.data, "--steps", given.steps, "--split", "number",
            "--count-events", "--samples-per-class", 20, "--sparsity", 0, "--bits", 8, "--no-tune",
            "--backend-samples", given.lava_samples, "--time-limit", 1800, "--json", "-q",
        ]  # fmt: skip
        done = subprocess.run(
            [str(part) for part in command], check=False, capture_output=True, text=True
        )
    if not done.stdout:
        print(done.stderr)
        return 1
    report = json.loads(done.stdout)
    found, bits = report["accuracy"], report["fidelity"]
    print(f"input: {report['input']}")
    print(
        f"accuracy on {found['samples']}: SpikingJelly {theirs:.2%}, imported "
        f"{found['float']:.2%}, fixed point {found['fixed_point']:.2%}, "
        f"{found['agreement']:.2%} get the float class"
    )
    wrong = bits["mismatched_spikes"]
    print(f"{bits['backend']}: {bits['samples']} samples, {bits['compared_spikes']:,} spikes, "
          f"{wrong} differ")  # fmt: skip
    # Sums of single precision may decide a sample's class by their last bit.
    lost = theirs - found["fixed_point"]
    return int(wrong > 0 or bits["samples"] == 0 or lost > MOST_LOST + 1e-9)


if __name__ == "__main__":
    raise SystemExit(main())
