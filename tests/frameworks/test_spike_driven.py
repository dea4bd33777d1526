"""The Spike-driven Transformer is imported spike for spike, and runs on Lava bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron

import spike_driven
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy


def raster(n: int) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(0).random((n, 6, 2, 6, 6)) < 0.3).astype(np.uint8)


def test_maps_of_tokens_are_maps_of_places() -> None:
    model, x = spike_driven.made(linear=True).double(), raster(4)
    network = read_spikingjelly(model, (2, 6, 6), samples=x)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    functional.reset_net(model)
    run = simulate(network, x)
    assert np.array_equal(run.output, wanted.numpy())
    assert all(rate > 0 for rate in run.rates.values())
    shapes = {p.name: p.shape for p in network.populations}
    assert shapes["blocks.0.attention.neurons.0"] == (8, 3, 3)
    assert shapes["blocks.0.attention.counted"] == (8, 1, 1)
    # What is counted is compared by the membrane potentials, too, token for token.
    assert "output and 12 of 14 neuron layers equal" in network.notes[-1]
    fixed = {p.name for p in network.projections if not p.compressible}
    assert {"blocks.0.attention.sum", "blocks.0.attention.mul#2.1"} <= fixed


class Attended(nn.Module):
    """What attention lets through, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3, stride=2), neuron.IFNode(0.1))
        self.attention = spike_driven.Attention(4, 2, linear=True)
        self.last = nn.Sequential(layer.Flatten(), layer.Linear(16, 3), neuron.IFNode(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.attention.masked(self.first(x)))
        return answer


def test_attention_runs_on_lava_bit_for_bit() -> None:
    torch.manual_seed(0)
    done = deploy(
        spike_driven.lively(Attended()),
        calibration=raster(2),
        target="loihi2-sim",
        sparsity=0.5,
        bits=6,
        tune=False,
        backend="lava",
    )
    assert done.fidelity.mismatched_spikes == 0
    fired = {name: seen.spikes for name, seen in done.lowered.activity.items()}
    assert all(fired.values()), fired
    assert {"mul", "attention.counted", "mul#2"} <= set(fired)
