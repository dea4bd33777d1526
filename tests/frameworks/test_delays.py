"""Signals of earlier steps, kept by a layer or by the forward itself, arrive as late as there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from drawn import lively
from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
import snntorch as snn
from spikingjelly.activation_based import functional, layer, neuron

T = 14
Bits = np.ndarray[Any, Any]


def spikes(seed: int = 0, n: int = 8, steps: int = T) -> Bits:
    return (np.random.default_rng(seed).random((n, steps, 10)) < 0.35).astype(np.uint8)


def equal(model: nn.Module, *, each: Callable[[Bits], Any] | None = None) -> Network:
    """Make sure that an import gives what the forward gives, on other samples and more steps."""
    network = import_network(model, None, check_samples("calibration", spikes()))
    for x in (spikes(1), spikes(2, 1), spikes(3, steps=2 * T)):
        functional.reset_net(model)
        with torch.no_grad():
            given = torch.from_numpy(x).float().transpose(0, 1)
            theirs = model(given) if each is None else each(given)
        functional.reset_net(model)
        ours = simulate(network, x).output
        assert np.array_equal(ours, theirs.transpose(0, 1).numpy())
        assert theirs.any()
    return network


class Late(nn.Module):
    """Two layers of SpikingJelly, one of which is heard later."""

    def __init__(self, steps: int, where: str, mode: str) -> None:
        super().__init__()
        self.where = where
        self.late = layer.Delay(steps)
        self.one, self.first = layer.Linear(10, 16), neuron.LIFNode()
        self.two, self.second = layer.Linear(16, 4, bias=where != "current"), neuron.LIFNode()
        functional.set_step_mode(self, mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.late(x) if self.where == "input" else x
        spk = self.first(self.one(x))
        if self.where == "beside":
            spk = spk + self.late(spk)
        current = self.two(self.late(spk) if self.where == "spikes" else spk)
        answer: torch.Tensor = self.second(
            self.late(current) if self.where == "current" else current
        )
        return answer


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("where", ["input", "spikes", "beside", "current"])
def test_a_delay_of_spikingjelly_is_one(where: str, steps: int, mode: str) -> None:
    model = lively(Late(steps, where, mode))
    each = None if mode == "m" else (lambda x: torch.stack([model(frame) for frame in x]))
    network = equal(model, each=each)
    late = [int(np.max(p.delay)) for p in network.projections if p.delay is not None]
    assert max(late, default=0) == steps


def test_a_constant_is_not_delayed() -> None:
    model = lively(Late(2, "current", "m"))
    model.two = layer.Linear(16, 4, step_mode="m")
    with pytest.raises(UnsupportedModelError, match="late: delays a constant"):
        import_network(model, None, check_samples("calibration", spikes()))


class Kept(nn.Module):
    """Layers of snnTorch that hear what the forward keeps of steps before."""

    def __init__(self, heard: tuple[int, ...], *, back: bool) -> None:
        super().__init__()
        self.heard, self.back = heard, back
        self.one, self.two = nn.Linear(10, 20), nn.Linear(20, 4)
        self.more = nn.ModuleList(nn.Linear(20, 20 if back else 4) for _ in heard)
        self.lif1, self.lif2 = snn.Leaky(0.9), snn.Leaky(0.8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        kept = [torch.zeros(x.shape[1], 20) for _ in range(max(self.heard))]
        for frame in x:
            late = sum(w(kept[d - 1]) for w, d in zip(self.more, self.heard, strict=True))
            current = self.one(frame)
            spk, mem1 = self.lif1(current + late if self.back else current, mem1)
            current = self.two(spk)
            kept = [spk, *kept[:-1]]
            spk, mem2 = self.lif2(current if self.back else current + late, mem2)
            found.append(spk)
        return torch.stack(found)


class OnlyLate(nn.Module):
    """Layers of snnTorch of which each hears nothing but an earlier step of the one before it."""

    def __init__(self, steps: tuple[int, int]) -> None:
        super().__init__()
        self.steps = steps
        self.one, self.two, self.three = nn.Linear(10, 20), nn.Linear(20, 12), nn.Linear(12, 4)
        self.cells = nn.ModuleList(snn.Leaky(beta) for beta in (0.9, 0.8, 0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, found = [cell.init_leaky() for cell in self.cells], []
        kept = [[torch.zeros(x.shape[1], n)] * k for n, k in zip((20, 12), self.steps, strict=True)]
        for frame in x:
            spk1, mem[0] = self.cells[0](self.one(frame), mem[0])
            kept[0].append(spk1)
            spk2, mem[1] = self.cells[1](self.two(kept[0].pop(0)), mem[1])
            kept[1].append(spk2)
            spk3, mem[2] = self.cells[2](self.three(kept[1].pop(0)), mem[2])
            found.append(spk3)
        return torch.stack(found)


@pytest.mark.parametrize("steps", [(1, 0), (0, 1), (1, 1), (3, 0), (2, 3)])
def test_layers_that_hear_nothing_but_earlier_steps_are_late(steps: tuple[int, int]) -> None:
    torch.manual_seed(1)
    network = equal(lively(OnlyLate(steps)))
    late = [0 if p.delay is None else int(np.max(p.delay)) for p in network.projections]
    assert tuple(late) == (0, *steps)


def test_an_earlier_step_that_is_passed_along_is_late() -> None:
    class Passes(OnlyLate):
        def forward(self, frame: torch.Tensor, state: Any = None) -> Any:
            if state is None:
                state = torch.zeros(len(frame), 20), *(cell.init_leaky() for cell in self.cells)
            kept, mem1, mem2, mem3 = state
            spk2, mem2 = self.cells[1](self.two(kept), mem2)
            spk1, mem1 = self.cells[0](self.one(frame), mem1)
            spk3, mem3 = self.cells[2](self.three(spk2), mem3)
            return spk3, (spk1, mem1, mem2, mem3)

    def each(x: torch.Tensor) -> torch.Tensor:
        state, found = None, []
        for frame in x:
            spk, state = model(frame, state)
            found.append(spk)
        return torch.stack(found)

    torch.manual_seed(1)
    model = lively(Passes((1, 0)))
    network = equal(model, each=each)
    assert [p.delay is not None for p in network.projections] == [False, True, False]


class Constant(OnlyLate):
    """Neurons that hear a constant, and nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem, found = [cell.init_leaky() for cell in self.cells], []
        for frame in x:
            spk1, mem[0] = self.cells[0](self.one(frame), mem[0])
            spk2, mem[1] = self.cells[1](torch.full((x.shape[1], 12), 0.3), mem[1])
            spk3, mem[2] = self.cells[2](self.three(self.two(spk1) + spk2), mem[2])
            found.append(spk3)
        return torch.stack(found)


