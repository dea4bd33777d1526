"""Some channels of maps, or all of them in another order, against the framework's own forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d

from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.importing import import_network
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")

Acts = Callable[[Any, torch.Tensor], torch.Tensor]
Array = np.ndarray[Any, Any]


def shuffled(a: torch.Tensor) -> torch.Tensor:
    """Return channels as ShuffleNet mixes them: those of two groups in turn."""
    n, c, h, w = a.shape
    return a.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class Net(nn.Module):
    """Spikes (8, 6, 6), what is done with them, and neurons."""

    def __init__(self, act: Acts) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.act = act
        self.first, self.l1 = nn.Conv2d(2, 8, 3, padding=1), snn.Leaky(beta=0.9)
        self.four, self.eight = (nn.Conv2d(c, 6, 3, padding=1) for c in (4, 8))
        self.groups = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.point, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.l2 = snn.Leaky(beta=0.8)
        with torch.no_grad():
            for conv in (self.first, self.four, self.eight, self.groups, self.point):
                conv.weight.mul_(3)
            self.norm.running_mean.uniform_(0, 0.5)
            self.norm.running_var.uniform_(0.2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m1, m2, found = self.l1.init_leaky(), self.l2.init_leaky(), []
        for frame in x:
            s1, m1 = self.l1(self.first(frame), m1)
            s2, m2 = self.l2(self.act(self, s1), m2)
            found.append(s2)
        return torch.stack(found)


def raster(seed: int) -> Array:
    return (np.random.default_rng(seed).random((5, 8, 2, 6, 6)) < 0.4).astype(np.uint8)


HEARD: dict[str, Acts] = {
    "first half": lambda net, a: net.four(a[:, :4]),
    "second of two chunks": lambda net, a: net.four(a.chunk(2, 1)[1]),
    "split": lambda net, a: net.four(torch.split(a, [4, 4], dim=1)[1]),
    "every second": lambda net, a: net.four(a[:, ::2]),
    "one twice": lambda net, a: net.four(a[:, [5, 5, 0, 2]]),
    "shuffled": lambda net, a: net.eight(shuffled(a)),
    "shuffled into groups": lambda net, a: net.groups(shuffled(a)),
    "two halves, each with its layer": lambda net, a: torch.cat([a[:, :4], net.point(a[:, 4:])], 1),
    "both halves added": lambda net, a: net.four(a[:, :4]) + net.four(a[:, 4:]),
    "norm": lambda net, a: net.point(net.norm(a[:, 4:])),
    "currents": lambda net, a: net.norm(net.groups(a)[:, 2:6]),
    "average": lambda net, a: net.four(avg_pool2d(a[:, 4:], 2)),
    "average onto a size": lambda net, a: net.point(adaptive_avg_pool2d(a[:, 3:7], 2)),
    "largest": lambda net, a: net.four(max_pool2d(a[:, :4], 2)),
    "largest of no spikes": lambda net, a: net.four(max_pool2d((1 - a)[:, 4:], 3, 2, 1)),
    "no spikes of a part": lambda net, a: net.four(max_pool2d(1 - a[:, 4:], 2)),
}


@pytest.mark.parametrize("act", HEARD)
def test_channels_are_heard_as_torch_gives_them(act: str) -> None:
    model, x = Net(HEARD[act]).eval(), raster(0)
    network = import_network(model, None, check_samples("calibration", x))
    fresh = raster(1)
    with torch.no_grad():
        theirs = model(torch.from_numpy(np.moveaxis(fresh, 1, 0).copy()).float()).numpy()
    assert 0.01 < theirs.mean() < 0.99
    assert np.array_equal(np.moveaxis(simulate(network, fresh).output, 1, 0), theirs)


def test_channels_of_one_dimension() -> None:
    class Flat(Net):
        def __init__(self) -> None:
            super().__init__(lambda net, a: net.four(net.norm(a[:, 4:])))
            self.first, self.four = nn.Conv1d(2, 8, 3, padding=1), nn.Conv1d(4, 6, 3)
            self.norm = nn.BatchNorm1d(4)
            with torch.no_grad():
                self.first.weight.mul_(3)
                self.four.weight.mul_(3)
                self.norm.running_mean.uniform_(0, 0.5)

    model, x = Flat().eval(), raster(0)[:, :, :, 0]
    network = import_network(model, None, check_samples("calibration", x))
    with torch.no_grad():
        theirs = model(torch.from_numpy(np.moveaxis(x, 1, 0).copy()).float()).numpy()
    assert theirs.any()
    ours = np.moveaxis(simulate(network, x[:, :, :, None]).output, 1, 0)
    assert np.array_equal(ours.reshape(theirs.shape), theirs)


def test_a_convolution_of_a_half_is_compressed_and_runs_alike_everywhere() -> None:
    """The weights of channels that it does not hear are zero, and stay so."""
    found = deploy(Net(HEARD["first half"]), raster(0), sparsity=0.5, bits=6, tune=False)
    assert found.fidelity.mismatched_spikes == 0
    codes = found.compressed.projections["four"].codes
    assert codes.shape == (6, 8, 3, 3)
    assert not codes[:, 4:].any()
    assert codes[:, :4].any()


def test_rows_that_are_cut_are_heard_where_they_lie() -> None:
    model, x = Net(lambda net, a: net.eight(a[:, :, 1:5])).eval(), raster(0)
    network = import_network(model, None, check_samples("calibration", x))
    fresh = raster(1)
    with torch.no_grad():
        theirs = model(torch.from_numpy(np.moveaxis(fresh, 1, 0).copy()).float()).numpy()
    assert theirs.any()
    ours = np.moveaxis(simulate(network, fresh).output, 1, 0)
    assert np.array_equal(ours.reshape(theirs.shape), theirs)
