"""The float network computes what SpikingJelly computes, bit for bit, or the model is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from osbc_deploy.network.graph import Network
from osbc_deploy.network.simulate import simulate

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, layer, neuron, surrogate

from osbc_deploy.frontends.spikingjelly import read_spikingjelly

T, N = 20, 5
Bits = np.ndarray[Any, Any]


def spikes_of(x: torch.Tensor) -> Bits:
    return x.movedim(0, 1).numpy().astype(np.uint8)


def random_input(seed: int, *shape: int, rate: float = 0.35) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.rand(T, N, *shape) < rate).float()


def own_forward(model: nn.Module, x: torch.Tensor, mode: str) -> Bits:
    """Run SpikingJelly itself and return its output (n, T, ...)."""
    functional.reset_net(model)
    with torch.no_grad():
        answer = model(x) if mode == "m" else torch.stack([model(frame) for frame in x])
    functional.reset_net(model)
    return answer.movedim(0, 1).numpy()


def equal(model: nn.Module, shape: tuple[int, ...], x: torch.Tensor, mode: str) -> Network:
    """Make sure that the float network gives SpikingJelly's bits, and return it."""
    expected = own_forward(model, x, mode)
    network = read_spikingjelly(model, shape, samples=spikes_of(x))
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    return network


def node(data: st.DataObject) -> nn.Module:
    """Draw a node of any kind."""
    kind = data.draw(st.sampled_from(["IFNode", "LIFNode", "ParametricLIFNode"]))
    common: dict[str, Any] = {
        "v_threshold": data.draw(st.sampled_from([1.0, 0.3, 0.77, 2.0])),
        "v_reset": data.draw(st.sampled_from([None, 0.0, 0.1, -0.37])),
        "surrogate_function": data.draw(st.sampled_from([surrogate.Sigmoid(), surrogate.ATan()])),
        "detach_reset": data.draw(st.booleans()),
        "store_v_seq": data.draw(st.booleans()),
    }
    if kind != "IFNode":
        tau = data.draw(st.integers(1001, 20000)) / 1000
        common["tau" if kind == "LIFNode" else "init_tau"] = tau
        common["decay_input"] = data.draw(st.booleans())
    return getattr(neuron, kind)(**common)


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from("sm"),
    st.integers(0, 2**20),
)
def test_every_node_gives_spikingjelly_bits(
    data: st.DataObject, n_in: int, n_out: int, wide: bool, mode: str, seed: int
) -> None:
    x = random_input(seed, n_in)
    model = nn.Sequential(
        layer.Linear(n_in, n_out, bias=bool(seed % 2)),
        node(data),
        layer.Linear(n_out, 3),
        node(data),
    )
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.mul_(3)
    if wide:
        model, x = model.double(), x.double()
    functional.set_step_mode(model, mode)
    equal(model, (n_in,), x, mode)
