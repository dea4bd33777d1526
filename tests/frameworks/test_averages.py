from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from osbc_deploy.frameworks.averages import Averages, adaptive_windows, pooling_windows
from osbc_deploy.frameworks.snntorch.reading import read_snntorch
from osbc_deploy.model.simulate import simulate


@pytest.mark.parametrize(("size", "outputs"), [(2, 7), (5, 3), (7, 7), (1, 4), (9, 2), (6, 1)])
def test_adaptive_windows_are_torchs(size: int, outputs: int) -> None:
    x = torch.eye(size, dtype=torch.float64)[:, None]
    expected = nn.functional.adaptive_avg_pool1d(x, outputs)[:, 0].T.numpy()
    assert np.allclose(adaptive_windows(size, outputs), expected, rtol=1e-15)


def test_poolings_that_round_up_or_leave_padding_out_are_torchs() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for size, kernel, stride, padding in itertools.product((4, 5, 7), (2, 3), (1, 2, 3), (0, 1)):
        for up, counted in itertools.product((False, True), repeat=2):
            pool = nn.AvgPool2d(kernel, stride, padding, up, counted)
            windows = pooling_windows(size, kernel, stride, padding, up=up, counted=counted)
            x = rng.random((1, 2, size, size))
            expected = pool(torch.from_numpy(x)).numpy()
            weight = np.eye(expected.size)
            ours = Averages(windows, windows).before(weight) @ x.ravel()
            assert np.allclose(ours, expected.ravel(), rtol=1e-12), (size, pool)
            compared += 1
    assert compared == 144


@pytest.mark.parametrize(
    "pool",
    [nn.AdaptiveAvgPool2d((5, 2)), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)],
)
def test_a_linear_takes_them_in(pool: nn.Module) -> None:
    torch.manual_seed(0)
    size = pool(torch.zeros(1, 3, 4, 4)).numel()
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), snn.Leaky(0.9, init_hidden=True), pool, nn.Flatten()),
        *(nn.Linear(size, 6), snn.Leaky(0.5, init_hidden=True)),
    )
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight.mul_(6)
    x = (np.random.default_rng(1).random((12, 5, 1, 6, 6)) < 0.5).astype(np.uint8)
    network = read_snntorch(model, (1, 6, 6), samples=x)
    assert network.projections[1].connection.weight.shape == (6, 48)
    model[1].reset_mem()
    model[5].reset_mem()
    with torch.no_grad():
        frames = torch.from_numpy(x).float().transpose(0, 1)
        theirs = torch.stack([model(f) for f in frames], 1)
    output = simulate(network, x).output
    assert np.array_equal(output, theirs.numpy())
    assert 0.05 < output.mean() < 0.95


class Beside(nn.Module):
    """Two populations side by side, averaged, and heard by a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.Linear(36, 5)
        self.cells = nn.ModuleList(snn.Leaky(0.9) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, steps = [cell.reset_mem() for cell in self.cells], []
        for frame in x:
            one, mem[0] = self.cells[0](self.a(frame), mem[0])
            two, mem[1] = self.cells[1](self.b(frame), mem[1])
            both = nn.functional.adaptive_avg_pool2d(torch.cat([one, two], 1), 3)
            s, mem[2] = self.cells[2](self.fc(both.flatten(1)), mem[2])
            steps.append(s)
        return torch.stack(steps)


def behind(*parts: nn.Module) -> nn.Module:
    first = (nn.Conv2d(1, 3, 3), snn.Leaky(0.9, init_hidden=True), nn.AdaptiveAvgPool2d(3))
    return nn.Sequential(*first, *parts)


@pytest.mark.parametrize(
    "kind",
    [
        lambda: behind(nn.Conv2d(3, 2, 2), snn.Leaky(0.5, init_hidden=True)),
        lambda: behind(nn.BatchNorm2d(3), nn.AvgPool2d(2), snn.Leaky(0.5, init_hidden=True)),
        lambda: behind(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3),
                       snn.Leaky(0.5, init_hidden=True)),
        Beside,
    ],
)  # fmt: skip
def test_in_front_of_anything_else_they_are_a_matrix(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    model = kind().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(6)
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.mul_(5)
    x, fresh = ((np.random.default_rng(s).random((12, 5, 1, 6, 6)) < 0.5).astype(np.uint8)
                for s in (0, 1))  # fmt: skip
    network = read_snntorch(model, (1, 6, 6), samples=x)
    assert any("becomes a matrix of" in note for note in network.notes)
    frames = torch.from_numpy(fresh).float().transpose(0, 1)
    for part in model.modules():
        if isinstance(part, snn.Leaky):
            part.reset_mem()
    with torch.no_grad():
        by_step = isinstance(model, nn.Sequential)
        theirs = torch.stack([model(f) for f in frames]) if by_step else model(frames)
    wanted = theirs.transpose(0, 1).flatten(2).numpy()
    assert 0.05 < wanted.mean() < 0.95
    # In single precision, where a matrix adds up in another order.
    assert (simulate(network, fresh).output.reshape(wanted.shape) != wanted).mean() < 0.01
