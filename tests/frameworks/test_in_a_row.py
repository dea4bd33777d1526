"""Convolutions in a row, as networks hold them, against the frameworks' own spikes."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.simulate import simulate
from own_spikes import T, differ_on_the_chip, fires_alike, frames, imported, jelly, raster, trained

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import layer, neuron  # noqa: E402 - after the check
from spikingjelly.activation_based.model.ms_resnet import MSResNet  # noqa: E402


def block(inner: int, outer: int, kernel: int, **more: Any) -> list[nn.Module]:
    return [layer.Conv2d(inner, outer, kernel, bias=False, **more), layer.BatchNorm2d(outer)]


def ended(*layers: nn.Module, size: int) -> nn.Module:
    behind = [neuron.LIFNode(), layer.Flatten(), layer.Linear(size, 5), neuron.LIFNode()]
    return jelly(nn.Sequential(*layers, *behind), 4.0)


def test_a_depthwise_and_a_pointwise_convolution_are_one() -> None:
    """MobileNet's block, with a BatchNorm behind each."""
    model = ended(
        *block(2, 6, 3, padding=1), neuron.LIFNode(),
        *block(6, 6, 3, padding=1, stride=2, groups=6), *block(6, 10, 1), size=250,
    )  # fmt: skip
    network = fires_alike(model, 2, 10, 10)
    (merged,) = network.afferents("7")
    assert merged.name == "5"
    assert merged.compressible
    assert merged.connection.weight.shape == (10, 6, 3, 3)
    assert merged.connection.geometry["stride"] == (2, 2)
    assert "3: multiplied into 5, as no neurons lie between them" in network.notes


def test_a_pointwise_convolution_before_and_behind_one_in_groups() -> None:
    """RepConv's row of three, without constants in front of what pads; and groups that stay."""
    row = [layer.Conv2d(2, 8, 1, bias=False),
           layer.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), *block(8, 12, 1)]  # fmt: skip
    network = fires_alike(ended(*row, size=12 * 64), 2, 8, 8)
    assert network.projections[0].connection.weight.shape == (12, 2, 3, 3)
    row = [*block(4, 8, 3, padding=1, groups=4), *block(8, 8, 3, groups=2)]
    network = fires_alike(ended(*row, size=8 * 36), 4, 8, 8)
    assert network.projections[0].connection.groups == 2
    assert network.projections[0].connection.weight.shape == (8, 2, 5, 5)


def test_membrane_shortcuts_of_the_library_are_imported_as_it_comes() -> None:
    """A projection shortcut maps currents: those of the stem, and of all blocks before it."""
    model = MSResNet(T=T, in_channels=2, num_classes=5, layers=(1, 1, 1), base_channels=4,
                     stem_kernel_size=3, stem_stride=1)  # fmt: skip
    network = fires_alike(jelly(model), 2, 12, 12)
    assert {p.pre for p in network.afferents("head_lif")} == {
        "input", "layer1.0.spike2", "layer2.0.spike2", "layer3.0.spike2"
    }  # fmt: skip
    assert all(p.compressible for p in network.projections)


class Loop(nn.Module):
    """snnTorch's usual loop, with convolutions in a row in front of the first neurons."""

    def __init__(self, *row: nn.Module, size: int) -> None:
        super().__init__()
        self.row, self.lif, self.out = nn.Sequential(*row), snn.Leaky(0.8), snn.Leaky(0.9)
        self.fc = nn.Linear(size, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, last = self.lif.init_leaky(), self.out.init_leaky()
        rec = []
        for frame in x:
            spikes, mem = self.lif(self.row(frame), mem)
            spikes, last = self.out(self.fc(spikes.flatten(1)), last)
            rec.append(spikes)
        return torch.stack(rec)


@pytest.mark.parametrize(
    ("row", "size", "shape"),
    [
        # The first pads for both.
        ([nn.Conv2d(2, 4, 3, padding=2), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)], 320, (2, 8, 8)),
        # Places of a stride are taken further apart, and a pooling between is one more stride.
        (
            [nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.Conv2d(4, 5, 3, padding=1)],
            125, (2, 9, 9),
        ),
        (
            [nn.Conv2d(2, 4, 3, padding=1, dilation=2), nn.AvgPool2d(2), nn.Conv2d(4, 5, 2)],
            20, (2, 8, 8),
        ),
        # Behind a pooling that moved in front.
        (
            [nn.Conv2d(2, 4, 1, bias=False), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3, padding=1)],
            80, (2, 8, 8),
        ),
        (
            [nn.Conv1d(3, 6, 3, padding=1, groups=3), nn.Conv1d(6, 5, 1)],
            100, (3, 20),
        ),
        # A matrix behind a convolution, whose padding and constants it sees as they are.
        (
            [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten(),
             nn.Linear(64, 12)],
            12, (2, 8, 8),
        ),
    ],
)  # fmt: skip
def test_any_row_that_is_one_connection(
    row: list[nn.Module], size: int, shape: tuple[int, ...]
) -> None:
    model = trained(Loop(*row, size=size), 4.5).float()
    network, fresh = imported(model, raster(0, *shape)), raster(1, *shape)
    with torch.no_grad():
        expected = model(frames(fresh).float()).movedim(0, 1).numpy()
    found = simulate(network, fresh.reshape(*fresh.shape[:2], *network.input_shape)).output
    assert np.array_equal(found, expected)
    assert 0.02 < found.mean() < 0.98
    assert len(network.projections) == 2


def test_rows_of_norse() -> None:
    model = trained(
        norse.SequentialState(
            nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.Conv2d(6, 4, 1), norse.LIFCell(),
            nn.Flatten(), nn.Linear(256, 3), norse.LIFCell(),
        ), 5.0,
    )  # fmt: skip
    network, fresh = imported(model, raster(0, 2, 8, 8)), raster(1, 2, 8, 8)
    state, expected = None, []
    with torch.no_grad():
        for frame in frames(fresh):
            spikes, state = model(frame, state)
            expected.append(spikes)
    found = simulate(network, fresh).output
    assert np.array_equal(found, torch.stack(expected).movedim(0, 1).numpy())
    assert 0.02 < found.mean() < 0.98


def test_what_is_no_single_convolution_is_refused_and_the_way_out_that_is_told_works() -> None:
    def row(first: int, second: int) -> nn.Module:
        return trained(
            Loop(
                nn.Conv2d(2, 4, 3, padding=first, stride=2), nn.BatchNorm2d(4),
                nn.Conv2d(4, 5, 3, padding=second), size=125,
            ), 2.5,
        ).float()  # fmt: skip

    x = raster(0, 2, 9, 9)
    with pytest.raises(UnsupportedModelError) as caught:
        imported(row(1, 1), x)
    assert caught.value.offenders == (
        "row.2: follows row.0 with no neurons between, and the two are no single convolution: the "
        "constant added in front of it (bias, BatchNorm) is missing where it pads. Move the "
        "padding of row.2 to row.0, times the strides from there on (unless maps become larger "
        "between the two), or let nothing be added (bias=False, no BatchNorm), and train again, or "
        "put spiking neurons between",
    )
    imported(row(3, 0), x)


def test_merged_layers_fire_on_the_chip_as_they_should() -> None:
    model = MSResNet(T=T, in_channels=2, num_classes=5, layers=(1, 1, 1), base_channels=4,
                     stem_kernel_size=3, stem_stride=1)  # fmt: skip
    model, x = jelly(model), raster(0, 2, 12, 12)
    for name, (_, share) in differ_on_the_chip(model, x).items():
        assert share < 0.03, name
