"""What no chip computes is refused by its place, with the reason and a way out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from osbc_deploy.errors import UnsupportedModelError

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
import snntorch as snn
from spikingjelly.activation_based import layer, neuron

from osbc_deploy.data.samples import check_samples
from osbc_deploy.frameworks.hosting import HostPrefix
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.importing import import_network
from osbc_deploy.model.simulate import simulate
from osbc_deploy.modules.run import compress_model

CONV = layer.Conv2d(2, 4, 3)
LINEAR = layer.Linear(8, 8)


class Strongest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.neurons = nn.Linear(8, 8), neuron.IFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.neurons(y.where(y >= y.topk(2).values[..., -1:], torch.zeros(())))


class Random(Strongest):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neurons(nn.functional.dropout(self.linear(x), 0.5))


class Product(Strongest):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.neurons(y * y)


class Outer(Strongest):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.neurons((y[:, :, None] @ y[:, None, :]).sum(2) + y[:, :1])


REFUSED = {
    "normalization of each sample": (
        nn.Sequential(CONV, nn.GroupNorm(2, 4), neuron.IFNode()),
        (2, 8, 8),
        "1: GroupNorm is not supported: it divides by the spread of each sample",
    ),
    "max pooling of currents": (
        nn.Sequential(CONV, layer.MaxPool2d(2), neuron.IFNode()),
        (2, 8, 8),
        "1: MaxPool2d takes the largest of several currents",
    ),
    "activation between layers": (
        nn.Sequential(LINEAR, nn.GELU(), neuron.IFNode()),
        (8,),
        "1: GELU is not supported: it bends a current",
    ),
    "nonlinear membrane": (
        nn.Sequential(LINEAR, neuron.EIFNode()),
        (8,),
        "1: EIFNode is not supported: its membrane does not follow the linear equation",
    ),
    "transposed convolution": (
        nn.Sequential(nn.Unflatten(1, (1, 2)), nn.ConvTranspose3d(1, 4, (1, 3, 3)),
                      neuron.IFNode()),
        (2, 8, 8),
        "1: ConvTranspose3d is not supported: its kernel is none of the chip's",
    ),
    "another grid": (
        nn.Sequential(CONV, neuron.IFNode(), nn.Upsample(scale_factor=2, mode="bilinear"),
                      nn.Flatten(), nn.Linear(576, 3), neuron.IFNode()),
        (2, 8, 8),
        "2: Upsample is not supported: it mixes places of a map with weights of its own",
    ),
    "recurrence with gates": (
        nn.Sequential(nn.GRU(8, 4), neuron.IFNode()),
        (8,),
        "0: GRU is not supported: its gates multiply signals by signals",
    ),
    "padding that is not zero": (
        nn.Sequential(layer.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), neuron.IFNode()),
        (2, 8, 8),
        "0: Conv2d(padding_mode='reflect'); only 'zeros'",
    ),
    "choice among signals": (
        Strongest(),
        (8,),
        "forward: topk is not supported: it chooses among signals by comparing them",
    ),
    "products of currents": (
        Product(),
        (8,),
        "forward: product of signals of which one is neither spikes nor 1 less spikes",
    ),
    "pooling over a third axis": (
        nn.Sequential(CONV, neuron.IFNode(), nn.MaxPool3d(2)),
        (2, 8, 8),
        "2: MaxPool3d is not supported: it pools over channels or time",
    ),
    "chance": (Random(), (8,), "forward: answers differently when it is called again"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_chip_computes_is_refused_with_its_reason(kind: str) -> None:
    model, shape, reason = REFUSED[kind]
    samples = (np.random.default_rng(0).random((8, 5, *shape)) < 0.4).astype(np.uint8)
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model.eval(), shape, samples=samples)
    assert any(line.startswith(reason) for line in caught.value.offenders), caught.value.offenders


@pytest.mark.parametrize(
    ("package", "kind", "remedy"),
    [
        ("sinabs.layers.iaf", "IAF", "spike_fn=SingleSpike"),
        ("lava.lib.dl", "Dense", "NetX"),
        ("rockpool.nn.modules", "LIFTorch", "max_spikes_per_dt=1"),
    ],
)
def test_frameworks_that_are_not_read_are_refused_as_such(
    package: str, kind: str, remedy: str
) -> None:
    class Foreign(nn.Identity):
        __module__ = package

    Foreign.__name__ = kind
    samples = check_samples("calibration", np.ones((2, 3, 4), np.uint8))
    with pytest.raises(UnsupportedModelError, match=remedy) as caught:
        import_network(nn.Sequential(nn.Linear(4, 3), Foreign()), None, samples)
    assert caught.value.offenders == (f"1: {kind}",)


class LIFTorch(nn.Module):
    """A neuron as Rockpool's is made and named: its modules() is not torch's."""

    __module__ = "rockpool.nn.modules.torch.lif_torch"

    def modules(self) -> Any:
        return {}


class Sequence(LIFTorch):
    """A container of Rockpool's, whose modules() are a dictionary of names."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = LIFTorch()

    def modules(self) -> Any:
        return {"neurons": self.neurons}


def test_rockpools_modules_are_refused_wherever_they_are_given() -> None:
    spikes = np.ones((2, 3, 4), np.uint8)
    for verb in (
        lambda: import_network(Sequence(), None, check_samples("calibration", spikes)),
        lambda: compress_model(Sequence(), spikes),
    ):
        with pytest.raises(UnsupportedModelError, match="is made of Rockpool") as caught:
            verb()
        assert caught.value.offenders == ("neurons: LIFTorch",)


