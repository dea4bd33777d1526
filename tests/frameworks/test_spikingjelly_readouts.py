"""Potentials that SpikingJelly's networks answer with are SpikingJelly's, or are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.simulate import simulate

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron

from osbc_deploy.frameworks.spikingjelly.reading import read_spikingjelly

T, N = 12, 7
Bits = np.ndarray[Any, Any]


def spikes(seed: int) -> Bits:
    return (np.random.default_rng(seed).random((N, T, 14)) < 0.4).astype(np.uint8)


def stack(last: nn.Module, mode: str) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(layer.Linear(14, 9), neuron.LIFNode(), layer.Linear(9, 4), last)
    with torch.no_grad():
        model[0].weight.mul_(4)
    functional.set_step_mode(model, mode)
    return model


class All(nn.Module):
    """Takes all steps at once, and makes something of what the last node gives."""

    def __init__(self, last: nn.Module, end: Callable[[Any], Any]) -> None:
        super().__init__()
        self.layers, self.end = stack(last, "m"), end

    def forward(self, x: torch.Tensor) -> Any:
        return self.end(self.layers(x))


class Kept(nn.Module):
    """Answers with the potential that its last node keeps."""

    def __init__(self, last: nn.Module, mode: str = "s") -> None:
        super().__init__()
        self.layers, self.mode = stack(last, mode), mode

    def forward(self, x: torch.Tensor) -> Any:
        for part in x if self.mode == "s" else [x]:
            self.layers(part)
        return self.layers[3].v


class Recorded(nn.Module):
    """Answers with the potentials of all steps that its last node keeps, or what `end` does."""

    def __init__(self, end: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.layers = stack(neuron.LIFNode(v_threshold=INF, store_v_seq=True), "m")
        self.end = end

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.layers[:2](x)
        self.layers[2:](hidden)
        return self.end(self.layers[3].v_seq, hidden)


class Shown(neuron.SimpleLIFNode):
    """The readout of SpikingJelly's reinforcement learning examples."""

    def single_step_forward(self, x: torch.Tensor) -> torch.Tensor:
        self.neuronal_charge(x)
        return self.v


def own(model: nn.Module, x: Bits) -> Bits:
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(torch.from_numpy(x).float().transpose(0, 1))
    functional.reset_net(model)
    return (torch.stack(answer) if isinstance(answer, list) else answer).numpy()


INF = math.inf
SILENT, IF = neuron.NonSpikingLIFNode, neuron.NonSpikingIFNode
ENDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "list": (lambda: stack(SILENT(3.0), "m"), ""),
    "last_mem": (lambda: stack(SILENT(3.0, "last_mem"), "m"), "last"),
    "max-mem": (lambda: stack(IF("max-mem"), "m"), "max"),
    "mean-mem": (lambda: stack(IF("mean-mem"), "m"), "sum"),
    "stacked": (lambda: All(SILENT(1.7), torch.stack), ""),
    "added": (lambda: All(IF(), sum), "sum"),
    "last of a list": (lambda: All(IF(), lambda steps: steps[-1]), "last"),
    "recorded": (lambda: Recorded(lambda v, hidden: v), ""),
    "largest of what is recorded": (lambda: Recorded(lambda v, hidden: v.max(0)[0]), "max"),
    "infinite threshold": (lambda: Kept(neuron.LIFNode(v_threshold=INF)), "last"),
    "infinite, in one call": (lambda: Kept(neuron.LIFNode(v_threshold=INF), "m"), "last"),
    "infinite, not decayed": (
        lambda: Kept(neuron.LIFNode(3.0, False, v_threshold=INF, v_reset=0.2)),
        "last",
    ),
    "out of reach": (lambda: Kept(neuron.IFNode(v_threshold=1e9, v_reset=None)), "last"),
    "learned": (lambda: Kept(neuron.ParametricLIFNode(2.5, v_threshold=INF)), "last"),
    "of a subclass": (lambda: Kept(Shown(2.0, True)), "last"),
}
DECODED: dict[str, Callable[[Bits], Bits]] = {
    "": lambda v: v,
    "last": lambda v: v[-1],
    "max": lambda v: v.max(0),
    "sum": lambda v: v.sum(0),
}


@pytest.mark.parametrize("name", ENDS)
def test_potentials_are_spikingjellys(name: str) -> None:
    make, readout = ENDS[name]
    model = make().eval()
    network = read_spikingjelly(model, (14,), samples=spikes(0))
    assert network.readout == readout
    assert not network.output.neuron.spiking
    fresh = spikes(1)
    run = simulate(network, fresh)
    theirs = own(model, fresh)
    ours = DECODED[readout](np.moveaxis(run.output, 1, 0))
    if name == "mean-mem":
        theirs = theirs * T
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)
    assert theirs.any()
    if readout in ("", "last", "max"):
        assert np.array_equal(ours, theirs)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "decoded otherwise": (
        lambda: stack(SILENT(2.0, "max-abs-mem"), "m"),
        "3: NonSpikingLIFNode: no readout decodes potentials as decode='max-abs-mem' does; take",
    ),
    "given single steps": (
        lambda: stack(SILENT(2.0), "s"),
        "3: NonSpikingLIFNode: takes all time steps at once; call functional.set_step_mode(",
    ),
    "softly reset": (
        lambda: Kept(neuron.LIFNode(v_threshold=INF, v_reset=None)),
        "layers.3: LIFNode: its infinite threshold times no spike is NaN",
    ),
    "spikes that never come": (
        lambda: nn.Sequential(stack(neuron.LIFNode(v_threshold=INF), "s"), neuron.IFNode()),
        "0.3: LIFNode: its threshold is infinite, so it never fires; only the last node",
    ),
    "started elsewhere": (
        lambda: stack(neuron.SimpleLIFNode(2.0, True, v_reset=0.3), "s"),
        "3: SimpleLIFNode: it starts at 0 but is reset to v_reset=0.3; a LIFNode starts there",
    ),
    "reset": (
        lambda: Kept(neuron.LIFNode()),
        "layers.3: forward answers with its potentials, which are reset when it fires",
    ),
    "filtered": (
        lambda: nn.Sequential(stack(layer.SynapseFilter(2.0), "s"), neuron.IFNode()),
        "0.3: SynapseFilter is not supported: its current leaks only in steps without a spike",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_readout_is_says_what_to_do(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(make(), (14,), samples=spikes(0))
    assert any(line.startswith(words) for line in caught.value.offenders), caught.value


@pytest.mark.parametrize("first", [True, False])
def test_recorded_potentials_answer_beside_spikes_on_the_way_to_them(first: bool) -> None:
    model = Recorded(lambda v, hidden: (v, hidden) if first else (hidden, v))
    network = read_spikingjelly(model, (14,), samples=spikes(0))
    assert [p.name for p in network.populations] == ["layers.1", "layers.3"]
    assert network.warnings == ()


def test_an_answer_that_leaves_torch_is_not_taken_for_a_recording() -> None:
    model = Recorded(lambda v, hidden: (torch.tensor(v.tolist()), hidden))
    with pytest.raises(UnsupportedModelError) as caught:
        read_spikingjelly(model, (14,), samples=spikes(0))
    said = "forward: answers first with a tensor of shape (3, 2, 4) that was not seen to come from"
    assert any(line.startswith(said) for line in caught.value.offenders)
