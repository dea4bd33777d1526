"""SpikingJelly's own models: imported spike for spike, or refused with all that is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.readout import decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.pipeline import deploy

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet

from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

SHAPE = (3, 16, 16)


def spikes(*shape: int) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(0).random((1, 2, *shape)) < 0.3).astype(np.uint8)


def refused(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    functional.set_step_mode(model.eval(), "m")
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model, shape, samples=spikes(*shape))
    return list(caught.value.offenders)


def resnet(connect: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = sew_resnet.sew_resnet18(
        cnf=connect, spiking_neuron=neuron.IFNode, num_classes=4
    )
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.5)
                module.bias.fill_(0.35)
        made.fc.weight.mul_(3)
    return made


@pytest.mark.parametrize(
    ("connect", "pool", "gates"),
    [("ADD", True, 0), ("ADD", False, 1), ("AND", False, 9), ("IAND", False, 9)],
)
def test_sew_resnet18_is_imported_once_neurons_end_it(connect: str, pool: bool, gates: int) -> None:
    body = resnet(connect)
    if pool:
        body.maxpool = layer.AvgPool2d(3, 2, 1)
    model = nn.Sequential(body, neuron.IFNode()).double().eval()
    functional.set_step_mode(model, "m")
    x = spikes(*SHAPE)
    network = read_spikingjelly(model, SHAPE, samples=x)
    assert len(network.populations) == 21 + gates
    assert sum(p.neuron.exact for p in network.populations) == gates
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, neuron.IFNode | nn.MaxPool2d):
            module.register_forward_hook(
                lambda _, __, answer, name=name: seen.__setitem__(name, answer)
            )
    with torch.no_grad():
        model(torch.from_numpy(x).double().transpose(0, 1))
    run = simulate(network, x, record=seen.keys())
    for name, answer in seen.items():
        assert np.array_equal(run.spikes[name], answer.transpose(0, 1).numpy()), name
    # Few spikes pass one mask after the other.
    deep = "" if connect == "ADD" else "0.layer1"
    assert all(r > 0.02 for name, r in run.rates.items() if name != "1" and name.startswith(deep))


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_resnet18_is_imported_as_it_comes(connect: str) -> None:
    model = resnet(connect).double().eval()
    functional.set_step_mode(model, "m")
    x = spikes(*SHAPE)
    network = read_spikingjelly(model, SHAPE, samples=x)
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(torch.from_numpy(x).double().transpose(0, 1)).sum(0).numpy()
    assert np.allclose(simulate(network, x).output[:, -1], answer, rtol=1e-9, atol=1e-12)


def test_a_spiking_transformer_is_refused_with_all_it_needs() -> None:
    from spikingjelly.activation_based.model import spikformer

    model = spikformer.Spikformer(
        T=2,
        in_channels=2,
        img_size_h=16,
        img_size_w=16,
        patch_size=4,
        num_classes=3,
        embed_dims=16,
        num_heads=2,
        depths=1,
    )
    found = refused(model, (2, 16, 16))
    for part in (
        "patch_embed.stages.2.conv_bn.block.2: MaxPool2d takes the largest of several currents",
        "patch_embed.stages.3.conv_bn.block.2: MaxPool2d takes the largest of several currents",
        "blocks.0.attn: SpikingSelfAttention is not supported: it multiplies integers",
    ):
        assert any(line.startswith(part) for line in found), part


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_blocks_are_compressed_and_fire_on_the_chip_as_they_should(connect: str) -> None:
    torch.manual_seed(0)

    def block(inner: int, outer: int, stride: int) -> nn.Module:
        down = None
        if stride != 1:
            conv = layer.Conv2d(inner, outer, 1, stride, bias=False)
            down = nn.Sequential(conv, layer.BatchNorm2d(outer), neuron.IFNode())
        made: nn.Module = sew_resnet.BasicBlock(
            inner, outer, stride, downsample=down, cnf=connect, spiking_neuron=neuron.IFNode
        )
        return made

    model = nn.Sequential(
        layer.Conv2d(2, 6, 3, 1, 1, bias=False),
        layer.BatchNorm2d(6),
        neuron.IFNode(),
        block(6, 6, 1),
        block(6, 8, 2),
        layer.Flatten(),
        layer.Linear(8 * 4 * 4, 5),
        neuron.IFNode(),
    ).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.5)
                module.bias.fill_(0.35)
        model[-2].weight.mul_(4)
    functional.set_step_mode(model, "m")
    x = (np.random.default_rng(0).random((20, 8, 2, 8, 8)) < 0.2).astype(np.uint8)
    done = deploy(model, x, target="loihi2", sparsity=0.3, bits=6, tune=False, backend_samples=0)
    names = [p.name for p in done.network.populations]
    before = simulate(done.compressed.network, x, record=names)
    whole = done.lowered.whole or done.lowered.network
    after = run(whole, x, record=[p.name for p in whole.populations])
    assert any("relay" in d.message for d in done.deviations)
    for name in names:
        assert 0.01 < before.rates[name] < 0.9
        fired = before.spikes[name].reshape(after.spikes[name].shape)
        assert np.mean(fired != after.spikes[name]) < 0.02, name
    # An identity passes every spike on, which lands right on the threshold.
    passed = next(n for n in names if n.endswith("downsample_sn"))
    assert np.array_equal(after.spikes[passed], after.spikes[passed.replace("_sn", ".2")])


class Rate(nn.Module):
    """The mean of a network's answers over time, as SpikingJelly's users take it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rate: torch.Tensor = self.body(x).mean(0)
        return rate


