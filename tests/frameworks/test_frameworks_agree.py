"""One network built in several frameworks becomes one image for the chip, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from norse.torch.functional.reset import reset_value
from torch import nn

import osbc_deploy
from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.formats.image.write import encode_image

snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import layer, neuron  # noqa: E402 - after the check for it

DECAY = 0.75
"""What is kept of the potential per step; 1 - DECAY scales the input of two of the frameworks, and
is a power of two, so that scaled weights are exact."""

SIZES = (16, 24, 12, 4)


def norse_leaky() -> nn.Module:
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1000 * (1 - DECAY)),
        v_th=torch.tensor(0.5),
        reset_method=reset_value,
    )
    return norse.LIFBoxCell(p)


def norse_integrate() -> nn.Module:
    return norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(0.5), v_reset=torch.tensor(0.0)))


Cell = Callable[[], nn.Module]
CASES: dict[str, list[tuple[type, type, float, Cell]]] = {
    # Container, Linear, what the weights are multiplied by, and the neurons.
    "leak, reset to zero": [
        (norse.SequentialState, nn.Linear, 1.0, norse_leaky),
        (nn.Sequential, layer.Linear, 1.0, lambda: neuron.LIFNode(1 / (1 - DECAY), True, 0.5)),
        (
            nn.Sequential,
            nn.Linear,
            1.0 - DECAY,
            lambda: snn.Leaky(DECAY, 0.5, reset_mechanism="zero", init_hidden=True),
        ),
        (
            nn.Sequential,
            layer.Linear,
            1.0 - DECAY,
            lambda: neuron.LIFNode(1 / (1 - DECAY), False, 0.5),
        ),
    ],
    "no leak, reset to zero": [
        (norse.SequentialState, nn.Linear, 1.0, norse_integrate),
        (nn.Sequential, layer.Linear, 1.0, lambda: neuron.IFNode(0.5)),
        (
            nn.Sequential,
            nn.Linear,
            1.0,
            lambda: snn.Leaky(1.0, 0.5, reset_mechanism="zero", init_hidden=True),
        ),
    ],
    "no leak, reset by subtraction": [
        (nn.Sequential, layer.Linear, 1.0, lambda: neuron.IFNode(0.5, None)),
        (nn.Sequential, nn.Linear, 1.0, lambda: snn.Leaky(1.0, 0.5, init_hidden=True)),
    ],
}


def network(container: type, linear: type, factor: float, cell: Cell) -> nn.Module:
    """Build the same network with the layers of a framework."""
    torch.manual_seed(11)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(SIZES):
        made = linear(n_in, n_out, bias=False)
        with torch.no_grad():
            made.weight.copy_(torch.randn(n_out, n_in) * factor * 4 / n_in**0.5)
        layers += [made, cell()]
    return container(*layers)


def spikes() -> np.ndarray[Any, Any]:
    return (np.random.default_rng(5).random((12, 15, SIZES[0])) < 0.3).astype(np.uint8)


def deployed(model: nn.Module) -> Deployment:
    return osbc_deploy.deploy(
        model, spikes(), target="loihi2", sparsity=0.5, tune=False, backend_samples=0
    )


@pytest.mark.parametrize("case", CASES)
def test_the_same_network_gives_the_same_image(case: str) -> None:
    first, *others = (deployed(network(*version)) for version in CASES[case])
    image, _ = encode_image(first.lowered.network, first.mapping)
    assert all(activity.spikes for activity in first.activity.values())
    for other in others:
        for ours, theirs in zip(
            first.lowered.network.populations, other.lowered.network.populations, strict=True
        ):
            for name, value in vars(ours).items():
                assert np.array_equal(value, getattr(theirs, name)), name
        for a, b in zip(
            first.lowered.network.projections, other.lowered.network.projections, strict=True
        ):
            assert np.array_equal(a.connection.weight, b.connection.weight)
            assert (a.weight_bits, a.weight_exp) == (b.weight_bits, b.weight_exp)
        assert encode_image(other.lowered.network, other.mapping)[0] == image


def test_a_cell_that_never_resets_is_refused_for_the_chip_by_name() -> None:
    model = nn.Sequential(
        nn.Linear(16, 8),
        snn.Leaky(0.9, reset_mechanism="none", init_hidden=True),
        nn.Linear(8, 4),
        snn.Leaky(0.9, init_hidden=True),
    )
    with pytest.raises(UnsupportedModelError, match="1: a spike leaves the potential as it is"):
        deployed(model)


def test_a_reset_the_chip_cannot_do_exactly_is_in_the_report() -> None:
    model = network(nn.Sequential, nn.Linear, 1.0, lambda: snn.Synaptic(0.5, 0.9, 0.5, **HIDDEN))
    done = deployed(model)
    said = [d.subject for d in done.lowered.deviations if "loses the input" in d.message]
    assert said == ["1", "3", "5"]


HIDDEN: dict[str, Any] = {"init_hidden": True, "reset_mechanism": "zero"}


def test_feedback_of_snntorch_runs_on_the_chip_as_feedback() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(16, 12, bias=False),
        snn.RLeaky(0.75, linear_features=12, threshold=0.5, init_hidden=True),
        nn.Linear(12, 4, bias=False),
        snn.Leaky(0.75, threshold=0.5, init_hidden=True),
    )
    with torch.no_grad():
        for linear in (model[0], model[2]):
            linear.weight.mul_(4)
        model[1].recurrent.bias.zero_()
    done = osbc_deploy.deploy(
        model, spikes(), target="loihi2", sparsity=0.0, bits=8, backend_samples=0
    )
    (feedback,) = [p for p in done.lowered.network.projections if p.pre == p.post]
    assert feedback.name == "1.recurrent"
    assert done.accuracy.agreement > 0.8


def test_frameworks_are_not_mixed() -> None:
    model = nn.Sequential(nn.Linear(16, 8), snn.Leaky(0.9), layer.Linear(8, 4), neuron.IFNode())
    with pytest.raises(UnsupportedModelError, match="snnTorch and SpikingJelly"):
        deployed(model)


def test_a_cell_that_never_resets_cannot_be_written_as_nir() -> None:
    pytest.importorskip("nir")
    from osbc_deploy.formats.nir.write import nir_graph
    from osbc_deploy.frameworks.snntorch.reading import read_snntorch

    made = network(nn.Sequential, nn.Linear, 1.0, lambda: snn.Leaky(0.75, reset_mechanism="none"))
    with pytest.raises(UnsupportedModelError, match="1: a spike leaves the potential as it is"):
        nir_graph(read_snntorch(made, (16,)))


class Residual(nn.Module):
    """Two hidden layers whose spikes are added in front of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.sn1 = layer.Linear(16, 12), neuron.IFNode(0.5)
        self.fc2, self.sn2 = layer.Linear(12, 12), neuron.LIFNode(2.0, True, 0.3)
        self.fc3, self.sn3 = layer.Linear(12, 4), neuron.IFNode(0.5, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.sn1(self.fc1(x))
        return self.sn3(self.fc3(first + self.sn2(self.fc2(first))))


def test_a_residual_network_reaches_the_chip() -> None:
    torch.manual_seed(2)
    model = Residual()
    with torch.no_grad():
        for linear in (model.fc1, model.fc2, model.fc3):
            linear.weight.mul_(4)
    done = osbc_deploy.deploy(
        model, spikes(), target="loihi2", sparsity=0.0, bits=8, tune=False, backend_samples=0
    )
    ends = {(p.pre, p.post) for p in done.network.projections}
    assert ends == {("input", "sn1"), ("sn1", "sn2"), ("sn1", "sn3"), ("sn2", "sn3")}
    assert all(activity.spikes for activity in done.activity.values())
    assert done.accuracy.agreement > 0.8
