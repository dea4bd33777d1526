"""Maps that ``torch.cat`` puts side by side, against the frameworks' own spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.simulate import simulate
from own_spikes import differ_on_the_chip, fires_alike, frames, imported, jelly, raster, trained

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import layer, neuron  # noqa: E402 - after the check
from spikingjelly.activation_based.functional import reset_net  # noqa: E402


def end(size: int) -> list[nn.Module]:
    return [layer.Flatten(), layer.Linear(size, 5), neuron.LIFNode()]


class Inception(nn.Module):
    """Branches of the input side by side, of spikes or of currents, and what hears them."""

    def __init__(self, *behind: nn.Module, pooled: bool = False, fire: bool = True) -> None:
        super().__init__()
        self.a, self.b = layer.Conv2d(2, 3, 3, padding=1), layer.Conv2d(2, 4, 5, padding=2)
        self.bn = layer.BatchNorm2d(4)
        self.na, self.nb = (neuron.LIFNode() if fire else nn.Identity() for _ in range(2))
        self.pool = layer.AvgPool2d(3, 1, 1) if pooled else None
        self.behind = nn.Sequential(*behind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.na(self.a(x)), self.nb(self.bn(self.b(x)))]
        if self.pool is not None:
            branches.append(self.pool(x))
        answer: torch.Tensor = self.behind(torch.cat(branches, 2))
        return answer


def inception(*behind: nn.Module, gain: float = 4.0, **more: bool) -> nn.Module:
    return jelly(Inception(*behind, **more), gain)


def test_a_convolution_hears_each_of_several_branches() -> None:
    model = inception(
        layer.Conv2d(9, 6, 3, 2, 1), neuron.LIFNode(), *end(96), pooled=True, gain=4.0
    )
    network = fires_alike(model, 2, 8, 8)
    heard = {p.pre: p for p in network.afferents("behind.1")}
    assert {pre: p.connection.weight.shape[:2] for pre, p in heard.items()} == {
        "na": (6, 3), "nb": (6, 4), "input": (6, 2)
    }  # fmt: skip
    assert all(p.compressible for p in heard.values())
    # What is added is added once.
    assert [p.connection.bias is not None for p in heard.values()] == [True, False, False]
    whole = np.concatenate([heard[pre].connection.weight for pre in ("na", "nb")], 1)
    assert np.array_equal(whole, model.behind[0].weight.detach().numpy()[:, :7])  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "behind",
    [
        # A pooling and a BatchNorm between, in groups across both branches, and rows of layers.
        [layer.AvgPool2d(2), layer.BatchNorm2d(7), layer.Conv2d(7, 6, 1), neuron.LIFNode(),
         *end(96)],
        [layer.Conv2d(7, 14, 3, padding=1, groups=7), layer.Conv2d(14, 6, 1), neuron.LIFNode(),
         *end(384)],
        [layer.AvgPool2d(3, 2, 1), layer.Conv2d(7, 6, 3), neuron.LIFNode(), *end(24)],
        # Neurons of their own.
        [layer.BatchNorm2d(7), neuron.LIFNode(), *end(448)],
        # The end of a network without neurons between.
        [layer.AdaptiveAvgPool2d(2), layer.Dropout(), *end(28)],
        # Gates.
        [layer.MaxPool2d(3, 2, 1), layer.Conv2d(7, 6, 3), neuron.LIFNode(), *end(24)],
    ],
)  # fmt: skip
def test_what_else_hears_branches(behind: list[nn.Module]) -> None:
    fires_alike(inception(*behind), 2, 8, 8)


def test_currents_side_by_side() -> None:
    network = fires_alike(
        inception(layer.BatchNorm2d(7), neuron.LIFNode(), *end(448), fire=False), 2, 8, 8
    )
    assert {(p.name, p.compressible) for p in network.afferents("behind.1")} == {
        ("a", True), ("b", True)
    }  # fmt: skip
    row = [layer.Conv2d(7, 6, 1), layer.BatchNorm2d(6), neuron.LIFNode()]
    fires_alike(inception(*row, *end(384), fire=False), 2, 8, 8)


class Passed(Inception):
    """Spikes beside currents."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.behind(torch.cat([self.na(self.a(x)), self.b(x)], 2))
        return answer


def test_spikes_are_compressed_beside_currents_only() -> None:
    row = [layer.BatchNorm2d(7), neuron.LIFNode(), *end(448)]
    mixed = fires_alike(jelly(Passed(*row), 4.0), 2, 8, 8)
    assert {p.name: p.compressible for p in mixed.afferents("behind.1")} == {
        "na-behind.1": True, "b": True
    }  # fmt: skip
    alone = fires_alike(inception(*row), 2, 8, 8)
    assert not any(p.compressible for p in alone.afferents("behind.1"))


