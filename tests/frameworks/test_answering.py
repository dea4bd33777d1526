"""Which of several tensors a forward gives is its answer: what the others lead to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

snn = pytest.importorskip("snntorch")

T = 9


class Recording(nn.Module):
    """Two layers whose spikes and potentials are kept, and some of those given back."""

    def __init__(self, given: str, *, resets: bool = True) -> None:
        super().__init__()
        self.given = given.split()
        self.fc1, self.l1 = nn.Linear(20, 16), snn.Leaky(beta=0.9)
        self.fc2 = nn.Linear(16, 5)
        self.l2 = snn.Leaky(beta=0.8, reset_mechanism="subtract" if resets else "none")

    def forward(self, x: torch.Tensor) -> Any:
        m1, m2 = self.l1.init_leaky(), self.l2.init_leaky()
        kept: dict[str, list[torch.Tensor]] = {}
        for frame in x:
            s1, m1 = self.l1(self.fc1(frame), m1)
            current = self.fc2(s1)
            s2, m2 = self.l2(current, m2)
            found = {"spk1": s1, "mem1": m1, "cur2": current, "spk2": s2, "mem2": m2}
            for name, value in found.items():
                kept.setdefault(name, []).append(value)
        whole = {name: torch.stack(values) for name, values in kept.items()}
        whole |= {"rate1": whole["spk1"].mean(0), "sum2": whole["spk2"].sum(0)}
        whole["max2"] = whole["mem2"].max(0)[0]
        whole["weighted2"] = whole["sum2"].clone()
        whole["weighted2"][:, 2] *= 3.0
        answer = tuple(whole[name] for name in self.given)
        return answer[0] if len(answer) == 1 else answer


class Aside(Recording):
    """Weights that only a second part of the answer hears, which torch sees or does not."""

    def __init__(self, *, array: bool) -> None:
        super().__init__("")
        self.array = array
        self.aux, self.weight = nn.Linear(16, 3), nn.Parameter(torch.ones(2, 16))

    def forward(self, x: torch.Tensor) -> Any:
        m1, m2 = self.l1.init_leaky(), self.l2.init_leaky()
        spikes, aside = [], []
        for frame in x:
            s1, m1 = self.l1(self.fc1(frame), m1)
            s2, m2 = self.l2(self.fc2(s1), m2)
            spikes.append(s2)
            if self.array:
                aside.append(torch.from_numpy(s1.detach().numpy() @ np.ones((16, 2))))
            else:
                aside.append(torch.cat([self.aux(s1), functional.linear(s1, self.weight)], 1))
        return torch.stack(spikes), torch.stack(aside)


class Heads(Recording):
    """Two layers side by side, each of which could be the answer."""

    def forward(self, x: torch.Tensor) -> Any:
        m1, m2 = self.l1.init_leaky(), self.l2.init_leaky()
        first, second = [], []
        for frame in x:
            s1, m1 = self.l1(self.fc1(frame), m1)
            s2, m2 = self.l2(self.fc2(frame[:, :16]), m2)
            first.append(s1)
            second.append(s2)
        return torch.stack(first), torch.stack(second)


def lively(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for name in ("fc1", "fc2"):
            linear = getattr(model, name)
            linear.weight.copy_(torch.randn_like(linear.weight) * 1.6 / linear.in_features**0.5)
            linear.bias.zero_()
    return model.eval()


def raster() -> np.ndarray[Any, Any]:
    return (np.random.default_rng(0).random((6, T, 20)) < 0.4).astype(np.uint8)


def imported(model: nn.Module, x: np.ndarray[Any, Any]) -> Network:
    return import_network(model, None, check_samples("calibration", x))


def theirs(given: str, x: np.ndarray[Any, Any], *, resets: bool = True) -> np.ndarray[Any, Any]:
    model = lively(Recording(given, resets=resets))
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(np.moveaxis(x, 1, 0).copy()).float()))


@pytest.mark.parametrize(
    ("given", "readout"),
    [
        ("spk1 spk2", ""),
        ("spk1 mem1 spk2 mem2", ""),
        ("spk2 mem2", ""),
        ("mem2 spk1 spk2", ""),
        ("cur2 spk2", ""),
        ("rate1 sum2", "sum"),
        ("sum2 rate1", "sum"),
    ],
)
def test_what_is_recorded_on_the_way_is_not_the_answer(given: str, readout: str) -> None:
    x = raster()
    network = imported(lively(Recording(given)), x)
    spikes = theirs("spk2", x)
    assert spikes.any()
    assert np.array_equal(np.moveaxis(simulate(network, x).output, 1, 0), spikes)
    assert network.readout == readout
    assert network.warnings == ()
    said = "with its potentials first"
    assert any(said in note for note in network.notes) == given.startswith("mem2")


@pytest.mark.parametrize(("given", "readout"), [("mem2 spk1", ""), ("rate1 max2", "max")])
def test_potentials_that_never_reset_answer_behind_recorded_spikes(
    given: str, readout: str
) -> None:
    x = raster()
    network = imported(lively(Recording(given, resets=False)), x)
    potentials = theirs("mem2", x, resets=False)
    ours = np.moveaxis(simulate(network, x).output, 1, 0)
    np.testing.assert_allclose(ours, potentials, atol=1e-5 * np.abs(potentials).max())
    assert network.readout == readout


def test_a_layer_that_the_answer_does_not_hang_on_is_named() -> None:
    x = raster()
    network = imported(lively(Heads("")), x)
    assert [p.name for p in network.populations] == ["l1"]
    said = network.warnings[0]
    assert said.startswith(
        "fc2, l2: forward calls them, but its answer, l1, does not depend on them"
    )


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (False, "aux, linear: forward calls them, but its answer, l2, does not depend on them"),
        (True, "forward: answers with a tensor as well that was not seen to come from its input"),
    ],
)
def test_weights_that_the_answer_does_not_hang_on_are_named(array: bool, said: str) -> None:
    x = raster()
    network = imported(lively(Aside(array=array)), x)
    (warning,) = network.warnings
    assert warning.startswith(said)
    assert np.array_equal(np.moveaxis(simulate(network, x).output, 1, 0), theirs("spk2", x))


def test_what_forward_makes_of_outputs_that_never_fire_is_not_proven() -> None:
    x = raster()
    model = lively(Recording("weighted2"))
    with pytest.raises(UnsupportedModelError, match="which is not what l2 gives in all steps"):
        imported(model, x)
    with torch.no_grad():
        model.fc2.weight[2:4] = -1.0
    network = imported(model, x)
    (said,) = network.warnings
    assert said.startswith("import: 2 of 5 outputs (2, 3) never fire on these samples")