def voters(votes: int, *behind: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    first, last = layer.Linear(6, 20), layer.Linear(20, 12)
    with torch.no_grad():
        first.weight.mul_(4)
        last.weight.mul_(4)
    nodes = neuron.IFNode(), neuron.LIFNode()
    vote = layer.VotingLayer(votes)
    return nn.Sequential(first, nodes[0], last, nodes[1], vote, *behind).double().eval()


@pytest.mark.parametrize("mode", ["s", "m", "rate"])
def test_a_vote_at_the_end_is_left_to_the_readout(mode: str) -> None:
    model = voters(3)
    functional.set_step_mode(model, mode.replace("rate", "m"))
    whole = Rate(model) if mode == "rate" else model
    x = (np.random.default_rng(1).random((7, 15, 6)) < 0.4).astype(np.uint8)
    network = read_spikingjelly(whole, (6,), samples=x)
    assert network.readout == "vote:3"
    frames = torch.from_numpy(x).double().transpose(0, 1)

    def run(part: nn.Module) -> np.ndarray[Any, Any]:
        functional.reset_net(model)
        with torch.no_grad():
            answer = torch.stack([part(f) for f in frames]) if mode == "s" else part(frames)
        return answer.transpose(0, 1).numpy()

    ours = simulate(network, x).output
    assert np.array_equal(ours, run(model[:-1]))
    assert 0.05 < ours.mean() < 0.95
    rates = run(model).mean(1)
    assert np.array_equal(decode(ours, "vote:3", spiking=True), rates.argmax(1))


class Voted(nn.Module):
    """Votes in its own code, over the sum of all steps or in each."""

    def __init__(self, vote: Any, *, first: bool) -> None:
        super().__init__()
        self.layers, self.vote, self.first = voters(3)[:-1], vote, first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.first:
            return sum(self.vote(self.layers(frame)) for frame in x)  # type: ignore[return-value]
        return self.vote(torch.stack([self.layers(frame) for frame in x]).mean(0))  # type: ignore[no-any-return]


VOTES = {
    "pooling of one channel": lambda y: nn.AvgPool1d(3, 3)(y.unsqueeze(1)).squeeze(1),
    "pooling of samples": nn.AvgPool1d(3),
    "function": lambda y: nn.functional.avg_pool1d(y, 3),
    "mean of rows": lambda y: y.view(-1, 4, 3).mean(-1),
    "sum of rows": lambda y: y.reshape(len(y), 4, 3).sum(2),
}


def classes_and_answer(model: nn.Module) -> tuple[Any, Any]:
    """Import a model of votes; return its classes of fresh samples, and what it answers itself."""
    given, fresh = (
        (np.random.default_rng(seed).random((9, 15, 6)) < 0.4).astype(np.uint8) for seed in (1, 2)
    )
    network = read_spikingjelly(model, (6,), samples=given)
    assert network.readout == "vote:3"
    functional.reset_net(model)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh).double().transpose(0, 1))
    return decode(simulate(network, fresh).output, "vote:3", spiking=True), theirs


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", VOTES)
def test_a_vote_is_read_however_it_is_written(name: str, first: bool) -> None:
    model = Voted(VOTES[name], first=first)
    ours, theirs = classes_and_answer(model)
    assert np.array_equal(ours, theirs.numpy().argmax(1))
    assert len(set(ours)) > 1


class Shown(Voted):
    """Answers with the votes of all steps, and with what they are made of before or behind."""

    def forward(self, x: torch.Tensor) -> Any:
        fired = torch.stack([self.layers(frame) for frame in x])
        votes = torch.stack([self.vote(s) for s in fired])
        return (fired, votes) if self.first else (votes, fired)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", VOTES)
def test_votes_in_all_steps_are_read_beside_what_they_are_made_of(name: str, first: bool) -> None:
    model = Shown(VOTES[name], first=first)
    ours, theirs = classes_and_answer(model)
    assert np.array_equal(ours, theirs[first].sum(0).numpy().argmax(1))


@pytest.mark.parametrize(
    "vote",
    [
        lambda y: y.view(-1, 3, 4).sum(1),
        lambda y: nn.functional.avg_pool1d(y, 3, 2),
        lambda y: y.flip(-1).view(-1, 4, 3).mean(-1),
    ],
)
def test_a_vote_of_outputs_that_are_not_in_a_row_is_refused(vote: Any) -> None:
    refused(Voted(vote, first=True), (6,))


def test_dvs_gesture_net_is_imported_as_it_comes() -> None:
    torch.manual_seed(0)
    model = parametric_lif_net.DVSGestureNet(channels=2, spiking_neuron=neuron.LIFNode)
    functional.set_step_mode(model.eval(), "m")
    network = read_spikingjelly(model, (2, 128, 128), samples=spikes(2, 128, 128))
    assert network.output.size == 110
    assert network.readout == "vote:10"


def test_a_vote_elsewhere_or_changed_is_refused() -> None:
    assert "must leave none out" in refused(voters(5), (6,))[0]
    behind = voters(3, layer.Linear(4, 2), neuron.IFNode())
    assert "only the last layer may" in refused(behind, (6,))[0]
    model = voters(3)
    model[-1].register_forward_hook(lambda vote, given, answer: answer * 2)
    assert any("output" in line for line in refused(model, (6,)))