class Dense(nn.Module):
    """DenseNet's block in snnTorch's loop: every layer hears all before it."""

    def __init__(self, growth: int = 3) -> None:
        super().__init__()
        widths = [2 + growth * n for n in range(4)]
        self.convs = nn.ModuleList(nn.Conv2d(w, growth, 3, padding=1) for w in widths[:3])
        self.lifs = nn.ModuleList(snn.Leaky(0.8) for _ in widths[:3])
        self.bn, self.mix = nn.BatchNorm2d(widths[3]), nn.Conv2d(widths[3], 6, 1)
        self.lif, self.fc, self.out = snn.Leaky(0.8), nn.Linear(96, 4), snn.Leaky(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mems = [lif.init_leaky() for lif in self.lifs]
        mem, last, rec = self.lif.init_leaky(), self.out.init_leaky(), []
        for frame in x:
            seen = frame
            for n, (conv, lif) in enumerate(zip(self.convs, self.lifs, strict=True)):
                spikes, mems[n] = lif(conv(seen), mems[n])
                seen = torch.cat((seen, spikes), dim=1)
            spikes, mem = self.lif(nn.functional.avg_pool2d(self.mix(self.bn(seen)), 2), mem)
            spikes, last = self.out(self.fc(spikes.flatten(1)), last)
            rec.append(spikes)
        return torch.stack(rec)


def test_branches_of_branches() -> None:
    model, fresh = trained(Dense(), 2.5).float(), raster(1, 2, 8, 8)
    network = imported(model, raster(0, 2, 8, 8))
    with torch.no_grad():
        expected = model(frames(fresh).float()).movedim(0, 1).numpy()
    found = simulate(network, fresh).output
    assert np.array_equal(found, expected)
    assert 0.02 < found.mean() < 0.98
    assert len(network.afferents("lif")) == 4


class Fed(nn.Module):
    """snnTorch: a convolution hears the input beside what its neurons sent a step before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(6, 4, 3, padding=1), snn.Leaky(0.8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, rec = self.na.init_leaky(), []
        spikes = torch.zeros(x.shape[1], 4, *x.shape[3:])
        for frame in x:
            spikes, mem = self.na(self.a(torch.cat([spikes, frame], 1)), mem)
            rec.append(spikes)
        return torch.stack(rec)


def test_what_was_sent_a_step_before_beside_the_input() -> None:
    model, fresh = trained(Fed(), 2.0).float(), raster(1, 2, 6, 6)
    network = imported(model, raster(0, 2, 6, 6))
    with torch.no_grad():
        expected = model(frames(fresh).float()).movedim(0, 1).numpy()
    found = simulate(network, fresh).output
    assert np.array_equal(found, expected)
    assert 0.02 < found.mean() < 0.98


class Halves(nn.Module):
    """norse: half of the channels goes on as it is, of one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv1d(4, 6, 3, padding=1), norse.LIFCell()
        self.b, self.nb = nn.Conv1d(6, 3, 3, padding=1), norse.LIFCell()
        self.c, self.nc = nn.Conv1d(6, 5, 3), norse.LIFCell()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sa = sb = sc = None
        rec = []
        for frame in x:
            spikes, sa = self.na(self.a(frame), sa)
            still, _ = spikes.chunk(2, 1)
            moved, sb = self.nb(self.b(spikes), sb)
            spikes, sc = self.nc(self.c(torch.cat([moved, still], 1)), sc)
            rec.append(spikes)
        return torch.stack(rec)


def test_a_part_of_what_neurons_send_beside_others() -> None:
    model, fresh = trained(Halves(), 6.0), raster(1, 4, 12)
    network = imported(model, raster(0, 4, 12))
    with torch.no_grad():
        expected = model(frames(fresh)).movedim(0, 1).numpy()
    found = simulate(network, fresh.reshape(4, 8, 4, 1, 12)).output
    assert np.array_equal(found.reshape(expected.shape), expected)
    assert 0.02 < found.mean() < 0.98


class Usual(nn.Module):
    """What a function makes of two populations of four channels, heard by a convolution."""

    def __init__(self, act: Callable[..., torch.Tensor], channels: int) -> None:
        super().__init__()
        self.act, self.a, self.na = act, layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode()
        self.b, self.nb = layer.Conv2d(4, 4, 3, padding=1), neuron.LIFNode()
        self.out = nn.Sequential(
            layer.Conv2d(channels, 4, 3, padding=1), layer.AdaptiveAvgPool2d(2), neuron.LIFNode()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.na(self.a(x))
        answer: torch.Tensor = self.out(self.act(one, self.nb(self.b(one))))
        return answer


def test_scaled_parts_side_by_side_round_as_the_model_does() -> None:
    # In double precision, as the model is.
    def act(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([a[:, :, :2] / 3, b[:, :, 1:3] * 1.7], 2)

    fires_alike(jelly(Usual(act, 4), 6.0), 2, 8, 8)


class Rows(nn.Module):
    """Rows of a map side by side, in another order, and flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = layer.Conv2d(2, 3, 3), neuron.LIFNode()
        self.fc, self.out = layer.Linear(108, 5), neuron.LIFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.na(self.a(x))
        turned = torch.cat([maps[..., 2:, :], maps[..., :2, :]], 3)
        answer: torch.Tensor = self.out(self.fc(turned.flatten(2)))
        return answer


def test_a_linear_hears_parts_of_maps_side_by_side_along_rows() -> None:
    fires_alike(jelly(Rows(), 4.0), 2, 8, 8)


@pytest.mark.parametrize(
    ("act", "channels", "said"),
    [
        (
            lambda one, two: torch.cat([one[:, :, :2], 1 - two[:, :, :2]], 2), 4,
            "out.0: takes spikes with a constant added; only zero is padded with",
        ),
        # Along rows.
        (
            lambda one, two: torch.cat([one, two], 3), 4,
            "forward: cat puts (4, 8, 8) and (4, 8, 8) side by side, which only a Linear may hear, "
            "flattened; all else hears whole channels of maps of one size side by side",
        ),
    ],
)  # fmt: skip
def test_what_is_not_whole_channels_is_refused_in_one_line(
    act: Any, channels: int, said: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        imported(jelly(Usual(act, channels)), raster(0, 2, 8, 8))
    assert len(caught.value.offenders) == 1
    assert caught.value.offenders[0].startswith(said)


def test_the_largest_of_signals_side_by_side_is_a_gate_if_all_are_spikes() -> None:
    fires_alike(jelly(Usual(lambda a, b: torch.cat([a, b], 2).amax(2, keepdim=True), 1)), 2, 8, 8)
    for act in (
        lambda a, b: torch.cat([a, b + a], 2),
        lambda a, b: torch.cat([a, 1 - b], 2),
        lambda a, b: torch.cat([1 - a, 1 - b], 2),
    ):
        model = Usual(lambda a, b, act=act: act(a, b).amax(2, keepdim=True), 1)
        with pytest.raises(UnsupportedModelError) as caught:
            imported(jelly(model), raster(0, 2, 8, 8))
        assert len(caught.value.offenders) == 1
        assert "amax takes the largest of several currents" in caught.value.offenders[0]


def test_the_largest_of_what_is_1_less_spikes_side_by_side_is_refused() -> None:
    def act(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = torch.cat([1 - a, 1 - b], 2)
        pooled = nn.functional.max_pool2d(both.flatten(0, 1), 3, 1, 1)
        return pooled.unflatten(0, both.shape[:2])

    with pytest.raises(UnsupportedModelError, match="MaxPool2d takes the largest of several curr"):
        imported(jelly(Usual(act, 8)), raster(0, 2, 8, 8))


def test_branches_fire_on_the_chip_as_they_should() -> None:
    model = inception(
        layer.MaxPool2d(2), layer.Conv2d(7, 6, 3, padding=1), neuron.LIFNode(), *end(96)
    )
    x = raster(0, 2, 8, 8)
    for name, (fired, share) in differ_on_the_chip(model, x).items():
        assert fired.any()
        assert share < 0.03, name


class Branches(nn.Module):
    """Two halves of the input, heard by two layers each, which stand together as `join` says."""

    def __init__(self, join: Any) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.join = join
        self.ones = nn.ModuleList(nn.Linear(5, 8) for _ in range(2))
        self.cells = nn.ModuleList(neuron.IFNode(0.4) for _ in range(2))
        self.twos = nn.ModuleList(nn.Linear(8, 6) for _ in range(3))
        self.last, self.end = nn.LazyLinear(4), neuron.IFNode(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        fired = [c(w(x[:, 5 * i : 5 * i + 5])) for i, (c, w) in enumerate(
            zip(self.cells, self.ones, strict=True))]  # fmt: skip
        answer: torch.Tensor = self.end(self.last(self.join(self, fired)))
        return answer


JOINED: dict[str, Any] = {
    "concat": lambda net, f: torch.concat(f, dim=1),
    "concatenate": lambda net, f: torch.concatenate(f, 1),
    "hstack": lambda net, f: torch.hstack(f),
    "sum of a stack": lambda net, f: torch.stack([w(f[0]) for w in net.twos]).sum(0),
    "mean of a stack": lambda net, f: torch.stack([w(f[1]) for w in net.twos]).mean(0),
    "mean of two": lambda net, f: torch.stack(f).mean(dim=0),
}


@pytest.mark.parametrize("how", JOINED)
def test_what_stands_together_has_many_names(how: str) -> None:
    model = Branches(JOINED[how])
    with torch.no_grad():
        model(torch.zeros(2, 10))
        for part in model.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(3)
    reset_net(model.eval())
    x = (np.random.default_rng(0).random((6, 9, 10)) < 0.4).astype(np.uint8)
    network = import_network(model, None, check_samples("calibration", x))
    others = (np.random.default_rng(1).random((5, 12, 10)) < 0.4).astype(np.uint8)
    reset_net(model)
    with torch.no_grad():
        steps = [model(frame) for frame in torch.from_numpy(others).float().transpose(0, 1)]
    theirs = torch.stack(steps, 1).numpy()
    assert np.array_equal(simulate(network, others).output, theirs)
    assert theirs.any()
