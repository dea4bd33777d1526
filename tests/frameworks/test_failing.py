"""What is wrong with a forward is said once, where it is, with what to do about it."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
import snntorch as snn
from spikingjelly.activation_based import encoding, layer, neuron

T = 6
Bits = np.ndarray[Any, Any]


def spikes(seed: int = 0) -> Bits:
    return (np.random.default_rng(seed).random((8, T, 14)) < 0.4).astype(np.uint8)


def read(model: nn.Module) -> Network:
    return import_network(model, None, check_samples("calibration", spikes()))


def refused(model: nn.Module) -> tuple[str, ...]:
    with pytest.raises(UnsupportedModelError) as caught:
        read(model)
    return tuple(caught.value.offenders)


class Net(nn.Module):
    """Two layers of snnTorch; `last` says what hears the first one, and when."""

    def __init__(self, last: str = "each") -> None:
        super().__init__()
        torch.manual_seed(2)
        self.last = last
        self.one, self.lif = nn.Linear(14, 9), snn.Leaky(0.9, threshold=0.3)
        self.two = nn.Linear(9, 4)
        self.norms: nn.ModuleList = snn.BatchNormTT1d(9, T)
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> Any:
        mem, answers, kept = self.lif.init_leaky(), [], []
        for step in range(len(x)):
            y = self.one(x[step])
            y = self.norms[step](y) if self.last == "norms" else y
            spk, mem = self.lif(y, mem)
            kept.append(mem if self.last == "potential" else spk)
            if self.last in ("each", "norms"):
                answers.append(self.two(spk))
        return answers[-1] if answers else self.two(kept[-1])


class Counted(Net):
    def forward(self, x: torch.Tensor, num_steps: int) -> Any:  # type: ignore[override]
        return super().forward(x[:num_steps])


class Encoded(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.a, self.lif, self.b = nn.Linear(14, 9), norse.LIFCell(), nn.Linear(9, 4)
        self.c, self.out = nn.Linear(4, 4), norse.LICell()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s, t, answers = None, None, []
        for frame in self.encoder(x):
            z, s = self.lif(self.a(frame), s)
            v, t = self.out(self.c(self.b(z)), t)
            answers.append(v)
        return torch.stack(answers)


def test_a_layer_for_each_step_is_named() -> None:
    assert refused(Net("norms")) == (
        "norms.1: is a BatchNorm1d for one time step, as norms.2 is for the next (BatchNormTT); on "
        "a chip weights are the same in all steps: train with one BatchNorm1d for all",
    )


def test_what_hears_the_last_step_alone_is_told_to_hear_each() -> None:
    (line,) = refused(Net("spikes"))
    assert line.startswith("two: hears lif in one step alone; call it in every step, and have")
    (line,) = refused(Net("potential"))
    assert line.startswith("two: hears the potential of lif; between layers of a chip")
    # What it is told to do gives the same answer.
    network, fresh = read(Net("each")), spikes(1)
    assert network.readout == "last"
    with torch.no_grad():
        theirs = Net("spikes")(torch.from_numpy(fresh).float().transpose(0, 1)).numpy()
    # Potentials that neither leak nor fire hold one step for this readout.
    np.testing.assert_allclose(simulate(network, fresh).output[:, -1], theirs, rtol=1e-5, atol=1e-6)


def test_a_forward_that_asks_for_more_is_told_to_have_a_default() -> None:
    assert refused(Counted())[0].startswith(
        "forward: takes num_steps beside the input; give what is no state a default"
    )


class Classifier(nn.Module):
    """An encoder, a network and a decoder, as norse's notebooks put them together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = norse.SpikeLatencyLIFEncoder(T)
        self.snn = Encoded(nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.encoder(x)
        _steps, _samples, _features = spikes.shape
        return torch.max(self.snn(spikes), 0)[0].log_softmax(1)


def test_an_encoder_of_images_is_said_where_the_model_takes_nothing_else() -> None:
    images = np.random.default_rng(0).random((8, 1, 14)).astype(np.float32).repeat(T, axis=1)
    with pytest.raises(UnsupportedModelError, match="for no time steps") as caught:
        import_network(Classifier(), None, check_samples("calibration", images))
    (line,) = caught.value.offenders
    assert line.startswith("encoder: SpikeLatencyLIFEncoder makes spikes of samples")
    assert caught.value.remedy.startswith("Give samples in time steps, (n, T, ...)")


def test_an_encoder_is_said_once() -> None:
    for model, kind in (
        (Encoded(norse.ConstantCurrentLIFEncoder(T)), "ConstantCurrentLIFEncoder"),
        (nn.Sequential(encoding.PoissonEncoder(), nn.Linear(14, 4), neuron.IFNode()), "PoissonEnc"),
    ):
        (line,) = refused(model)
        assert f": {kind}" in line
        assert "leave it out of forward()" in line


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
    ],
)
def test_what_is_wrapped_is_read(wrap: Any) -> None:
    network, plain = read(wrap(Net())), read(Net())
    assert network.source == "Net"
    assert np.array_equal(simulate(network, spikes(3)).output, simulate(plain, spikes(3)).output)


def test_what_is_wrapped_inside_of_a_model_says_what_to_give() -> None:
    (line,) = refused(nn.Sequential(nn.DataParallel(nn.Linear(14, 4)), neuron.IFNode()))
    assert line.endswith("put its .module where it stands")
    compiled = torch.compile(nn.Linear(14, 4), backend="eager")
    (line,) = refused(nn.Sequential(compiled, neuron.IFNode()))
    assert line.endswith("compile nothing inside of a model")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (norse.SequentialState(norse.LIFRefracCell()), "it rests for some steps after a spike"),
        (nn.Sequential(neuron.IFNode(), layer.NeuNorm(14, 1, 1)), "it takes off each channel"),
        (
            nn.Sequential(neuron.IFNode(), layer.BatchNormThroughTime1d(T, 14)),
            "it scales each time step by numbers of its own",
        ),
    ],
)
def test_why_a_part_is_not_read(model: nn.Module, words: str) -> None:
    assert any(words in line and "train with" in line for line in refused(model))
