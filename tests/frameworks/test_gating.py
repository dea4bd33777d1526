"""Poolings by maximum and masks of spikes, against what the frameworks compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.gating import max_pooling
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.model.simulate import simulate


def fired(pool: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what gates with the weights of a pooling do with spikes (n, C, H, W)."""
    for found in max_pooling(pool, tuple(x.shape[1:])):
        weight = torch.tensor(np.array(found.weight))
        more = (found.stride, found.padding, found.dilation, found.groups)
        x = (nn.functional.conv2d(x, weight, None, *more) >= 1).float()
    return x


def spikes(seed: int, *shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.15).float()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_max_pooling_of_spikes_is_an_or_of_every_window(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, dilation, stride = pair(1, 4), pair(1, 3), pair(1, 5)
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    least = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    sides = [data.draw(st.integers(n, n + 9)) for n in least]
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=data.draw(st.booleans()))
    x = spikes(data.draw(st.integers(0, 99)), 3, 2, *sides)
    assert torch.equal(fired(pool, x), pool(x))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_adaptive_max_pooling_takes_windows_of_every_size(data: st.DataObject) -> None:
    sides = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    wanted = data.draw(st.tuples(*[st.one_of(st.none(), st.integers(1, 10))] * 2))
    pool = nn.AdaptiveMaxPool2d(wanted)
    x = spikes(data.draw(st.integers(0, 99)), 3, 2, *sides)
    assert torch.equal(fired(pool, x), pool(x))


@pytest.mark.parametrize(
    ("pool", "shape", "words"),
    [
        (nn.MaxPool2d(5), (2, 4, 4), r"MaxPool2d\(5, 5\) is larger than its input \(2, 4, 4\)"),
        (nn.MaxPool2d(2), (8,), r"MaxPool2d needs \(C, H, W\), got \(8,\)"),
        (nn.MaxPool2d(2, return_indices=True), (2, 4, 4), "answers with places"),
        (nn.AdaptiveMaxPool2d(2, return_indices=True), (2, 4, 4), "answers with places"),
    ],
)
def test_poolings_without_counterpart_say_why(
    pool: nn.Module, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        max_pooling(pool, shape)


class Masked(nn.Module):
    """Spikes and what becomes of them, joined by an operation."""

    def __init__(self, join: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(0.4))
        self.pool = layer.MaxPool2d(3, 2, 1)
        self.second = nn.Sequential(
            layer.Conv2d(4, 4, 3, padding=1), neuron.LIFNode(v_threshold=0.3)
        )
        self.join = join
        self.last = nn.Sequential(layer.Flatten(), layer.Linear(64, 6), neuron.IFNode(0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.first(x))
        answer: torch.Tensor = self.last(self.join(x, self.second(x)))
        return answer


functional_pool = nn.functional.max_pool2d
JOINS = {
    "and": lambda x, y: x * y,
    "and not": lambda x, y: x * (1.0 - y),
    "not and": lambda x, y: (1 - x) * y,
    "or": torch.maximum,
    "largest": torch.max,
    "least": torch.minimum,
    "in place": lambda x, y: x.mul(y),
    "chained": lambda x, y: x * y * (1 - x * y) + x * (1 - y),
    "in tokens": lambda x, y: (
        (x.flatten(3).transpose(2, 3) * y.flatten(3).transpose(2, 3))
        .transpose(2, 3)
        .reshape(x.shape)
    ),
    "of one channel": lambda x, y: x * y[:, :, :1],
    "of halves": lambda x, y: x * y[:, :, [2, 3, 0, 1]] + x * torch.chunk(y, 2, 2)[1][:, :, :1],
    "nor": lambda x, y: (1 - x) * (1 - y),
    "nand": lambda x, y: torch.maximum(1 - x, 1 - y),
    "or not": lambda x, y: torch.maximum(1 - x, y),
    "sum above 0": lambda x, y: ((x + y) > 0).to(x),
    "sum of 2": lambda x, y: (x + y >= 1.5).float().double(),
    "sum below": lambda x, y: (2 * x - y < 1).to(x),
    "sum at most": lambda x, y: (y - x <= 0).to(x),
    "cut off": lambda x, y: torch.clamp(x + y, max=1),
    "cut off on both sides": lambda x, y: (x - y).clamp(0, 1),
    "bool": lambda x, y: (
        (x.bool() | ~y.bool()).to(x) * torch.logical_and(x, y).to(x) + (x + y).bool().to(x)
    ),
    "largest along": lambda x, y: x * y.amax(dim=(-1, -2), keepdim=True),
    "smallest along": lambda x, y: (1 - x) * (1 - y.min(-1, keepdim=True)[0]),
    "pooled masks": lambda x, y: (
        x
        * functional_pool((1 - x * y).flatten(0, 1), 3, 1, 1).reshape(x.shape)
        * functional_pool((x * y).flatten(0, 1), 3, 1, 1).reshape(x.shape)
    ),
    "inclusive": lambda x, y: x + y + -1 * (x * y),
}


@pytest.mark.parametrize("name", JOINS)
def test_masks_of_spikes_are_gates(name: str) -> None:
    torch.manual_seed(1)
    model = Masked(JOINS[name]).double().eval()
    functional.set_step_mode(model, "m")
    x = (np.random.default_rng(0).random((5, 6, 2, 8, 8)) < 0.3).astype(np.uint8)
    network = read_spikingjelly(model, (2, 8, 8), samples=x)
    assert any(p.neuron.exact and "pool" not in p.name for p in network.populations)
    functional.reset_net(model)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    run = simulate(network, x)
    assert np.array_equal(run.output, wanted.numpy())
    assert all(0 < rate < 1 for rate in run.rates.values() if name != "chained")


def test_uneven_windows_in_front_of_a_convolution() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        *(layer.Conv2d(2, 3, 3), neuron.IFNode(0.4)),
        layer.SeqToANNContainer(nn.AdaptiveMaxPool2d((4, 3))),
        *(layer.Conv2d(3, 2, 2), neuron.IFNode(0.4)),
    )
    functional.set_step_mode(model.double().eval(), "m")
    x = (np.random.default_rng(0).random((5, 6, 2, 8, 7)) < 0.2).astype(np.uint8)
    network = read_spikingjelly(model, (2, 8, 7), samples=x)
    assert [p.shape for p in network.populations] == [(3, 6, 5), (36, 1, 1), (3, 4, 3), (2, 3, 2)]
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    run = simulate(network, x)
    assert np.array_equal(run.output, wanted.numpy())
    assert all(0 < rate < 1 for rate in run.rates.values())


def test_the_largest_of_counts_is_refused() -> None:
    model = nn.Sequential(layer.MaxPool2d(2), layer.Conv2d(2, 3, 3), neuron.IFNode()).eval()
    functional.set_step_mode(model, "m")
    counts = np.random.default_rng(0).integers(0, 4, (2, 5, 2, 8, 8)).astype(np.uint8)
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model, (2, 8, 8), samples=counts)
    (line,) = caught.value.offenders
    assert line.startswith("0: MaxPool2d takes the largest of several currents, sums or graded")


