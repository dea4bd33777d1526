"""Layers whose own forward makes something of their weights are read as they compute."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.nn import qat
from torch.ao.quantization import disable_observer, get_default_qat_qconfig
from torch.nn import functional

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional as jelly
from spikingjelly.activation_based import layer, neuron

T, N = 15, 6
Bits = np.ndarray[Any, Any]


class Quantized(nn.Linear):
    """Rounds its weights to seven steps of each sign, with gradients that ignore it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = self.weight.abs().max() / 7
        rounded = torch.round(self.weight / step) * step
        return functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class Adapted(nn.Linear):
    """Adds a product of two thin matrices (low-rank adaptation)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.down, self.up = nn.Linear(n_in, 2, bias=False), nn.Parameter(torch.randn(n_out, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.5 * (self.down(x) @ self.up.t())


class Standardized(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centered = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, centered / centered.std(), self.bias, self.stride, self.padding)


class Rounding(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).round()


def trained() -> nn.Module:
    """Return torch's own Linear of training that quantizes, its ranges found."""
    module: nn.Module = qat.Linear(14, 9, qconfig=get_default_qat_qconfig("fbgemm"))
    module(torch.rand(2, 14))
    return module.apply(disable_observer)


def model(first: nn.Module, mode: str = "s") -> nn.Module:
    torch.manual_seed(4)
    convolves = isinstance(first, nn.Conv2d)
    rest = [layer.Flatten(), layer.Linear(6 * 4 * 4, 5)] if convolves else [layer.Linear(9, 5)]
    net = nn.Sequential(first, neuron.IFNode(0.4), *rest, neuron.IFNode(0.3)).eval()
    # torch quantizes in single precision alone.
    net = net.double() if not isinstance(first, qat.Linear) else net
    jelly.set_step_mode(net, mode)
    return net


def spikes(seed: int, net: Any) -> Bits:
    shape = (2, 6, 6) if isinstance(net[0], nn.Conv2d) else (14,)
    return (np.random.default_rng(seed).random((N, T, *shape)) < 0.4).astype(np.uint8)


def read(net: nn.Module) -> Network:
    return import_network(net, None, check_samples("calibration", spikes(0, net)))


MODELS = {
    "quantized": lambda: model(Quantized(14, 9)),
    "torch's quantized": lambda: model(trained()),
    "adapted": lambda: model(Adapted(14, 9)),
    "standardized": lambda: model(Standardized(2, 6, 3)),
    "SpikingJelly's": lambda: model(layer.WSConv2d(2, 6, 3)),
    "SpikingJelly's, all steps": lambda: model(layer.WSConv2d(2, 6, 3), "m"),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_the_forward(name: str) -> None:
    net = MODELS[name]()
    before = copy.deepcopy(net.state_dict())
    network = read(net)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    fresh = spikes(1, net)
    x = torch.from_numpy(fresh).to(net[0].weight).transpose(0, 1)
    jelly.reset_net(net)
    with torch.no_grad():
        theirs = net(x) if name.endswith("steps") else torch.stack([net(frame) for frame in x])
    assert 0.02 < theirs.mean() < 0.98
    assert np.array_equal(simulate(network, fresh).output, theirs.transpose(0, 1).numpy())


def test_what_a_forward_does_to_signals_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read(model(Rounding(14, 9)))
    (line,) = caught.value.offenders
    assert line.startswith("0: round is not supported: it rounds signals")