def test_neurons_of_a_constant_alone_are_refused_for_that() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        import_network(lively(Constant((0, 0))), None, check_samples("calibration", spikes()))
    assert len(caught.value.offenders) == 1
    assert caught.value.offenders[0].startswith("cells.1: hears nothing that was seen to come")


@pytest.mark.parametrize("heard", [(1,), (2,), (5,), (1, 2), (2, 3), (1, 3, 6)])
@pytest.mark.parametrize("back", [False, True])
def test_what_a_forward_keeps_for_some_steps_arrives_then(
    heard: tuple[int, ...], back: bool
) -> None:
    network = equal(lively(Kept(heard, back=back)))
    late = sorted(int(np.max(p.delay)) for p in network.projections if p.delay is not None)
    # What leads back is a step late by itself.
    assert [d for d in late if d] == [d - back for d in heard if d - back]


def test_delays_of_a_forward_are_deployed() -> None:
    model = lively(Kept((2, 3), back=False))
    found = deploy(model, spikes(), sparsity=0.3, bits=8, tune=False, backend_samples=4)
    assert found.fidelity.compared_spikes > 0
    assert found.fidelity.mismatched_spikes == 0


class Padded(Kept):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([torch.zeros(2, *x.shape[1:]), x]))


def test_more_steps_than_samples_have_are_refused_for_that() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        import_network(
            lively(Padded((1,), back=False)), None, check_samples("calibration", spikes())
        )
    line, *_ = caught.value.offenders
    assert line.startswith("forward: cat puts time steps or samples beside others")
