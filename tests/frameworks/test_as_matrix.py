"""Flat neurons that a forward sees as maps: each layer of maps behind them is a matrix.

What is expected is computed by the frameworks' own forwards, on samples that import has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.simulate import simulate

STEPS = 6
Bits = np.ndarray[Any, Any]
Between = Callable[[], list[nn.Module]]


def raster(seed: int, *shape: int, n: int = 20) -> Bits:
    return (np.random.default_rng(seed).random((n, STEPS, *shape)) < 0.4).astype(np.uint8)


def louder(model: nn.Module, factor: float = 5) -> nn.Module:
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
                part.weight.mul_(factor)
    # A BatchNorm that is folded rounds otherwise, which may move a spike in single precision.
    return model.eval().double()


def fired(model: nn.Module, x: Bits) -> Bits:
    """Return what SpikingJelly's nodes give at the end (n, T, ...), called once for each step."""
    functional.reset_net(model)
    with torch.no_grad():
        steps = [model(frame) for frame in torch.from_numpy(x).double().transpose(0, 1)]
    functional.reset_net(model)
    return torch.stack(steps, 1).numpy()


def decoder(values: int, between: Between = list) -> nn.Module:
    torch.manual_seed(5)
    return louder(
        nn.Sequential(
            *(layer.Linear(10, 64), neuron.IFNode(), nn.Unflatten(1, (4, 4, 4))),
            *(layer.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), nn.BatchNorm2d(6)),
            *(neuron.LIFNode(), *between(), layer.Flatten()),
            *(layer.Linear(values, 5), neuron.IFNode()),
        )
    )


@pytest.mark.parametrize(
    ("values", "between"),
    [
        (24, list),
        (6, lambda: [layer.AvgPool2d(2)]),
        (6, lambda: [layer.AdaptiveAvgPool2d(1)]),
        (3, lambda: [layer.Conv2d(6, 3, 2), neuron.IFNode()]),
    ],
)
def test_spikes_are_the_frameworks(values: int, between: Between) -> None:
    model, x = decoder(values, between), raster(0, 10)
    network = import_network(model, None, check_samples("data", x))
    assert [p.shape for p in network.populations][:2] == [(64,), (24,)]
    assert any("becomes a matrix of 1,536 weights" in note for note in network.notes)
    fresh = raster(1, 10)
    theirs = fired(model, fresh)
    assert 0.01 < theirs.mean() < 0.99
    assert np.array_equal(simulate(network, fresh).output, theirs)


def test_maps_of_one_dimension_are_matrices_too() -> None:
    torch.manual_seed(6)
    parts: list[nn.Module] = [layer.Linear(10, 24), neuron.IFNode(), nn.Unflatten(1, (3, 8))]
    parts += [layer.Conv1d(3, 4, 3, dilation=2), neuron.IFNode(), layer.Flatten()]
    model = louder(nn.Sequential(*parts, layer.Linear(16, 3), neuron.IFNode()))
    network = import_network(model, None, check_samples("data", raster(0, 10)))
    fresh = raster(1, 10)
    assert np.array_equal(simulate(network, fresh).output, fired(model, fresh))


def test_a_view_in_a_forward_is_the_same() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.fc, self.conv, self.out = nn.Linear(10, 32), nn.Conv2d(2, 3, 3), nn.Linear(12, 4)
            self.cells = nn.ModuleList(snn.Leaky(0.8) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem, steps = [cell.reset_mem() for cell in self.cells], []
            for frame in x:
                s, mem[0] = self.cells[0](self.fc(frame).view(-1, 2, 4, 4).transpose(2, 3), mem[0])
                s, mem[1] = self.cells[1](self.conv(s), mem[1])
                s, mem[2] = self.cells[2](self.out(s.flatten(1)), mem[2])
                steps.append(s)
            return torch.stack(steps)

    # snnTorch fires in single precision, in which a matrix adds up in another order.
    model = louder(Viewed()).float()
    network = import_network(model, None, check_samples("data", raster(0, 10)))
    fresh = raster(1, 10)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh).float().transpose(0, 1)).transpose(0, 1).numpy()
    assert theirs.any()
    assert (simulate(network, fresh).output != theirs).mean() < 0.005


def test_it_is_deployed() -> None:
    model, x = decoder(24), raster(0, 10)
    found = deploy(model, x, sparsity=0.5, bits=8, tune=False, backend="engine")
    assert found.network.output.size == 5
    assert found.mapping.cores_used > 0


def test_samples_that_are_turned_are_still_to_be_given_so() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.node = layer.Conv2d(2, 3, 3), neuron.IFNode()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spikes: torch.Tensor = self.node(self.conv(x.view(-1, 4, 4, 2).permute(0, 3, 1, 2)))
            return spikes

    with pytest.raises(UnsupportedModelError, match="They are the input: give samples so"):
        import_network(Turned().eval(), None, check_samples("data", raster(0, 32)))
