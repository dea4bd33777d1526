"""The Spike-driven Transformer is imported spike for spike, and runs on Lava bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer

import spike_driven
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy


def raster(n: int, *shape: int) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(0).random((n, 6, 2, *shape)) < 0.3).astype(np.uint8)


def read(model: nn.Module, x: np.ndarray[Any, Any]) -> Network:
    """Import a model in double precision, and compare what it answers."""
    model = spike_driven.lively(model).double()
    network = read_spikingjelly(model, x.shape[2:], samples=x)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    functional.reset_net(model)
    run = simulate(network, x)
    if network.output.neuron.spiking:
        assert np.array_equal(run.output, wanted.numpy())
    silent = [name for name, rate in run.rates.items() if not rate]
    assert not silent
    return network


def test_spikingjellys_transformer_is_imported_as_it_comes() -> None:
    torch.manual_seed(0)
    model = SpikeDrivenTransformer(
        in_channels=2,
        num_classes=5,
        embed_dims=8,
        num_heads=2,
        depths=1,
        mlp_ratio=2,
        pooling_stat="1100",
    )
    network = read(model, raster(4, 12, 12))
    shapes = {p.name: p.shape for p in network.populations}
    assert shapes["blocks.0.attn.k_lif"] == (8, 3, 3)
    assert shapes["blocks.0.attn.attn_lif"] == (8, 1, 1)
    assert "output and 14 of 17 neuron layers equal" in network.notes[-1]
    fixed = {p.name for p in network.projections if not p.compressible}
    assert {"blocks.0.attn.sum", "blocks.0.attn.mul#2.1"} <= fixed
    # What a shortcut adds is heard by all neurons behind it.
    heard = {p.pre for p in network.afferents("head_lif")}
    assert {"patch_embed.stages.2.2", "patch_embed.final_lif", "blocks.0.mlp.lif2"} < heard


def test_a_stem_that_pools_currents_is_refused_with_the_ways_out() -> None:
    model = SpikeDrivenTransformer(in_channels=2, embed_dims=8, num_heads=2, depths=1)
    with pytest.raises(UnsupportedModelError) as caught:
        read(model, raster(2, 16, 16))
    (line,) = caught.value.offenders
    assert line.startswith("patch_embed.final_stage.2: MaxPool2d takes the largest of several")


class Queried(nn.Module):
    """Q-K attention of SpikingJelly between convolutions."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3), neuron.IFNode(0.5))
        self.attention = attention
        self.last = nn.Sequential(layer.Conv2d(4, 3, 3), neuron.IFNode(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        tokens = x.flatten(3)
        answer: torch.Tensor = self.last((tokens + self.attention(tokens)).reshape(x.shape))
        return answer


@pytest.mark.parametrize(
    ("attention", "counted"),
    [(layer.TokenQKAttention, (2, 4, 3)), (layer.ChannelQKAttention, (4, 1, 1))],
)
def test_queries_of_tokens_and_channels_mask_keys(attention: Any, counted: Any) -> None:
    torch.manual_seed(1)
    network = read(Queried(attention(4, 2)), raster(4, 6, 5))
    shapes = {p.name: p.shape for p in network.populations}
    assert shapes["attention.qk_lif"] == (8, 4, 3)
    assert shapes["attention.attn_lif"] == counted
    assert shapes["attention.mul"] == (4, 4, 3)


class Halves(nn.Module):
    """One map of tokens whose channels are cut in two, before neurons and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3), neuron.IFNode(0.3))
        self.both = layer.Conv2d(4, 8, 1, bias=False)
        self.nodes = nn.ModuleList(neuron.LIFNode(v_threshold=t) for t in (0.02, 0.02))
        self.last = nn.Sequential(layer.Conv2d(4, 3, 3), neuron.IFNode(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.both(self.first(x)).chunk(2, dim=2)
        one, two = self.nodes[0](one), self.nodes[1](two)
        first, second = one.split([1, 3], dim=-3)
        masked = two * (1 - first) * torch.maximum(second[:, :, -1:], 1 - two)
        answer: torch.Tensor = self.last(masked)
        return answer


def test_halves_of_currents_are_heard_by_their_neurons_alone() -> None:
    torch.manual_seed(0)
    network = read(Halves(), raster(4, 7, 6))
    shapes = {p.name: p.shape for p in network.populations}
    assert shapes["nodes.0"] == shapes["nodes.1"] == (4, 5, 4)
    assert [p.compressible for p in network.afferents("nodes.1")] == [True]
    assert network.incoming("nodes.1").connection.weight.shape == (4, 4, 1, 1)


class Together(nn.Module):
    """Queries, keys and values of one map, told apart by an axis that is turned to the front."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3), neuron.IFNode(0.3))
        self.all = nn.Sequential(nn.Linear(4, 12), neuron.IFNode(0.1))
        nn.init.uniform_(self.all[0].weight, 0.0, 0.5)
        self.counted = neuron.IFNode(0.5)
        self.last = nn.Sequential(nn.Linear(80, 3), neuron.IFNode(0.1))
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.all(self.first(x).flatten(3).transpose(2, 3))
        q, k, v = x.reshape(*x.shape[:3], 3, 2, 2).permute(3, 0, 1, 4, 2, 5)
        x = q * self.counted((k * v).sum(-2, keepdim=True))
        answer: torch.Tensor = self.last(x.transpose(2, 3).flatten(2))
        return answer


def test_queries_keys_and_values_of_one_map_are_told_apart() -> None:
    torch.manual_seed(0)
    network = read(Together(), raster(4, 7, 6))
    assert {p.name: p.shape for p in network.populations}["all.1"] == (12, 5, 4)


def test_attention_that_multiplies_integers_is_refused() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(Queried(layer.SpikingSelfAttention(4, 2)), raster(2, 6, 5))
    assert caught.value.offenders[0].startswith(
        "attention: SpikingSelfAttention is not supported: it multiplies integers that change with"
    )

    class Written(Queried):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            answer: torch.Tensor = self.last(x @ x.transpose(-1, -2) @ x)
            return answer

    with pytest.raises(UnsupportedModelError) as caught:
        read(Written(nn.Identity()), raster(2, 6, 5))
    assert caught.value.offenders[0].startswith("forward: matmul is not supported: it multiplies")


class Attended(nn.Module):
    """What attention lets through, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3, stride=2), neuron.IFNode(0.1))
        self.attention = spike_driven.Attention(4, 2)
        self.last = nn.Sequential(layer.Flatten(), layer.Linear(16, 3), neuron.IFNode(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.attention.masked(self.first(x)))
        return answer


def test_attention_runs_on_lava_bit_for_bit() -> None:
    torch.manual_seed(0)
    done = deploy(
        spike_driven.lively(Attended()),
        calibration=raster(2, 6, 6),
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
