"""What a forward makes of its output is read from it: in every framework, the classes are its own.

Nothing here decodes but the frameworks' forwards: their largest answer is the class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch.functional import accuracy_rate
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.functional import linear, log_softmax

from osbc_deploy import deploy, inspect
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.norse.reading import read_norse
from osbc_deploy.frameworks.snntorch.reading import read_snntorch
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly
from osbc_deploy.model.answer import read_by
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import NO_ANSWER, decode
from osbc_deploy.model.simulate import simulate

INPUTS, STEPS = 12, 6
Forward = Callable[[Any, list[torch.Tensor]], torch.Tensor]


def spikes(n: int = 40) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(3).random((n, STEPS, INPUTS)) < 0.4).astype(np.uint8)


class Net(nn.Module):
    """A network whose classifier has a large bias, so that it counts how often that is added."""

    def __init__(self, framework: str, end: Forward, outputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.framework, self.end = framework, end
        self.first, self.fc = nn.Linear(INPUTS, 15), nn.Linear(15, outputs)
        self.cell = {
            "norse": norse.LIFBoxCell,
            "snnTorch": lambda: snn.Leaky(0.8),
            "SpikingJelly": neuron.LIFNode,
        }[framework]()
        with torch.no_grad():
            self.first.weight.mul_(60 if framework == "norse" else 8)
            # Otherwise one class is always the strongest.
            self.fc.weight.sub_(self.fc.weight.mean(1, keepdim=True)).mul_(8)
            self.fc.bias.copy_(torch.linspace(-0.3, 0.2, outputs))

    def fired(self, x: torch.Tensor) -> list[torch.Tensor]:
        state, found = None, []
        for frame in x:
            if self.framework == "SpikingJelly":
                found.append(self.cell(self.first(frame)))
                continue
            if self.framework == "snnTorch" and state is None:
                state = self.cell.reset_mem()
            s, state = self.cell(self.first(frame), state)
            found.append(s)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self, self.fired(x))


def accumulated(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(fired[0].shape[0], 4)
    for s in fired:
        total = total + net.fc(s)
    return log_softmax(total / len(fired), dim=1)


def accumulated_in_place(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(fired[0].shape[0], 4)
    for s in fired:
        total += net.fc(s)
    total /= len(fired)
    return total


def counted_in_place(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(fired[0])
    for s in fired:
        total.add_(s)
    return total


def fc_sum(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([net.fc(s) for s in fired]).sum(0)


def heads(net: Any, s: torch.Tensor) -> torch.Tensor:
    weight, bias = net.fc.weight, net.fc.bias
    parts = [slice(0, 3), slice(3, 4)]
    return torch.cat([linear(s, weight[part], bias[part]) for part in parts], -1)


def filled(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    steps = torch.empty(len(fired), fired[0].shape[0], 4)
    for step, s in enumerate(fired):
        steps[step] = net.fc(s)
    return steps


def filled_behind(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
    steps = torch.zeros(fired[0].shape[0], len(fired), 4)
    for step, s in enumerate(fired):
        steps[:, step, :] = net.fc(s)
    return steps


H1, H2 = slice(0, 1), slice(1, 4)
ENDS: dict[str, tuple[Forward, str]] = {
    "classifier on the mean": (lambda net, f: net.fc(torch.stack(f).mean(0)), "sum"),
    "classifier on the sum": (lambda net, f: net.fc(sum(f)), "sum"),
    "classifier on a part of the sum": (lambda net, f: net.fc(0.3 * torch.stack(f).sum(0)), "sum"),
    "classifier on a rate": (lambda net, f: net.fc(sum(f) / len(f)), "sum"),
    "mean of the classifier": (lambda net, f: torch.stack([net.fc(s) for s in f]).mean(0), "sum"),
    "sum of the classifier": (lambda net, f: sum(net.fc(s) for s in f), "sum"),
    "two heads": (lambda net, f: sum(heads(net, s) for s in f), "sum"),
    "two heads on the mean": (lambda net, f: heads(net, torch.stack(f).mean(0)), "sum"),
    "two heads in the last step": (lambda net, f: [heads(net, s) for s in f][-1], "last"),
    "sums of two heads": (
        lambda net, f: torch.cat([sum(net.fc(s)[:, part] for s in f) for part in (H1, H2)], 1),
        "sum",
    ),
    "spikes that are not zero": (lambda net, f: torch.stack(f).count_nonzero(0), "sum"),
    "sum of what is a number": (lambda net, f: torch.stack(f).nansum(0), "sum"),
    "whether any step fires": (lambda net, f: torch.stack(f).any(0).float(), "max"),
    "each step scaled": (lambda net, f: torch.stack([0.3 * net.fc(s) for s in f]).mean(0), "sum"),
    "each class scaled": (
        lambda net, f: torch.stack([net.fc(s) for s in f]).mean(0) * torch.tensor([1, -1, 0.5, 1]),
        "sum",
    ),
    "the other sign": (lambda net, f: -sum(net.fc(s) for s in f), "sum"),
    "normalized": (
        lambda net, f: (net.fc(torch.stack(f).mean(0)) - 0.3) / torch.tensor([1, 2, 0.5, 1]),
        "sum",
    ),
    "a weighted sum of two": (
        lambda net, f: (
            0.7 * fc_sum(net, f) - 0.2 * sum(linear(s, net.fc.weight.flip(0)) for s in f)
        ),
        "sum",
    ),
    "growing sum": (accumulated, "sum"),
    "growing sum in place": (accumulated_in_place, "sum"),
    "spikes counted in place": (counted_in_place, "sum"),
    "votes of the classifier on the sum": (
        lambda net, f: net.fc(sum(f)).view(-1, 2, 2).mean(-1),
        "vote:2",
    ),
    "a constant behind the classifier": (
        lambda net, f: sum(net.fc(s) + torch.linspace(0.8, -0.8, 4) for s in f),
        "sum",
    ),
    "a constant before the classifier's answer": (
        lambda net, f: sum(0.5 + net.fc(s) for s in f),
        "sum",
    ),
    "a constant behind the sum of the classifier": (
        lambda net, f: sum(linear(s, net.fc.weight) for s in f) + torch.linspace(2.0, -2.0, 4),
        "sum",
    ),
    "a constant behind the sum of the spikes": (
        lambda net, f: torch.linspace(2.0, -2.0, 15) + torch.stack(f).sum(0) / 2,
        "sum",
    ),
    "a constant less the mean of the spikes": (
        lambda net, f: 2 * torch.stack(f).mean(0) - torch.linspace(0.0, 1.0, 15),
        "sum",
    ),
    "steps without a spike": (lambda net, f: 1 - torch.stack(f).mean(0), "sum"),
    "classifier called in each step beside": (
        lambda net, f: ([net.fc(s) for s in f], net.fc(sum(f)))[1],
        "sum",
    ),
    "log_softmax in each step": (
        lambda net, f: torch.stack([log_softmax(net.fc(s), 1) for s in f]).sum(0),
        "sum",
    ),
    "largest of all steps": (
        lambda net, f: log_softmax(torch.max(torch.stack([net.fc(s) for s in f]), 0)[0], 1),
        "max",
    ),
    "largest of what is filled": (lambda net, f: log_softmax(filled(net, f).max(0)[0], 1), "max"),
    "mean of what is filled": (lambda net, f: filled(net, f).mean(0), "sum"),
    "last of what is filled": (lambda net, f: filled(net, f)[-1], "last"),
    "largest of what is filled behind samples": (
        lambda net, f: filled_behind(net, f).amax(1),
        "max",
    ),
    "last of what is filled behind samples": (lambda net, f: filled_behind(net, f)[:, -1], "last"),
    "last step": (lambda net, f: torch.stack([net.fc(s) for s in f])[-1].softmax(1), "last"),
    "sigmoid of the mean": (lambda net, f: net.fc(torch.stack(f).mean(0)).sigmoid(), "sum"),
    "sigmoid of the largest": (
        lambda net, f: torch.sigmoid(torch.stack([net.fc(s) for s in f]).amax(0)),
        "max",
    ),
    "tanh of the last step": (
        lambda net, f: torch.stack([net.fc(s) for s in f])[-1].tanh(),
        "last",
    ),
    "sigmoid of the spikes' mean": (lambda net, f: nn.Sigmoid()(torch.stack(f).mean(0)), "sum"),
    "spikes counted": (lambda net, f: torch.stack(f).sum(0), "sum"),
    "spikes of the last step": (lambda net, f: torch.stack(f)[-1], "last"),
}
READ = {"norse": read_norse, "snnTorch": read_snntorch, "SpikingJelly": read_spikingjelly}


def own_classes(model: nn.Module, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(torch.from_numpy(x).float().transpose(0, 1))
    functional.reset_net(model)
    silent = (answer == 0).all(1)
    return np.where(silent, NO_ANSWER, answer.argmax(1).numpy())


def our_classes(network: Network, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    network, readout = read_by(network, network.readout)
    return decode(simulate(network, x).output, readout, spiking=network.output.neuron.spiking)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("framework", READ)
def test_the_classes_are_those_of_the_forward(framework: str, end: str) -> None:
    forward, readout = ENDS[end]
    model, x = Net(framework, forward).eval(), spikes()
    network = READ[framework](model, (INPUTS,), samples=x)
    assert network.readout == readout
    theirs = own_classes(model, x)
    assert len(set(theirs)) > 1
    assert np.array_equal(our_classes(network, x), theirs)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda net, f: net.fc(torch.stack(f).max(0).values), "fc: Linear hears a maximum over"),
        (lambda net, f: torch.stack(f).mean(0).relu(), "relu of a mean over time is no readout"),
        (lambda net, f: torch.stack(f).sum(0).argmax(1), "argmax of a sum .* is no readout"),
        (lambda net, f: torch.stack(f).argmax(-1), "argmax is not .* apply it to that"),
        (lambda net, f: torch.stack(f).cumsum(0)[-1], "cumsum is not .* apply it to that"),
        (lambda net, f: torch.stack(f).logsumexp(0), "logsumexp is not .* apply it to that"),
        (lambda net, f: torch.einsum("tnc->nc", torch.stack(f)), "write the sum and permute"),
        (lambda net, f: torch.tensor(sum(f).tolist()), "answers first with a tensor of shape"),
        (lambda net, f: torch.stack([net.fc(s).softmax(1) for s in f]).sum(0), "output: forward"),
        (lambda net, f: sum(f[1:]), "output: forward answers"),
        (lambda net, f: sum(net.fc(s).sigmoid() for s in f), "forward: sigmoid is not supported"),
    ],
)
def test_ends_that_no_readout_is_are_refused(end: Forward, why: str) -> None:
    with pytest.raises(UnsupportedModelError, match=why):
        read_snntorch(Net("snnTorch", end).eval(), (INPUTS,), samples=spikes())


@pytest.mark.parametrize("framework", READ)
def test_what_scales_each_step_is_part_of_the_layer(framework: str) -> None:
    model = Net(framework, lambda net, f: torch.stack([-0.3 * net.fc(s) for s in f])).eval()
    network = READ[framework](model, (INPUTS,), samples=spikes())
    functional.reset_net(model)
    with torch.no_grad():
        theirs = model(torch.from_numpy(spikes(9)).float().transpose(0, 1)).transpose(0, 1)
    ours = simulate(read_by(network, "last")[0], spikes(9)).output
    assert np.allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_a_positive_factor_of_the_answer_is_said_to_be_left_out_by_nothing() -> None:
    model = Net("snnTorch", lambda net, f: fc_sum(net, f) / net.temperature)
    model.temperature = nn.Parameter(torch.tensor(1.7))
    network = read_snntorch(model.eval(), (INPUTS,), samples=spikes())
    assert network.readout == "sum"
    assert not network.warnings


def test_steps_are_summed_up_where_the_forward_leaves_that_open() -> None:
    torch.manual_seed(11)
    model = nn.Sequential(layer.Linear(INPUTS, 15), neuron.IFNode(), layer.Linear(15, 4)).eval()
    network = read_spikingjelly(model, (INPUTS,), samples=spikes())
    assert network.readout == ""
    _, readout = read_by(network, "sum")
    assert readout == "last"


def test_a_classifier_with_votes_is_deployed_and_says_what_was_read() -> None:
    def voting(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
        return net.vote(net.fc(torch.stack(fired)).mean(0))

    model, x = Net("SpikingJelly", voting, outputs=12), spikes()
    model.vote = layer.VotingLayer(3)
    labels = own_classes(model, x)
    found = deploy(model, x, test=(x, labels), sparsity=0.0, bits=8, tune=False)
    assert found.accuracy.float_ == 1.0
    assert found.accuracy.fixed_point is not None
    assert found.accuracy.fixed_point > 0.9
    assert found.network.output.size == 4
    assert found.fidelity.compared_potentials == 16 * STEPS * 4
    assert found.fidelity.mismatched_potentials == found.fidelity.mismatched_spikes == 0
    assert "readout: vote:3, read from the model" in found.network.notes


def test_snntorchs_population_code_is_a_vote() -> None:
    rng = np.random.default_rng(5)
    fired = (rng.random((30, STEPS, 20)) < 0.3).astype(np.uint8)
    voted = decode(fired, "vote:5", spiking=True)
    assert len(set(voted)) == 4
    theirs = torch.from_numpy(fired).float().transpose(0, 1)
    # It tells accuracies only: that of the classes we find is 1 where they are its own.
    found = accuracy_rate(theirs, torch.from_numpy(voted), population_code=True, num_classes=4)
    assert found == 1.0
    others = torch.from_numpy((voted + 1) % 4)
    assert accuracy_rate(theirs, others, population_code=True, num_classes=4) == 0.0


def test_what_was_read_is_shown_and_scored_once() -> None:
    def voting(net: Any, fired: list[torch.Tensor]) -> torch.Tensor:
        return net.vote(net.fc(torch.stack(fired)).mean(0))

    model, x = Net("SpikingJelly", voting, outputs=12).eval(), spikes()
    model.vote = layer.VotingLayer(3)
    found = inspect(model, calibration=x)
    assert "readout: vote:3, read from the model" in found.remarks
    once, left = read_by(found.network, found.network.readout)
    twice, again = read_by(once, once.readout)
    assert (left, again, twice.output.size) == ("last", "last", 4)
    assert np.array_equal(simulate(once, x).output, simulate(twice, x).output)


def test_another_readout_is_taken_where_it_is_asked_for() -> None:
    forward, _ = ENDS["classifier on the mean"]
    model, x = Net("norse", forward), spikes()
    options: dict[str, Any] = {"sparsity": 0.0, "bits": 8, "tune": False, "backend": "engine"}
    found = deploy(model, x, readout="max", **options)
    said = "readout: max as asked; the model's own answer is sum"
    assert said in found.network.notes
    assert found.lowered.network.readout == "max"
    # Largest of all steps, as torch has it.
    with torch.no_grad():
        steps = [model.fc(s) for s in model.fired(torch.from_numpy(x).float().transpose(0, 1))]
    expected = torch.stack(steps).max(0).values.argmax(1).numpy()
    assert np.array_equal(decode(simulate(found.network, x).output, "max", spiking=False), expected)
