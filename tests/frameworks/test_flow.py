"""Input that a forward takes in one shape and shows its layers in another, and nothing else of it.

Expected is what the frameworks' own forwards give for the samples as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from drawn import lively
from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional as jelly  # noqa: E402 - after the check
from spikingjelly.activation_based import layer, neuron  # noqa: E402

T = 6
Bits = np.ndarray[Any, Any]
Shown = Callable[[torch.Tensor], torch.Tensor]


def raster(*shape: int, seed: int = 0, n: int = 8) -> Bits:
    return (np.random.default_rng(seed).random((n, T, *shape)) < 0.4).astype(np.uint8)


class Images(nn.Module):
    """A convolution and a classifier of snnTorch; `shown` makes maps of what a step is given."""

    def __init__(self, shown: Shown, first: nn.Module | None = None) -> None:
        super().__init__()
        self.shown, self.conv = shown, first or nn.Conv2d(1, 4, 3)
        self.fc, self.skip = nn.LazyLinear(3), nn.Linear(64, 3)
        self.lif1, self.lif2 = snn.Leaky(0.8), snn.Leaky(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for frame in x:
            spk, mem1 = self.lif1(self.conv(self.shown(frame)), mem1)
            spk, mem2 = self.lif2(self.fc(spk.flatten(1)), mem2)
            found.append(spk)
        return torch.stack(found)


CONV1D: Callable[[], nn.Module] = lambda: nn.Conv1d(1, 4, 5, stride=2)  # noqa: E731
SHOWN: dict[str, tuple[tuple[int, ...], Shown, Callable[[], nn.Module] | None, tuple[int, ...]]] = {
    "view": ((64,), lambda x: x.view(-1, 1, 8, 8), None, (1, 8, 8)),
    "unflatten": ((64,), lambda x: x.unflatten(1, (1, 8, 8)), None, (1, 8, 8)),
    "unsqueeze": ((8, 8), lambda x: x.unsqueeze(1), None, (1, 8, 8)),
    "none": ((8, 8), lambda x: x[:, None], None, (1, 8, 8)),
    "scaled first": ((64,), lambda x: ((x - 0.1) / 0.5).view(-1, 1, 8, 8), None, (1, 8, 8)),
    "scaled behind": ((64,), lambda x: 2.0 * x.view(-1, 1, 8, 8) - 0.3, None, (1, 8, 8)),
    "a channel of a recording": ((64,), lambda x: x.unsqueeze(1), CONV1D, (1, 1, 64)),
    "channels of a recording": ((64,), lambda x: x.view(-1, 2, 32),
                                lambda: nn.Conv1d(2, 4, 5), (2, 1, 32)),
    "flattened before": ((1, 8, 8), lambda x: x.flatten(1).view(-1, 1, 8, 8), None, (1, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("how", SHOWN)
def test_input_is_read_in_the_shape_that_its_layers_hear(how: str) -> None:
    shape, shown, first, maps = SHOWN[how]
    model = Images(shown, None if first is None else first())
    model(torch.zeros(1, 2, *shape))
    model = lively(model)
    network = import_network(model, None, check_samples("calibration", raster(*shape)))
    assert network.input_shape == maps
    for seed, n in ((1, 8), (2, 1)):
        others = raster(*shape, seed=seed, n=n)
        with torch.no_grad():
            theirs = model(torch.from_numpy(others).float().transpose(0, 1)).transpose(0, 1)
        ours = simulate(network, others.reshape(n, T, *maps)).output
        assert np.array_equal(ours, theirs.numpy())
        assert theirs.any()
    said = f"input {shape} is read as {maps}, as forward sees it"
    assert (said in network.notes) == (shape != maps)


class Jelly(nn.Module):
    """All steps at once, and a classifier that hears the input flat as well."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            layer.Conv2d(1, 4, 3, bias=False), layer.BatchNorm2d(4), neuron.LIFNode()
        )
        self.out, self.beside = layer.Linear(144, 5), layer.Linear(64, 5)
        self.node = neuron.IFNode()
        jelly.set_step_mode(self, "m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fired = self.maps(x.view(*x.shape[:2], 1, 8, 8)).flatten(2)
        return self.node(self.out(fired) + self.beside(x))


def test_a_layer_may_hear_it_flat_beside() -> None:
    model = lively(Jelly())
    network = import_network(model, None, check_samples("calibration", raster(64)))
    others = raster(64, seed=3)
    with torch.no_grad():
        theirs = model(torch.from_numpy(others).float().transpose(0, 1)).transpose(0, 1)
    jelly.reset_net(model)
    assert np.array_equal(simulate(network, others.reshape(8, T, 1, 8, 8)).output, theirs.numpy())
    assert theirs.any()


class Norse(nn.Module):
    """Images that a forward shows for T steps, as norse's tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.lif = norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.2)))
        self.fc, self.li = nn.Linear(64, 4), norse.LIBoxCell()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, s, t, found = x.unsqueeze(1), None, None, []
        for _ in range(T):
            z, s = self.lif(self.conv(x), s)
            v, t = self.li(self.fc(z.flatten(1)), t)
            found.append(v)
        return torch.stack(found)


def test_images_that_are_repeated_may_lack_their_channel() -> None:
    model = lively(Norse())
    rng = np.random.default_rng(0)
    images = rng.random((8, 1, 8, 8)).astype(np.float32)
    network = import_network(model, None, check_samples("calibration", images.repeat(T, axis=1)))
    others = rng.random((5, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(others[:, 0])).transpose(0, 1).numpy()
    ours = simulate(network, others.repeat(T, axis=1).reshape(5, T, 1, 8, 8)).output
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_flat_samples_are_deployed_as_maps() -> None:
    model = Images(lambda x: x.view(-1, 1, 8, 8))
    model(torch.zeros(1, 2, 64))
    x, others = raster(64, n=40), raster(64, seed=5, n=40)
    model = lively(model)
    with torch.no_grad():
        # Otherwise one class is always the strongest.
        model.fc.weight.sub_(model.fc.weight.mean(1, keepdim=True)).mul_(3)
    with torch.no_grad():
        fired = model(torch.from_numpy(others).float().transpose(0, 1)).sum(0)
    labels = fired.argmax(1).numpy()
    assert len(set(labels)) == 3
    found = deploy(
        model, x, test=(others, labels), sparsity=0.0, bits=8, tune=False, backend="engine"
    )
    assert found.network.input_shape == (1, 8, 8)
    assert found.accuracy.float_ == 1.0
    assert found.accuracy.fixed_point is not None
    assert found.accuracy.fixed_point > 0.8


class Cut(Images):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[..., 1:9, 1:9].unsqueeze(2))


def test_a_part_of_the_input_is_still_refused() -> None:
    model = Cut(lambda x: x)
    model(torch.zeros(1, 2, 10, 10))
    with pytest.raises(UnsupportedModelError, match="conv: hears values of"):
        import_network(lively(model), None, check_samples("calibration", raster(10, 10)))


class Beside(Images):
    """Hears the input as it is in one layer, and as maps in another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, found = self.lif1.init_leaky(), []
        for frame in x:
            pooled = functional.avg_pool1d(frame, 2).flatten(1)
            current = self.conv(frame.unsqueeze(1)).flatten(1)
            spk, mem = self.lif1(self.fc(current) + self.skip(pooled.repeat(1, 2)), mem)
            found.append(spk)
        return torch.stack(found)


def test_input_that_layers_hear_in_two_shapes_stays_as_it_is() -> None:
    model = Beside(lambda x: x)
    model(torch.zeros(1, 2, 8, 8))
    with pytest.raises(UnsupportedModelError, match="conv: "):
        import_network(lively(model), None, check_samples("calibration", raster(8, 8)))