class Counted(nn.Module):
    """Spikes, counted along some axes by neurons that then mask them."""

    def __init__(self, join: Any, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(0.4))
        self.counted = neuron.LIFNode(v_threshold=0.4 * 3 ** len(axes))
        self.join, self.axes = join, axes
        self.last = nn.Sequential(layer.Flatten(), layer.Linear(4 * 5 * 6, 6), neuron.IFNode(0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        mask = self.counted(x.sum(dim=self.axes, keepdim=True))
        answer: torch.Tensor = self.last(self.join(x, mask))
        return answer


@pytest.mark.parametrize("axes", [(-1,), (3,), (2,), (-2, -1), (2, 4), (2, 3, 4)])
@pytest.mark.parametrize("name", ["and", "not and", "or"])
def test_masks_are_repeated_along_axes_of_one(name: str, axes: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = Counted(JOINS[name], axes).double().eval()
    functional.set_step_mode(model, "m")
    x = (np.random.default_rng(0).random((5, 6, 2, 5, 6)) < 0.3).astype(np.uint8)
    network = read_spikingjelly(model, (2, 5, 6), samples=x)
    functional.reset_net(model)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    run = simulate(network, x)
    assert np.array_equal(run.output, wanted.numpy())
    counted = next(p for p in network.populations if p.name == "counted")
    assert counted.shape == tuple(
        1 if a in axes or a - 5 in axes else s for a, s in zip((2, 3, 4), (4, 5, 6), strict=True)
    )
    assert all(0 < rate < 1 for rate in run.rates.values())


@pytest.mark.parametrize(
    "pools",
    [(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)), (nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(3))],
)
def test_poolings_one_after_the_other_in_a_container(pools: tuple[nn.Module, ...]) -> None:
    torch.manual_seed(1)
    size = 3 if isinstance(pools[1], nn.AdaptiveMaxPool2d) else 2

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(0.4))
            self.pools = layer.SeqToANNContainer(*pools, nn.Flatten())
            self.last = nn.Sequential(layer.Linear(4 * size**2, 6), neuron.IFNode(0.3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.last(self.pools(self.first(x)))
            return answer

    model = Own().double().eval()
    functional.set_step_mode(model, "m")
    x = (np.random.default_rng(0).random((5, 6, 2, 8, 8)) < 0.3).astype(np.uint8)
    network = read_spikingjelly(model, (2, 8, 8), samples=x)
    assert [p.size for p in network.populations] == [256, 64, 4 * size**2, 6]
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).double().transpose(0, 1)).transpose(0, 1)
    assert np.array_equal(simulate(network, x).output, wanted.numpy())


@pytest.mark.parametrize(
    ("join", "words"),
    [
        (lambda x, y: x * (x + y), "product of signals of which one is neither"),
        (lambda x, y: x * (0.5 * y), "product of signals of which one is neither"),
        (lambda x, y: torch.maximum(x, 2 * y), "maximum of signals of which one is neither"),
        (lambda x, y: (x + 0.5 * y > 1).to(x), "gt is not supported: it chooses among signals"),
        (lambda x, y: (x > y).to(x), "gt is not supported: it chooses among signals"),
        (lambda x, y: (x - y).clamp(max=1), "clamp of spikes to anything but 0 and 1"),
        (lambda x, y: (x + y).clamp(max=2), "clamp of spikes to anything but 0 and 1"),
        (lambda x, y: (0.5 * x).bool().to(x), "bool is not supported"),
        (lambda x, y: (x + y).amax(-1, keepdim=True) * x, "takes the largest of several"),
    ],
)
def test_masks_of_currents_are_refused(join: Any, words: str) -> None:
    model = Masked(join).eval()
    functional.set_step_mode(model, "m")
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model, (2, 8, 8), samples=np.ones((1, 2, 2, 8, 8), np.uint8))
    assert any(words in line for line in caught.value.offenders), caught.value.offenders


