"""Layers that enlarge maps (decoders, U-Nets), against the frameworks' own forwards.

What is expected is computed by the frameworks on samples that import has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import OsbcError, UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.limits import VARIABLE
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
pytest.importorskip("norse")
pytest.importorskip("spikingjelly")
import norse.torch as norse
import snntorch as snn
from spikingjelly.activation_based import functional as jelly
from spikingjelly.activation_based import layer, neuron

STEPS = 6
Bits = np.ndarray[Any, Any]
Parts = Callable[[], list[nn.Module]]
Act = Callable[[torch.Tensor], torch.Tensor]
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def raster(seed: int, *shape: int, n: int = 12) -> Bits:
    return (np.random.default_rng(seed).random((n, STEPS, *shape)) < 0.4).astype(np.uint8)


def louder(model: nn.Module, factor: float = 9) -> nn.Module:
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, WEIGHTED):
                part.weight.mul_(factor)
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr,operator]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
                part.bias.uniform_(-0.3, 0.3)
    # A BatchNorm that is folded rounds otherwise, which may move a spike in single precision.
    return model.eval().double()


def fires_alike(model: nn.Module, *shape: int) -> Network:
    """Import a model of SpikingJelly, called once per step, and compare spikes on new samples."""
    network = import_network(model, None, check_samples("data", raster(0, *shape)))
    fresh = raster(1, *shape)
    jelly.reset_net(model)
    with torch.no_grad():
        steps = [model(frame) for frame in torch.from_numpy(fresh).double().transpose(0, 1)]
    jelly.reset_net(model)
    theirs = torch.stack(steps, 1).flatten(2).numpy()
    assert 0.01 < theirs.mean() < 0.99
    ours = simulate(network, fresh.reshape(12, STEPS, *network.input_shape)).output
    assert np.array_equal(ours.reshape(theirs.shape), theirs)
    return network


def fires() -> nn.Module:
    return neuron.IFNode(v_reset=None)


def weights_of(network: Network, name: str) -> tuple[int, ...]:
    (found,) = (p for p in network.projections if p.name == name)
    return found.connection.weight.shape


class Function(nn.Module):
    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)


KERNEL = 2 * torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2)).double()
UP: Callable[[], nn.Module] = lambda: nn.Upsample(scale_factor=2)  # noqa: E731
THREE: Parts = lambda: [layer.Conv2d(4, 3, 3, padding=1), fires()]  # noqa: E731

# Behind the spikes of (4, 6, 6): layers, what a Linear hears of them, and the weights of the last
# connection before it by name.
ENLARGED: dict[str, tuple[Parts, int, str, tuple[int, ...]]] = {
    # A convolution of the kernel turned round.
    "stride 1": (lambda: [layer.ConvTranspose2d(4, 3, 3), fires()], 192, "2", (3, 4, 3, 3)),
    "stride 1, padded": (
        lambda: [layer.ConvTranspose2d(4, 3, 3, padding=2), fires()], 48, "2", (3, 4, 3, 3),
    ),
    "stride 1, dilated, in groups": (
        lambda: [layer.ConvTranspose2d(4, 6, 3, dilation=2, groups=2), fires()],
        600, "2", (6, 2, 3, 3),
    ),
    "stride 1, cut off": (
        lambda: [layer.ConvTranspose2d(4, 3, 1, padding=1), fires()], 48, "2", (3, 4, 3, 3),
    ),
    "stride 1, output padding": (
        lambda: [
            layer.ConvTranspose2d(4, 2, 2, dilation=2, output_padding=1, padding=1), fires(),
        ],
        98, "2", (2, 4, 4, 4),
    ),
    "stride 1, output padding, turned round": (
        lambda: [
            Function(lambda x: torch.flip(x, [3])),
            layer.ConvTranspose2d(4, 2, 2, dilation=2, output_padding=1, padding=1), fires(),
        ],
        98, "3", (98, 144),
    ),
    # A channel for each of the 2 x 2 places that come out of one.
    "stride 2": (
        lambda: [layer.ConvTranspose2d(4, 3, 2, stride=2), fires()], 432, "2", (12, 4, 1, 1),
    ),
    "stride 2, in groups, BatchNorm": (
        lambda: [
            layer.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(4), fires(),
        ],
        576, "2", (16, 2, 3, 3),
    ),
    "stride 2, output padding": (
        lambda: [layer.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), fires()],
        432, "2", (12, 4, 3, 3),
    ),
    "stride 2, uneven": (
        lambda: [layer.ConvTranspose2d(4, 3, (3, 2), stride=2), fires()], 468, "2", (468, 144),
    ),
    "function": (
        lambda: [Function(lambda x: functional.conv_transpose2d(x, KERNEL, stride=2)), fires()],
        432, "2.conv_transpose2d", (12, 4, 1, 1),
    ),
    "Upsample": (lambda: [UP(), *THREE()], 432, "3", (12, 4, 3, 3)),
    "Upsample, not padded": (
        lambda: [UP(), layer.Conv2d(4, 3, 3), fires()], 300, "3", (12, 4, 2, 2),
    ),
    "Upsample of one and a half": (
        lambda: [nn.Upsample((9, 12)), *THREE()], 324, "3", (18, 4, 4, 3),
    ),
    "Upsample to 7": (lambda: [nn.Upsample((7, 7)), *THREE()], 147, "3", (147, 144)),
    "Upsample, BatchNorm": (
        lambda: [UP(), nn.BatchNorm2d(4), layer.Conv2d(4, 3, 3), fires()], 300, "4", (12, 4, 2, 2),
    ),
    "Upsample twice": (
        lambda: [
            UP(), *THREE(), UP(), layer.Conv2d(3, 3, 3, padding=1), fires(),
        ],
        1728, "6", (48, 12, 3, 3),
    ),
    "Upsample, average": (
        lambda: [UP(), *THREE(), layer.AvgPool2d(2), layer.Conv2d(3, 4, 3), fires()],
        64, "6", (4, 12, 3, 3),
    ),
    "Upsample, average of 5 x 5": (
        lambda: [
            UP(), *THREE(), layer.AdaptiveAvgPool2d(5), layer.Conv2d(3, 2, 3), fires(),
        ],
        18, "6", (18, 432),
    ),
    "Upsample, maximum": (
        lambda: [UP(), *THREE(), layer.MaxPool2d(2)], 108, "to 5", (3, 4, 1, 1),
    ),
    "interpolate": (
        lambda: [Function(lambda x: functional.interpolate(x, scale_factor=2)), *THREE()],
        432, "3", (12, 4, 3, 3),
    ),
    "repeat_interleave": (
        lambda: [
            Function(lambda x: x.repeat_interleave(2, dim=-1).repeat_interleave(2, 2)), *THREE(),
        ],
        432, "3", (12, 4, 3, 3),
    ),
    "turned round": (
        lambda: [Function(lambda x: torch.roll(torch.flip(x, [3]), 1, 2)), *THREE()],
        108, "3", (108, 144),
    ),
    "PixelShuffle": (
        lambda: [nn.PixelShuffle(2), layer.Conv2d(1, 3, 3, padding=1), fires()],
        432, "3", (12, 4, 3, 3),
    ),
    "PixelUnshuffle, BatchNorm": (
        lambda: [nn.PixelUnshuffle(2), nn.BatchNorm2d(16), fires()], 144, "3.part", (16, 4, 2, 2),
    ),
    "PixelUnshuffle": (
        lambda: [nn.PixelUnshuffle(2), layer.Conv2d(16, 3, 3, padding=1), fires()],
        27, "3", (3, 4, 6, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ENLARGED)
def test_larger_maps_fire_as_the_framework(how: str) -> None:
    parts, values, name, weights = ENLARGED[how]
    torch.manual_seed(3)
    first, end = [layer.Conv2d(2, 4, 3), fires()], [layer.Flatten(), layer.Linear(values, 5)]
    network = fires_alike(louder(nn.Sequential(*first, *parts(), *end, fires())), 2, 8, 8)
    assert weights_of(network, name) == weights
    matrix = [note for note in network.notes if "becomes a matrix of" in note]
    assert bool(matrix) == (len(weights) == 2)


class UNet(nn.Module):
    """Two levels, with what was seen on the way down beside what comes up, or added to it."""

    def __init__(self, up: nn.Module, heard: int = 0, head: nn.Module | None = None) -> None:
        super().__init__()
        self.heard, self.up, self.pool = heard, up, nn.AvgPool2d(2)
        self.down = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), fires())
        self.low = nn.Sequential(layer.Conv2d(4, 8, 3, padding=1), fires())
        self.high = nn.Sequential(
            layer.Conv2d(heard or 4, 4, 3, padding=1), nn.BatchNorm2d(4), fires()
        )
        self.head = head or nn.Sequential(nn.Flatten(), layer.Linear(256, 5), fires())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down = self.down(x)
        up = self.up(self.low(self.pool(down)))
        high = self.high(torch.cat([up, down], 1) if self.heard else down + up)
        answer: torch.Tensor = self.head(high)
        return answer


class Beside(nn.Module):
    """What a function makes of two populations of (4, 6, 6), heard by a convolution."""

    def __init__(self, act: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.act, self.end = act, fires()
        self.one, self.two = (nn.Sequential(layer.Conv2d(2, 4, 3), fires()) for _ in range(2))
        self.conv = layer.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.end(self.conv(self.act(self.one(x), self.two(x))))
        return answer


@pytest.mark.parametrize(
    "act",
    [
        lambda one, two: torch.cat([one, two], 1)[..., 2:],
        lambda one, two: torch.cat([one.transpose(-1, -2), two], 1),
        lambda one, two: functional.interpolate(torch.cat([one, two], 1), scale_factor=2),
    ],
)
def test_signals_side_by_side_that_are_cut_turned_or_enlarged(act: Any) -> None:
    torch.manual_seed(10)
    fires_alike(louder(Beside(act)), 2, 8, 8)


def test_all_levels_of_a_u_net() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()

            def level(inputs: int, outputs: int) -> nn.Module:
                return nn.Sequential(layer.Conv2d(inputs, outputs, 3, padding=1), fires())

            self.a, self.b, self.c = level(2, 4), level(4, 6), level(6, 8)
            self.d, self.e, self.pool = level(12, 6), level(10, 4), layer.MaxPool2d(2)
            self.up = layer.ConvTranspose2d(8, 6, 2, stride=2, bias=False)
            self.end = nn.Sequential(layer.Linear(40, 5), fires())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.a(x)
            b = self.b(self.pool(a))
            d = self.d(torch.cat([self.up(self.c(self.pool(b))), b], 1))
            larger = functional.interpolate(d, scale_factor=2)
            e = self.e(torch.cat([larger, a], 1))
            both = self.pool(torch.cat([e, larger], 1))
            answer: torch.Tensor = self.end(functional.adaptive_avg_pool2d(both, 2).flatten(1))
            return answer

    torch.manual_seed(11)
    network = fires_alike(louder(Deep()), 2, 8, 8)
    # Of the window of 3 x 3 blocks of 4 x 4 places, what is not heard is left out.
    assert weights_of(network, "e.0:a.1-e.1") == (64, 4, 6, 6)


def test_what_is_repeated_and_what_is_masked() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), fires())
            self.b = nn.Sequential(nn.AvgPool2d(2), layer.Conv2d(4, 4, 3, padding=1), fires())
            self.c = nn.Sequential(layer.Conv2d(4, 3, 3, padding=1), fires(), nn.Flatten())
            self.l, self.n = layer.Linear(192, 8), fires()
            self.end = nn.Sequential(layer.Linear(16, 4), fires())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.a(x)
            c = self.c(a * functional.interpolate(self.b(a), scale_factor=2))
            answer: torch.Tensor = self.end(self.n(self.l(c).repeat(1, 2)))
            return answer

    torch.manual_seed(12)
    fires_alike(louder(Masked()), 2, 8, 8)


def test_an_upsampling_of_the_users_own_is_what_it_computes() -> None:
    class Twice(nn.Upsample):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(13)
    parts = [layer.Conv2d(2, 4, 3), fires(), Twice(scale_factor=2), nn.ZeroPad2d(1)]
    parts += [layer.Conv2d(4, 3, 3), fires(), layer.Flatten(), layer.Linear(432, 5), fires()]
    fires_alike(louder(nn.Sequential(*parts)), 2, 8, 8)


def test_enlarged_maps_that_feed_back_are_refused() -> None:
    back = layer.ElementWiseRecurrentContainer(fires(), lambda x, y: x + y)
    up = layer.ConvTranspose2d(4, 3, 2, stride=2)
    model = louder(nn.Sequential(layer.Conv2d(2, 4, 3), fires(), up, back))
    with pytest.raises(UnsupportedModelError, match=r"feeds back as maps \(3, 12, 12\), which lie"):
        import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))


UNETS: dict[str, Callable[[], nn.Module]] = {
    "Upsample beside": lambda: UNet(UP(), 12),
    "ConvTranspose beside": lambda: UNet(layer.ConvTranspose2d(8, 4, 2, stride=2, bias=False), 8),
    "spikes beside": lambda: UNet(
        nn.Sequential(layer.ConvTranspose2d(8, 4, 2, stride=2), nn.BatchNorm2d(4), fires()), 8
    ),
    "Upsample added": lambda: UNet(nn.Sequential(layer.Conv2d(8, 4, 1, bias=False), UP())),
    "spikes added": lambda: UNet(
        nn.Sequential(layer.ConvTranspose2d(8, 4, 2, stride=2), fires())
    ),
    "maps as answer": lambda: UNet(UP(), 12, nn.Sequential(layer.Conv2d(4, 3, 1), fires())),
}  # fmt: skip


@pytest.mark.parametrize("how", UNETS)
def test_u_nets_fire_as_the_framework(how: str) -> None:
    torch.manual_seed(4)
    network = fires_alike(louder(UNETS[how]()), 2, 8, 8)
    assert all(len(p.shape) == 3 for p in network.populations[:-1])


def test_a_constant_behind_a_transposed_layer_is_refused_with_what_helps() -> None:
    model = louder(UNet(layer.ConvTranspose2d(8, 4, 2, stride=2), 8))
    with pytest.raises(UnsupportedModelError, match=r"or let nothing be added \(bias=False"):
        import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))


def test_flat_neurons_are_decoded() -> None:
    torch.manual_seed(5)
    parts = [layer.Linear(10, 64), fires(), nn.Unflatten(1, (4, 4, 4))]
    parts += [layer.ConvTranspose2d(4, 3, 2, stride=2), fires(), UP()]
    parts += [layer.Conv2d(3, 2, 3, padding=1), fires()]
    network = fires_alike(louder(nn.Sequential(*parts)), 10)
    assert [p.shape for p in network.populations] == [(64,), (192,), (512,)]


def test_one_dimension_is_enlarged_too() -> None:
    torch.manual_seed(6)
    parts = [layer.Conv1d(2, 4, 3), fires(), layer.ConvTranspose1d(4, 3, 2, stride=2), fires()]
    parts += [UP(), layer.Conv1d(3, 2, 3, padding=1), fires(), layer.Flatten()]
    network = fires_alike(louder(nn.Sequential(*parts, layer.Linear(64, 3), fires())), 2, 10)
    assert weights_of(network, "2") == (6, 4, 1, 1)
    note = "2: gives (3, 16), which lie as (6, 1, 8): a channel for each place of blocks of 1 x 2"
    assert note in network.notes
    assert weights_of(network, "5") == (8, 6, 1, 3)


def test_potentials_of_an_enlarged_answer_are_in_its_order() -> None:
    torch.manual_seed(7)
    up = layer.ConvTranspose2d(4, 2, 4, stride=2, padding=1)
    model = louder(nn.Sequential(layer.Conv2d(2, 4, 3), fires(), up))
    network = import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))
    fresh = raster(1, 2, 8, 8)
    jelly.reset_net(model)
    with torch.no_grad():
        steps = [model(frame) for frame in torch.from_numpy(fresh).double().transpose(0, 1)]
    # Of a readout, potentials are sums of all steps.
    theirs = torch.stack(steps, 1).cumsum(1).flatten(2).numpy()
    assert np.allclose(simulate(network, fresh).output, theirs, atol=1e-9)


class Norse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.net = norse.SequentialState(
            nn.Conv2d(2, 4, 3, stride=2, padding=1), norse.LIFBoxCell(dt=1 / 100),
            nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), norse.LIFBoxCell(dt=1 / 100),
            nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3, padding=1),
            norse.LIFBoxCell(dt=1 / 100),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, found = None, []
        for frame in x:
            spikes, state = self.net(frame, state)
            found.append(spikes)
        return torch.stack(found)


class SnnTorch(nn.Module):
    """An autoencoder of spikes, whose last layer hears them beside what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.down, self.up = nn.Conv2d(2, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.end = nn.Conv2d(5, 2, 3, padding=1)
        self.cells = nn.ModuleList(snn.Leaky(0.8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, steps = [cell.reset_mem() for cell in self.cells], []
        for frame in x:
            s, mem[0] = self.cells[0](self.down(frame), mem[0])
            s, mem[1] = self.cells[1](self.up(s), mem[1])
            s, mem[2] = self.cells[2](self.end(torch.cat([s, frame], 1)), mem[2])
            steps.append(s)
        return torch.stack(steps)


@pytest.mark.parametrize("kind", [Norse, SnnTorch])
def test_autoencoders_of_other_frameworks(kind: Callable[[], nn.Module]) -> None:
    model = louder(kind(), 12).float()
    network = import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))
    fresh = raster(1, 2, 8, 8)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh).float().transpose(0, 1)).transpose(0, 1)
    assert 0.01 < theirs.mean() < 0.99
    ours = simulate(network, fresh).output
    # In single precision, where a matrix adds up in another order.
    assert (ours.reshape(12, STEPS, -1) != theirs.flatten(2).numpy()).mean() < 0.005


