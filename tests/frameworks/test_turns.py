"""Time behind a sample's own axes: answers that are stacked so, and samples that are taken so.

Nothing here decodes but the frameworks' forwards: what they answer is what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from drawn import lively
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.answer import read_by
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import evidence
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional as jelly  # noqa: E402 - after the check
from spikingjelly.activation_based import layer, neuron  # noqa: E402

T = 7
Bits = np.ndarray[Any, Any]
End = Callable[[list[torch.Tensor]], Any]


def raster(*shape: int, seed: int = 0, n: int = 6, steps: int = T) -> Bits:
    rng = np.random.default_rng(seed)
    return (rng.random((n, steps, *shape)) < 0.4).astype(np.uint8)


def imported(model: nn.Module, x: Bits) -> Network:
    return import_network(model, None, check_samples("calibration", x))


def said(network: Network, x: Bits) -> Bits:
    """What the network says for each class."""
    network, readout = read_by(network, network.readout or "sum")
    shaped = x.reshape(*x.shape[:2], *network.input_shape)
    return np.asarray(evidence(simulate(network, shaped).output, readout), np.float64)


class Dense(nn.Module):
    """Three classes, of which the forward makes what `end` says."""

    def __init__(self, end: End) -> None:
        super().__init__()
        self.end = end
        self.one, self.two = nn.Linear(9, 14), nn.Linear(14, 3)
        self.lif1, self.lif2 = snn.Leaky(0.9), snn.Leaky(0.8)

    def steps(self, frames: list[torch.Tensor]) -> Any:
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for frame in frames:
            spk, mem1 = self.lif1(self.one(frame), mem1)
            spk, mem2 = self.lif2(self.two(spk), mem2)
            found.append(spk)
        return self.end(found)

    def forward(self, x: torch.Tensor) -> Any:
        return self.steps(list(x.unbind(0)))


SUMS: dict[str, tuple[End, str]] = {
    "mean of a last axis": (lambda f: torch.stack(f, -1).mean(-1), "sum"),
    "sum of the third axis": (lambda f: torch.stack(f, dim=2).sum(dim=2), "sum"),
    "turned there": (lambda f: torch.stack(f).permute(1, 2, 0).sum(-1), "sum"),
    "turned there and back": (lambda f: torch.stack(f, -1).movedim(-1, 1).sum(1), "sum"),
    "one step after the other": (lambda f: sum(torch.stack(f, -1).unbind(-1)), "sum"),
    "largest": (lambda f: torch.stack(f, -1).max(-1).values, "max"),
    "last": (lambda f: torch.stack(f, dim=-1)[..., -1], "last"),
    "last of all classes": (lambda f: torch.stack(f, dim=-1)[:, :, -1], "last"),
}


@pytest.mark.parametrize("end", SUMS)
def test_answers_are_reduced_along_a_last_axis(end: str) -> None:
    reduce, readout = SUMS[end]
    model, x = lively(Dense(reduce)), raster(9)
    network = imported(model, x)
    assert network.readout == readout
    for seed, n in ((1, 6), (2, 1)):
        others = raster(9, seed=seed, n=n)
        with torch.no_grad():
            theirs = model(torch.from_numpy(others).float().transpose(0, 1)).numpy()
        ours = said(network, others)
        assert np.allclose(ours if end != "mean of a last axis" else ours / T, theirs)
        assert theirs.any()


def test_an_answer_of_all_steps_may_have_time_last() -> None:
    model, x = lively(Dense(lambda f: torch.stack(f, dim=-1))), raster(9)
    network = imported(model, x)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x).float().transpose(0, 1)).numpy()
    assert np.array_equal(simulate(network, x).output, np.moveaxis(theirs, -1, 1))


class Last(Dense):
    """Takes samples of (n, channels, T), as recordings of sensors are kept."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.steps([x[:, :, t] for t in range(x.shape[-1])])


class Turned(Dense):
    def forward(self, x: torch.Tensor) -> Any:
        return self.steps(list(x.permute(2, 0, 1)))


@pytest.mark.parametrize("kind", [Last, Turned])
# As many steps as channels, and as classes, too.
@pytest.mark.parametrize("steps", [7, 9, 3])
def test_samples_of_sensors_are_taken_with_time_last(kind: type[Dense], steps: int) -> None:
    model = lively(kind(lambda f: torch.stack(f).sum(0)))
    network = imported(model, raster(9, steps=steps))
    for seed, n in ((1, 6), (2, 1)):
        others = raster(9, seed=seed, n=n, steps=steps)
        with torch.no_grad():
            theirs = model(torch.from_numpy(others).float().movedim(1, -1)).numpy()
        assert np.array_equal(said(network, others), theirs)
        assert theirs.any()