class Pooled(nn.Module):
    """Sums of spikes of three layers, of which the largest is heard."""

    def __init__(self, add: Any, pool: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(0.3))
        self.two = nn.Sequential(layer.Conv2d(4, 4, 3, padding=1), neuron.LIFNode(v_threshold=0.2))
        self.three = nn.Sequential(layer.Conv2d(4, 4, 1), neuron.IFNode(0.3))
        self.add, self.pool = add, pool
        self.behind = nn.Sequential(layer.Conv2d(4, 3, 1), neuron.IFNode(0.3), layer.Flatten())
        functional.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        y = self.two(x)
        answer: torch.Tensor = self.behind(self.pool(self.add(x, y, self.three(y))))
        return answer


SUMS: dict[str, tuple[Any, int]] = {
    "of two": (lambda x, y, z: x + y, 2),
    "of three": (lambda x, y, z: x + y + z, 3),
    "in place": (lambda x, y, z: x.clone().add_(y), 2),
    "of one twice": (lambda x, y, z: 2 * x, 2),
    "of one that counts twice": (lambda x, y, z: 2 * x + y, 3),
    "of masks": (lambda x, y, z: x * y + z, 2),
}
POOLS: dict[str, Any] = {
    "halves": lambda: layer.MaxPool2d(2),
    "overlaps": lambda: layer.MaxPool2d(3, 2, 1),
    "one for all": lambda: layer.MaxPool2d(7),
}  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("add", SUMS)
def test_the_largest_of_sums_is_a_gate_for_each_number(add: str, pool: str) -> None:
    together, most = SUMS[add]
    model = Pooled(together, POOLS[pool]()).eval()
    x = (np.random.default_rng(0).random((6, 5, 2, 7, 7)) < 0.5).astype(np.uint8)
    network = read_spikingjelly(model, (2, 7, 7), samples=x)
    reached = [p.name for p in network.populations if p.name.endswith(".reached")]
    assert reached == [f"pool.{number}.reached" for number in range(2, most + 1)]
    others = (np.random.default_rng(1).random((5, 8, 2, 7, 7)) < 0.4).astype(np.uint8)
    functional.reset_net(model)
    with torch.no_grad():
        given = torch.from_numpy(others).float().transpose(0, 1)
        theirs = model(given).transpose(0, 1).numpy()
    functional.reset_net(model)
    ours = simulate(network, others).output
    assert np.array_equal(ours.reshape(theirs.shape), theirs)
    assert theirs.any()


def test_the_largest_of_currents_or_of_large_sums_is_refused_with_the_ways_out() -> None:
    stacked = nn.Sequential(layer.Conv2d(2, 4, 3), layer.MaxPool2d(2), neuron.IFNode())
    large = Pooled(lambda x, y, z: 16 * x + y, layer.MaxPool2d(2))
    weighted = Pooled(lambda x, y, z: 0.5 * x + y, layer.MaxPool2d(2))
    taken = Pooled(lambda x, y, z: x - y, layer.MaxPool2d(2))
    for model in (stacked, large, weighted, taken):
        functional.set_step_mode(model.eval(), "m")
        with pytest.raises(UnsupportedModelError) as caught:
            read_spikingjelly(model, (2, 8, 8), samples=np.ones((1, 2, 2, 8, 8), np.uint8))
        (line,) = caught.value.offenders
        assert "takes the largest of several currents, sums or graded values" in line
        assert "behind neurons" in line
        # Sums are not what a convolution gives.
        assert ("--substitute maxpool=avg" in line) == (model is stacked)