@pytest.mark.parametrize("target", ["loihi2", "cortex-m4"])
def test_a_u_net_is_deployed(target: str) -> None:
    torch.manual_seed(4)
    model = louder(UNETS["spikes beside"]())
    found = deploy(model, raster(0, 2, 8, 8), target=target, sparsity=0.5, bits=8, tune=False)
    assert found.network.output.size == 5
    assert found.fidelity.mismatched_spikes == 0
    codes = found.compressed.projections["high.0:up.2-high.2"].codes
    assert codes.shape == (16, 16, 3, 3)


def test_what_takes_too_much_memory_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [layer.Conv2d(2, 4, 3), fires(), layer.ConvTranspose2d(4, 3, 3, stride=2), fires()]
    model = louder(nn.Sequential(*parts))
    monkeypatch.setenv(VARIABLE, "1M")
    with pytest.raises(OsbcError, match=r"2: needs .* limit is 1\.00 MiB\. Have it give a whole"):
        import_network(model, None, check_samples("data", raster(0, 2, 12, 12)))


def test_a_matrix_of_a_few_places_of_large_maps_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = Function(lambda x: x[:, :, 1:2, 1:2].flatten(1))
    parts = [layer.Conv2d(2, 4, 3), fires(), part, layer.Linear(4, 200), fires()]
    model = louder(nn.Sequential(*parts))
    fires_alike(model, 2, 22, 22)
    # 16 bytes for each of 1,600 x 200 weights.
    monkeypatch.setenv(VARIABLE, "4M")
    with pytest.raises(OsbcError, match=r"3: needs 4\.89 MiB of memory"):
        import_network(model, None, check_samples("data", raster(0, 2, 22, 22)))