class Maps(nn.Module):
    """Takes events as (n, channels, T, rows, columns), or with time last."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.features = nn.Sequential(
            layer.Conv2d(2, 5, 3, bias=False), neuron.LIFNode(tau=1.5), layer.MaxPool2d(2)
        )
        self.classes = nn.Sequential(layer.Flatten(), layer.Linear(45, 4), neuron.IFNode())

    def forward(self, x: torch.Tensor) -> Any:
        frames = x.movedim(-1, 0) if self.last else x.transpose(0, 2).transpose(1, 2)
        rates = [self.classes(self.features(frame)) for frame in frames]
        return torch.stack(rates, dim=1).mean(dim=1)


@pytest.mark.parametrize("last", [False, True])
def test_events_are_taken_with_time_behind_their_channels(last: bool) -> None:
    model = lively(Maps(last=last))
    network = imported(model, raster(2, 8, 8))
    others = raster(2, 8, 8, seed=4, n=3)
    given = torch.from_numpy(others).float()
    given = given.movedim(1, -1) if last else given.movedim(1, 2)
    jelly.reset_net(model)
    with torch.no_grad():
        theirs = model(given).numpy()
    assert np.allclose(said(network, others) / T, theirs)
    assert theirs.any()


class Convolved(Last):
    """A filter along time, which no step of a chip computes."""

    def __init__(self) -> None:
        super().__init__(lambda f: torch.stack(f).sum(0))
        self.filter = nn.Conv1d(9, 9, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(self.filter(x))


def test_what_computes_along_time_is_refused_for_that() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        imported(lively(Convolved()), raster(9))
    assert caught.value.offenders[0].startswith(
        "filter: hears time behind axes of a sample, as what computes across time does"
    )


class Mixed(Dense):
    """Two layers on a last axis, which is no time: a mean of them is none over time."""

    def steps(self, frames: list[torch.Tensor]) -> Any:
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for frame in frames:
            spk, mem1 = self.lif1(self.one(frame), mem1)
            spk, mem2 = self.lif2(self.two(spk), mem2)
            found.append(torch.stack([spk, functional.relu(spk)], dim=-1).sum(-1))
        return torch.stack(found)


def test_layers_on_a_last_axis_are_no_steps() -> None:
    with pytest.raises(UnsupportedModelError, match="stack"):
        imported(lively(Mixed(lambda f: f[0])), raster(9))


def test_a_part_of_the_steps_on_a_last_axis_is_no_vote() -> None:
    with pytest.raises(UnsupportedModelError, match=r"output: .*not what lif2 gives in all steps"):
        imported(lively(Dense(lambda f: torch.stack(f[1:], -1).sum(-1))), raster(9))


def behind(vote: bool) -> nn.Module:
    """SpikingJelly's container of steps that come last, alone or in a forward that turns."""
    inner = layer.TLastMultiStepContainer(
        *(layer.Conv2d(2, 3, 3), neuron.LIFNode(), layer.Flatten()),
        *(layer.Linear(12, 4), neuron.IFNode()),
    )

    class Voted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x.movedim(0, -1)).mean(-1)

    return lively(Voted() if vote else inner)


@pytest.mark.parametrize("vote", [False, True])
def test_containers_of_steps_that_come_last_are_looked_into(vote: bool) -> None:
    torch.manual_seed(3)
    model = behind(vote)
    network = imported(model, raster(2, 4, 4))
    fresh = raster(2, 4, 4, seed=1)
    with torch.no_grad():
        x = torch.from_numpy(fresh).float().transpose(0, 1)
        jelly.reset_net(model)
        theirs = model(x) if vote else model(x.movedim(0, -1)).mean(-1)
    assert theirs.any()
    assert np.allclose(said(network, fresh) / T, theirs.numpy())


def test_layers_that_are_mapped_over_time_are_named_as_unseen() -> None:
    model = nn.Sequential(
        layer.TLastSeqToANNContainer(layer.Linear(9, 4)),
        layer.TLastMultiStepContainer(neuron.IFNode()),
    )
    with pytest.raises(UnsupportedModelError, match=r"torch\.vmap"):
        imported(lively(model), raster(9))
