"""Train a network on labelled spikes; shared by the scripts in this folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from osbc_deploy.bundled.digits import EventData, digits_events
from osbc_deploy.bundled.models import weights_path
from osbc_deploy.data.samples import Samples

BATCH = 64


def _tensors(data: EventData | Samples) -> tuple[torch.Tensor, torch.Tensor]:
    # Time first, as the loop wants it; a byte per pixel, as the whole set is held.
    spikes = torch.tensor(data.spikes).transpose(0, 1)
    return spikes, torch.tensor(data.labels)


def evidence(model: nn.Module, spikes: torch.Tensor) -> torch.Tensor:
    """Return the output summed over time, (n, classes), of spikes (T, n, 2, H, W)."""
    state, total = None, torch.zeros((), device=spikes.device)
    for frame in spikes.float():
        output, state = model(frame, state)
        total = total + output
    return total


def _shifted(spikes: torch.Tensor) -> torch.Tensor:
    """Return the batch moved by up to one pixel, another way at every call."""
    dy, dx = (int(torch.randint(-1, 2, ())) for _ in range(2))
    return torch.roll(spikes, (dy, dx), dims=(-2, -1))


def accuracy(model: nn.Module, data: EventData | Samples, device: str = "cpu") -> float:
    """Return the share of samples classified right; outputs that are all the same say no class."""
    spikes, labels = _tensors(data)
    model.eval()
    right = 0
    with torch.no_grad():
        for batch in torch.arange(len(labels)).split(BATCH):
            found = evidence(model, spikes[:, batch].to(device)).cpu()
            told = (found != found[:, :1]).any(1)
            right += int((told & (found.argmax(1) == labels[batch])).sum())
    return right / len(labels)


def train(
    model: nn.Module,
    data: EventData | Samples,
    epochs: int,
    rate: float,
    gain: float,
    device: str = "cpu",
) -> None:
    """Train in place: cross entropy on the summed output, surrogate gradients, AdamW."""
    spikes, labels = _tensors(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = nn.functional.cross_entropy(
                gain * evidence(model, _shifted(spikes[:, batch].to(device))),
                labels[batch].to(device),
                label_smoothing=0.05,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += float(loss.detach()) * len(batch)
        schedule.step()
        print(f"epoch {epoch + 1:3d}/{epochs}  loss {running / len(labels):.4f}", flush=True)


def save(model: nn.Module, output: Path) -> None:
    """Write the weights as safetensors, whole or not at all."""
    partial = output.with_name(output.name + ".partial")
    save_file(model.cpu().state_dict(), partial)
    os.replace(partial, output)
    print(f"wrote {output} ({output.stat().st_size} bytes)")


def main(factory: Callable[[], nn.Module], *, epochs: int, rate: float, gain: float) -> None:
    """Train a factory's network from a fixed seed and write its weights."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, default=weights_path(factory.__name__))
    output = parser.parse_args().output
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    model = factory()
    train(model, digits_events("train"), epochs, rate, gain)
    for split in ("train", "test"):
        print(f"{split} accuracy {accuracy(model, digits_events(split)):.4f}")
    save(model, output)