def test_answers_that_are_too_large_to_be_put_in_order_can_be_enlarged_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(14)
    parts = [layer.Conv2d(2, 4, 3), fires(), layer.Conv2d(4, 8, 1), nn.PixelShuffle(2), fires()]
    model = louder(nn.Sequential(*parts))
    monkeypatch.setenv(VARIABLE, "1M")
    with pytest.raises(OsbcError, match=r"4: needs .* have forward answer with the maps before"):
        import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))
    # As it says: where the neurons are alike, it does not matter which of the two comes first.
    smaller = nn.Sequential(*model[:3], model[4])
    network = import_network(smaller, None, check_samples("data", raster(0, 2, 8, 8)))
    fresh = raster(1, 2, 8, 8)
    ours = torch.from_numpy(simulate(network, fresh).output)
    jelly.reset_net(model)
    with torch.no_grad():
        steps = [model(frame) for frame in torch.from_numpy(fresh).double().transpose(0, 1)]
    assert torch.stack(steps).any()
    assert torch.equal(functional.pixel_shuffle(ours, 2).transpose(0, 1), torch.stack(steps))


def test_what_moves_samples_is_refused() -> None:
    parts = [layer.Conv2d(2, 4, 3), fires(), Function(lambda x: torch.roll(x, 1, 0)), *THREE()]
    model = louder(nn.Sequential(*parts))
    with pytest.raises(UnsupportedModelError, match="roll puts time steps or samples elsewhere"):
        import_network(model, None, check_samples("data", raster(0, 2, 8, 8)))
