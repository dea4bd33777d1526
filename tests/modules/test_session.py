"""Which way a model is called, and where samples and steps are in what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import osbc_deploy

snn = pytest.importorskip("snntorch")

T = 8
Bits = np.ndarray[Any, Any]


def spikes(seed: int, n: int = 30) -> Bits:
    return (np.random.default_rng(seed).random((n, T, 9)) < 0.4).astype(np.uint8)


class Sensors(nn.Module):
    """Takes samples as they are said to come, and answers with steps where it is said."""

    def __init__(self, taken: str, answered: str) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.taken, self.answered = taken, answered
        self.one, self.two = nn.Linear(9, 14), nn.Linear(14, 3)
        self.lif1, self.lif2 = snn.Leaky(0.9), snn.Leaky(0.8)
        with torch.no_grad():
            self.one.weight.mul_(4)
            # Otherwise one class is always the strongest.
            self.two.weight.sub_(self.two.weight.mean(1, keepdim=True)).mul_(9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.movedim(-1, 0) if self.taken == "n, C, T" else x
        mem1, mem2, found = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for frame in frames:
            spk, mem1 = self.lif1(self.one(frame), mem1)
            spk, mem2 = self.lif2(self.two(spk), mem2)
            found.append(spk)
        if self.answered == "n, C":
            return torch.stack(found, -1).mean(-1)
        return torch.stack(found, dim=2 if self.answered == "n, C, T" else 0)


def own_classes(model: nn.Module, x: Bits) -> Bits:
    given = torch.from_numpy(x).float()
    with torch.no_grad():
        answer = model(given.movedim(1, -1) if model.taken == "n, C, T" else given.movedim(1, 0))
    axis = {"n, C": None, "n, C, T": 2, "T, n, C": 0}[str(model.answered)]
    return np.asarray((answer if axis is None else answer.sum(axis)).argmax(1))


@pytest.mark.parametrize("answered", ["n, C", "n, C, T", "T, n, C"])
@pytest.mark.parametrize("taken", ["n, C, T", "T, n, C"])
def test_time_may_come_behind_what_is_taken_and_answered(taken: str, answered: str) -> None:
    model = Sensors(taken, answered).eval()
    test = spikes(4)
    labels = own_classes(model, test)
    assert len(set(labels)) == 3
    found = osbc_deploy.compress_model(model, spikes(0), test=(test, labels), sparsity=0.5, bits=4)
    assert found.accuracy.float_ == 1.0
    assert found.accuracy.compressed is not None
    assert found.accuracy.compressed < 1.0
    # The same weights, whatever the order of the axes.
    other = osbc_deploy.compress_model(
        Sensors("T, n, C", "T, n, C").eval(), spikes(0), sparsity=0.5, bits=4
    )
    assert all(torch.equal(value, other.state[name]) for name, value in found.state.items())