def rockpool(
    x: torch.Tensor, weights: list[torch.Tensor], alpha: float, beta: float
) -> torch.Tensor:
    """Compute what Rockpool 3.0.3's LinearTorch and LIFTorch(max_spikes_per_dt=1) do."""
    for weight in weights:
        current, v, spikes = torch.zeros(()), torch.zeros(()), []
        for frame in x:
            current = (current + frame @ weight) * beta
            v = v * alpha + current
            fired = (v >= 1.0).double()
            v = v - fired
            spikes.append(fired)
        x = torch.stack(spikes)
    return x


def test_what_rockpools_users_are_told_to_build_is_their_network() -> None:
    torch.manual_seed(0)
    alpha, beta, sizes = 0.9, 0.8, (14, 9, 4)
    weights = [torch.randn(a, b).double() / 2 for a, b in pairwise(sizes)]
    layers: list[nn.Module] = []
    for weight in weights:
        linear = nn.Linear(*weight.shape, bias=False).double()
        linear.weight = nn.Parameter((weight * beta).T)
        layers += [linear, neuron.CUBALIFNode(beta, alpha, v_threshold=1.0, v_reset=None)]
    spikes = (np.random.default_rng(0).random((6, 25, 14)) < 0.4).astype(np.uint8)
    network = read_spikingjelly(nn.Sequential(*layers), (14,), samples=spikes)
    theirs = rockpool(torch.from_numpy(spikes.astype(float)).transpose(0, 1), weights, alpha, beta)
    assert 0.05 < theirs.mean() < 0.6
    assert np.array_equal(simulate(network, spikes).output, theirs.transpose(0, 1).numpy())


def test_what_hears_a_refused_part_is_not_judged() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(Outer(), (8,), samples=np.ones((4, 5, 8), np.uint8))
    (line,) = caught.value.offenders
    assert line.startswith("forward: matmul is not supported: it multiplies integers")


class Prepared(nn.Module):
    """Does something to its input before a layer of snnTorch hears it."""

    def __init__(self, prepare: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.prepare, self.conv = prepare, nn.Conv2d(2, 4, 3)
        self.lif, self.fc = snn.Leaky(0.9, threshold=0.2), nn.Linear(16, 3)
        self.out = snn.Leaky(0.9, threshold=0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.prepare(x)
        mem, last, found = self.lif.init_leaky(), self.out.init_leaky(), []
        for frame in x:
            spk, mem = self.lif(self.conv(frame), mem)
            # Of the same name as what may be done to the input.
            pooled = functional.max_pool2d(spk, 2).flatten(1)
            spk, last = self.out(self.fc(pooled), last)
            found.append(spk)
        return torch.stack(found)


def halved(x: torch.Tensor) -> torch.Tensor:
    maps = functional.max_pool2d(x.flatten(0, 1), 2)
    return maps.view(*x.shape[:2], *maps.shape[1:])


PREPARED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "whether anything happened": (lambda x: (x > 0).float(), "forward: gt "),
    "at most one": (lambda x: x.clamp(0, 1), "forward: clamp "),
    "coarser": (halved, "forward: MaxPool2d takes the largest of several currents"),
    "of another size": (
        lambda x: functional.interpolate(x.flatten(0, 1), (6, 6), mode="area").unflatten(
            0, x.shape[:2]
        ),
        "forward: interpolate ",
    ),
    "every other step": (
        lambda x: x[::2],
        "forward: takes some of the time steps, [::2]; give samples of these steps alone",
    ),
    "a part": (lambda x: x[..., 3:9, 3:9], "conv: hears values of (2, 12, 12) cut or turned"),
    "turned": (lambda x: x.transpose(3, 4)[..., :6, :6], "conv: hears values of (2, 12, 12) cut"),
}


@pytest.mark.parametrize("how", PREPARED)
def test_what_is_done_to_the_input_can_be_done_to_the_samples(how: str) -> None:
    prepare, begins = PREPARED[how]
    model = Prepared(prepare)
    counts = np.random.default_rng(0).poisson(1.0, (6, 5, 2, 12, 12)).astype(np.int64)
    x = torch.from_numpy(counts).float()
    with torch.no_grad():
        model.fc = nn.Linear(4 * ((prepare(x).shape[-1] - 2) // 2) ** 2, 3)
    with pytest.raises(UnsupportedModelError) as caught:
        import_network(model.eval(), None, check_samples("calibration", counts))
    (line,) = caught.value.offenders
    assert line.startswith(begins)
    assert line.endswith("out of forward()") or line == begins
    if how == "every other step":
        return
    # As it says.
    with torch.no_grad():
        theirs = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    done = np.ascontiguousarray(prepare(x).numpy())
    model.prepare = lambda x: x
    network = import_network(model, None, check_samples("calibration", done))
    assert np.array_equal(simulate(network, done.astype(np.float32)).output, theirs)
    assert theirs.any()


def test_a_layer_of_the_input_alone_can_run_on_the_host() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(2, 3, 3), snn.Leaky(0.9, threshold=0.2, init_hidden=True)
    ).eval()
    counts = np.random.default_rng(0).poisson(1.0, (6, 5, 2, 12, 12)).astype(np.int64)
    samples = check_samples("calibration", counts)
    with pytest.raises(UnsupportedModelError) as caught:
        import_network(model, None, samples)
    (line,) = caught.value.offenders
    assert line.endswith("so it can run on the host (--host-prefix 0)")
    network = import_network(model, None, samples, host=HostPrefix("0"))
    assert network.input_shape == (2, 6, 6)
