"""Leaky sums that a forward writes out are potentials that nothing resets.

What is expected is computed by the frameworks' own forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy import deploy
from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.importing import import_network
from osbc_deploy.model.answer import Leaking, read_by
from osbc_deploy.model.graph import Network
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly")
import snntorch as snn
from spikingjelly.activation_based import functional, neuron

T = 8
FRAMEWORKS = ("norse", "snnTorch", "SpikingJelly")
Bits = np.ndarray[Any, Any]
Step = Callable[[Any, Any, torch.Tensor, torch.Tensor], Any]


def spikes(seed: int, n: int = 12) -> Bits:
    return (np.random.default_rng(seed).random((n, T, 10)) < 0.4).astype(np.uint8)


class Net(nn.Module):
    """Neurons, a classifier, and a sum of what that gives that is kept as `step` says."""

    def __init__(self, framework: str, step: Step, *, first: Any = 0.0, end: str = "each") -> None:
        super().__init__()
        torch.manual_seed(7)
        self.framework, self.step, self.first, self.end = framework, step, first, end
        self.fc1, self.fc2 = nn.Linear(10, 20), nn.Linear(20, 4)
        self.beta = nn.Parameter(torch.linspace(0.3, 0.95, 4))
        self.cell = {
            "norse": norse.LIFBoxCell,
            "snnTorch": lambda: snn.Leaky(0.9),
            "SpikingJelly": neuron.LIFNode,
        }[framework]()
        with torch.no_grad():
            self.fc1.weight.mul_(60 if framework == "norse" else 4)
            # Otherwise one class is always the strongest.
            self.fc2.weight.sub_(self.fc2.weight.mean(1, keepdim=True)).mul_(5)

    def fired(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        state = self.cell.init_leaky() if self.framework == "snnTorch" else None
        for frame in x:
            if self.framework == "SpikingJelly":
                yield self.cell(self.fc1(frame))
                continue
            spk, state = self.cell(self.fc1(frame), state)
            yield spk

    def forward(self, x: torch.Tensor) -> Any:
        v, found = self.first, []
        if v is None:
            v = torch.zeros(x.shape[1], 4)
        for spk in self.fired(x):
            v = self.step(self, v, self.fc2(spk), spk)
            found.append(v.clone())
        if self.end == "largest":
            return torch.stack(found).max(0).values
        if self.end == "last":
            return v.softmax(-1)
        return torch.stack(found)


def in_place(net: Any, v: torch.Tensor, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    v *= 0.8
    v += x
    return v


STEPS: dict[str, Step] = {
    "a share": lambda net, v, x, s: 0.9 * v + x,
    "behind": lambda net, v, x, s: x + v * 0.9,
    "divided": lambda net, v, x, s: v / 1.25 + x,
    "trained": lambda net, v, x, s: net.beta.clamp(0, 1) * v + x,
    "time constant": lambda net, v, x, s: v + (x - v) / 3.0,
    "moving average": lambda net, v, x, s: net.beta * v + (1 - net.beta) * x,
    "in place": in_place,
    "taken off": lambda net, v, x, s: v - 0.25 * v + x,
    "of spikes": lambda net, v, x, s: 0.7 * v + s,
    "of less spikes": lambda net, v, x, s: 0.7 * v - 0.5 * s,
}


def read(model: nn.Module) -> Network:
    return import_network(model, None, check_samples("calibration", spikes(0)))


def theirs(model: Net, x: Bits) -> Bits:
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(torch.from_numpy(x).float().transpose(0, 1))
    functional.reset_net(model)
    return answer.numpy()


def check_on_fresh_spikes(model: nn.Module, network: Network) -> None:
    for seed, n in ((1, 12), (2, 1)):
        expected = theirs(model, spikes(seed, n))
        ours = simulate(network, spikes(seed, n)).output
        assert np.allclose(ours, np.moveaxis(expected, 0, 1), rtol=1e-5, atol=1e-5)
        assert np.abs(expected).max() > 0.1


# Spikes are more numbers than there are zeros, and a number is not changed in place.
STARTS: list[tuple[str, float | None]] = [(how, 0.0) for how in STEPS if how != "in place"]
STARTS += [(how, None) for how in STEPS if "spikes" not in how]


@pytest.mark.parametrize(("how", "first"), STARTS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_is_what_the_forward_keeps(framework: str, how: str, first: Any) -> None:
    model = Net(framework, STEPS[how], first=first).eval()
    network = read(model)
    assert isinstance(network.output.neuron, Leaking)
    # It may hear the spikes themselves.
    assert any("fc2" in said for said in network.warnings) == ("spikes" in how)
    assert not any("mul" in said for said in network.warnings)
    check_on_fresh_spikes(model, network)


@pytest.mark.parametrize(("end", "readout"), [("largest", "max"), ("last", "last")])
def test_it_is_deployed_and_read_as_the_forward_reads_it(end: str, readout: str) -> None:
    model = Net("snnTorch", STEPS["trained"], end=end).eval()
    labels = theirs(model, spikes(5, 40)).argmax(1)
    assert len(set(labels)) > 2
    found = deploy(
        model,
        spikes(0, 30),
        test=(spikes(5, 40), labels),
        classes=4,
        sparsity=0.0,
        bits=8,
        tune=False,
    )
    assert found.lowered.network.readout == readout
    assert found.accuracy.float_ == 1.0
    assert found.accuracy.fixed_point is not None
    assert found.accuracy.fixed_point > 0.9
    assert found.fidelity.mismatched_spikes == found.fidelity.mismatched_potentials == 0
    assert found.fidelity.compared_potentials > 0


class Traced(Net):
    """A classifier that hears a leaky sum of the spikes, which the forward keeps."""

    def __init__(
        self,
        framework: str,
        keep: Callable[[Any, Any, torch.Tensor], Any],
        hears: Callable[[Any, torch.Tensor], Any],
        end: str = "each",
    ) -> None:
        super().__init__(framework, lambda net, v, x, s: v)
        self.keep, self.hears, self.end = keep, hears, end
        self.share = nn.Parameter(torch.tensor(0.7))
        self.norm = nn.BatchNorm1d(20)
        self.norm.running_mean.fill_(0.4)
        with torch.no_grad():
            # So that it shows when a constant arrives.
            self.fc2.bias.copy_(torch.linspace(-0.5, 0.5, 4))

    def forward(self, x: torch.Tensor) -> Any:
        trace, found = torch.zeros(x.shape[1], 20), []
        for spk in self.fired(x):
            trace = self.keep(self, trace, spk)
            found.append(trace if self.end == "behind" else self.hears(self, trace))
        if self.end == "behind":
            return self.hears(self, trace)
        return torch.stack(found).max(0).values if self.end == "largest" else torch.stack(found)


def halves(net: Any, trace: torch.Tensor) -> torch.Tensor:
    weight, bias = net.fc2.weight, net.fc2.bias
    return torch.cat([nn.functional.linear(trace, weight[p], bias[p]) for p in ([0], [1, 2, 3])], 1)


KEPT: dict[str, Callable[[Any, Any, torch.Tensor], Any]] = {
    "a share": lambda net, v, s: 0.8 * v + s,
    "trained": lambda net, v, s: net.share * v + (1 - net.share) * s,
    "time constant": lambda net, v, s: v + (s - v) / 4.0,
}
HEARD: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "a Linear": lambda net, v: net.fc2(v),
    "a matrix": lambda net, v: 0.3 - v @ net.fc2.weight.T,
    "a BatchNorm before it": lambda net, v: net.fc2(net.norm(v)),
    "two heads": halves,
}


@pytest.mark.parametrize(
    ("keep", "hears"), [*((keep, "a Linear") for keep in KEPT), *(("a share", h) for h in HEARD)]
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_may_hear_it_for_the_answer(framework: str, keep: str, hears: str) -> None:
    model = Traced(framework, KEPT[keep], HEARD[hears]).eval()
    network = read(model)
    assert isinstance(network.output.neuron, Leaking)
    check_on_fresh_spikes(model, network)


@pytest.mark.parametrize(("end", "readout"), [("largest", "max"), ("behind", "last")])
def test_layers_behind_it_are_deployed_with_their_constant(end: str, readout: str) -> None:
    model = Traced("snnTorch", KEPT["a share"], HEARD["a Linear"], end).eval()
    x = spikes(5, 40)
    with torch.no_grad():
        # Otherwise one class is nearly always the strongest.
        model.fc2.bias.sub_(torch.from_numpy(theirs(model, x).mean(0)))
    labels = theirs(model, x).argmax(1)
    assert len(set(labels)) > 2
    options: dict[str, Any] = {"sparsity": 0.0, "bits": 8, "tune": False, "classes": 4}
    found = deploy(model, spikes(0, 30), test=(x, labels), **options)
    assert found.lowered.network.readout == readout
    assert found.accuracy.float_ == 1.0
    assert found.accuracy.fixed_point is not None
    assert found.accuracy.fixed_point > 0.9
    assert found.fidelity.mismatched_potentials == 0


def test_neurons_that_hear_it_are_refused_with_those_that_keep_it() -> None:
    class Fires(Traced):
        def __init__(self) -> None:
            super().__init__("SpikingJelly", KEPT["a share"], lambda net, v: net.last(net.fc2(v)))
            self.last = neuron.IFNode()

    with pytest.raises(UnsupportedModelError) as caught:
        read(Fires().eval())
    (said,) = caught.value.offenders
    assert said.startswith("forward: keeps a leaky sum of what cell gives")
    assert "SpikingJelly: CUBALIFNode" in said


def test_one_that_leaks_unevenly_is_heard_by_nothing() -> None:
    def uneven(net: Any, v: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return torch.linspace(0.5, 0.9, 20) * v + s

    with pytest.raises(UnsupportedModelError, match="where all of it leaks alike"):
        read(Traced("norse", uneven, HEARD["a Linear"]).eval())


REFUSED: dict[str, tuple[Step, Any]] = {
    "of the other sign": (lambda net, v, x, s: -0.5 * v + x, 0.0),
    "growing": (lambda net, v, x, s: 1.5 * v + x, 0.0),
    "of two currents": (lambda net, v, x, s: 0.9 * v + x - 0.1 * s.sum(1, keepdim=True), 0.0),
    "from elsewhere": (lambda net, v, x, s: 0.9 * v + x, 2.0),
    "bent": (lambda net, v, x, s: 0.9 * v.clamp(max=0.5) + x, None),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_leaky_sum_is_refused(how: str) -> None:
    step, first = REFUSED[how]
    with pytest.raises(UnsupportedModelError):
        read(Net("snnTorch", step, first=first).eval())


class Named(Net):
    def forward(self, x: torch.Tensor) -> Any:
        found = super().forward(x)
        return {"logits": found.mean(0), "rate": found.mean()}


def test_a_dict_is_read_part_by_part() -> None:
    model = Named("SpikingJelly", lambda net, v, x, s: x).eval()
    network = read(model)
    assert network.readout == "sum"
    x = spikes(3)
    functional.reset_net(model)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).float().transpose(0, 1))["logits"].numpy()
    functional.reset_net(model)
    summed, _ = read_by(network, network.readout)
    assert np.allclose(simulate(summed, x).output[:, -1] / T, expected, rtol=1e-5, atol=1e-5)
