"""Zeros around maps are the padding of the convolution behind, spike for spike, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.simulate import simulate

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional as jelly
from spikingjelly.activation_based import neuron

from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

T, N = 8, 5
Bits = np.ndarray[Any, Any]


def spikes(seed: int, *shape: int) -> Bits:
    return (np.random.default_rng(seed).random((N, T, *shape)) < 0.4).astype(np.uint8)


class Net(nn.Module):
    """Pads in its own code between neurons and a layer."""

    def __init__(self, pad: Callable[[Any], Any], behind: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.one = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), neuron.IFNode(0.3)
        self.pad, self.behind, self.two = pad, behind, neuron.IFNode(0.3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.two(self.behind(self.pad(self.one(self.norm(self.first(x))))))


def lively(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for part in model.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(part.weight, 0.1, 0.4)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.3)
    return model.double().eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer": (
        lambda: nn.Sequential(
            nn.ZeroPad2d((2, 2, 1, 1)), nn.Conv2d(2, 4, 3, stride=2), neuron.IFNode(0.3)
        ),
        (2, 6, 7),
    ),
    "function": (
        lambda: Net(lambda y: functional.pad(y, (1, 1, 2, 2)), nn.Conv2d(4, 3, 3)),
        (2, 6, 6),
    ),
    "columns": (
        lambda: Net(lambda y: functional.pad(y, (2, 2), value=0.0), nn.Conv2d(4, 3, 2, padding=1)),
        (2, 6, 6),
    ),
    "of one place": (lambda: Net(nn.ZeroPad2d(1), nn.Conv2d(4, 3, 1)), (2, 6, 6)),
    "of one dimension": (
        lambda: nn.Sequential(nn.ConstantPad1d(2, 0), nn.Conv1d(2, 4, 3), neuron.IFNode(0.3)),
        (2, 9),
    ),
}


class Image(nn.Module):
    """Shows an image in each step, padded in two ways once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 5)
        self.one = neuron.IFNode(0.3)

    def forward(self, x: torch.Tensor) -> Any:
        once, twice = functional.pad(x, (1, 1, 1, 1)), functional.pad(x, (2, 2, 2, 2))
        current = self.first(once) + self.wide(twice)
        return torch.stack([self.one(current) for _ in range(T)])


def test_an_image_is_padded_in_several_ways() -> None:
    model = lively(Image())
    given, fresh = (np.repeat(spikes(seed, 2, 6, 6)[:, :1], T, axis=1) for seed in (0, 1))
    network = read_spikingjelly(model, (2, 6, 6), samples=given)
    jelly.reset_net(model)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh[:, 0]).double()).transpose(0, 1).numpy()
    assert 0.02 < theirs.mean() < 0.98
    assert np.array_equal(simulate(network, fresh).output, theirs)


@pytest.mark.parametrize("name", MODELS)
def test_zeros_around_a_map_are_the_padding_of_a_convolution(name: str) -> None:
    make, shape = MODELS[name]
    model = lively(make())
    network = read_spikingjelly(model, shape, samples=spikes(0, *shape))
    fresh = spikes(1, *shape)
    jelly.reset_net(model)
    with torch.no_grad():
        frames = torch.from_numpy(fresh).double().transpose(0, 1)
        theirs = torch.stack([model(frame) for frame in frames], 1).numpy()
    assert 0.02 < theirs.mean() < 0.98
    run = simulate(network, fresh.reshape(N, T, *network.input_shape))
    assert np.array_equal(run.output.reshape(theirs.shape), theirs)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            Net(nn.ZeroPad2d((1, 0, 1, 1)), nn.Conv2d(4, 3, 2)),
            "pad: ZeroPad2d puts more zeros at one side than at the other; put as many at both",
        ),
        (
            Net(nn.ConstantPad2d(1, 0.5), nn.Conv2d(4, 3, 3)),
            "pad: ConstantPad2d with anything but zeros; outside of a map nothing fires",
        ),
        (
            Net(lambda y: functional.pad(y, (1, 1, 1, 1), mode="circular"), nn.Conv2d(4, 3, 3)),
            "forward: pad with anything but zeros",
        ),
        (
            Net(lambda y: functional.pad(y, (0, 0, 0, 0, 1, 1)), nn.Conv2d(6, 3, 3)),
            "forward: pad of anything but the rows and columns of a map",
        ),
        (
            Net(nn.ZeroPad2d(1), nn.AvgPool2d(2)),
            "behind: AvgPool2d hears zeros that were put around a map; only a convolution may",
        ),
    ],
)
def test_other_paddings_are_refused_as_what_they_are(model: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(lively(model), (2, 6, 6), samples=spikes(0, 2, 6, 6))
    assert any(line.startswith(words) for line in caught.value.offenders), caught.value
