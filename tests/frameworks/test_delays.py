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
