"""How digits are coded: direct, rate and latency in snnTorch, direct in SpikingJelly's CSNN.

    python benchmarks/graded_digits.py [--epochs 12] [--backend-samples 2]

Networks as the frameworks' tutorials have them, small, are trained on scikit-learn's 8 x 8 digits
and deployed at 8 bits dense. Direct coding gives the images themselves in every step
(``--repeat``); they are rounded to 8 bits. Exits with 1 when fixed point loses more than a point of
the framework's own accuracy, or Lava differs in a bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import snntorch as snn
import torch
from sklearn.datasets import load_digits
from snntorch import functional as losses
from snntorch import spikegen, surrogate
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based import surrogate as jelly_surrogate
from torch import nn

import osbc_deploy

TRAIN, STEPS = 1297, 12
MOST_LOST = 0.01


class Tutorial(nn.Module):
    """Two linear layers and leaky neurons, called step by step."""

    def __init__(self) -> None:
        super().__init__()
        grad = surrogate.fast_sigmoid()
        self.fc1, self.lif1 = nn.Linear(64, 96), snn.Leaky(beta=0.9, spike_grad=grad)
        self.fc2, self.lif2 = nn.Linear(96, 10), snn.Leaky(beta=0.9, spike_grad=grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for frame in x:
            spk1, mem1 = self.lif1(self.fc1(frame.flatten(1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


class CSNN(nn.Module):
    """SpikingJelly's convolutional tutorial network, ten outputs of which vote for a class."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        fire: Callable[[], nn.Module] = lambda: neuron.IFNode(  # noqa: E731
            surrogate_function=jelly_surrogate.ATan()
        )
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, 3, padding=1, bias=False),
            layer.BatchNorm2d(channels), fire(),
            layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, 3, padding=1, bias=False),
            layer.BatchNorm2d(channels), fire(), layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(channels * 4, channels * 8, bias=False), fire(),
            layer.Linear(channels * 8, 100, bias=False), fire(),
            layer.VotingLayer(10),
        )  # fmt: skip
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.conv_fc(x)
        return answer


def data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = torch.tensor(digits.images[order, None] / 16, dtype=torch.float32)
    return images, torch.tensor(digits.target[order])


def coded(images: torch.Tensor, coding: str) -> torch.Tensor:
    """Return images (n, 1, 8, 8) as a model is given them: (T, n, 1, 8, 8)."""
    if coding == "rate":
        torch.manual_seed(1)
        return spikegen.rate(images, num_steps=STEPS)
    if coding == "latency":
        return spikegen.latency(images, num_steps=STEPS, tau=5, threshold=0.01, clip=True,
                                normalize=True)  # fmt: skip
    return images.expand(STEPS, *images.shape)


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int) -> None:
    """Train on the counts of spikes, as the tutorials do."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    crowd = losses.ce_rate_loss()
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(y)).split(64):
            functional.reset_net(model)
            loss = crowd(model(x[:, part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    functional.reset_net(model)
    model.eval()


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    functional.reset_net(model)
    with torch.no_grad():
        classes = model(x).sum(0).argmax(1)
    functional.reset_net(model)
    return float((classes == y).float().mean())


def measured(
    title: str, model: nn.Module, coding: str, epochs: int, **options: Any
) -> tuple[float, osbc_deploy.Deployment]:
    """Train a network and deploy it; return the framework's accuracy and the deployment."""
    images, labels = data()
    x = coded(images, coding)
    train(model, x[:, :TRAIN], labels[:TRAIN], epochs)
    theirs = accuracy(model, x[:, TRAIN:], labels[TRAIN:])
    samples = images if coding == "direct" else x.movedim(1, 0)
    more = {"repeat": STEPS} if coding == "direct" else {}
    done = osbc_deploy.deploy(
        model, (samples[:100], labels[:100]), test=(samples[TRAIN:], labels[TRAIN:]),
        sparsity=0.0, bits=8, tune=False, target="loihi2-sim", **more, **options,
    )  # fmt: skip
    found, bits = done.accuracy, done.fidelity
    given = done.lowered.network.input
    print(
        f"{title:<28} {theirs:7.2%} {found.float_:9.2%} {found.fixed_point:11.2%}   {given.kind}, "
        f"{given.bits} bits; {bits.mismatched_spikes} of {bits.compared_spikes:,} spikes differ",
        flush=True,
    )
    return theirs, done


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--backend-samples", type=int, default=2)
    given = parser.parse_args()
    print(f"{'network':<28} {'own':>7} {'imported':>9} {'fixed point':>11}   input")
    broken = 0
    for title, make, coding in (
        ("snnTorch, direct", Tutorial, "direct"),
        ("snnTorch, rate", Tutorial, "rate"),
        ("snnTorch, latency", Tutorial, "latency"),
        ("CSNN, direct, votes", CSNN, "direct"),
    ):
        torch.manual_seed(0)
        theirs, done = measured(
            title, make(), coding, given.epochs, backend_samples=given.backend_samples
        )
        assert done.accuracy.fixed_point is not None
        lost = theirs - done.accuracy.fixed_point
        broken += lost > MOST_LOST or not done.fidelity.exact
    return int(broken > 0)


if __name__ == "__main__":
    raise SystemExit(main())
