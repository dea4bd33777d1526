"""The float network computes what snnTorch computes, bit for bit, or the model is refused."""

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

snn = pytest.importorskip("snntorch")
from osbc_deploy.frontends.snntorch import read_snntorch  # noqa: E402 - after the import it needs

T, N = 20, 5
Bits = np.ndarray[Any, Any]


def per_step(model: nn.Module, x: torch.Tensor) -> Bits:
    """Run snnTorch itself, one time step at a time, and return its spikes (n, T, ...).

    Its spikes are of single precision whatever the model is; here they are widened for the next
    layer.
    """
    for cell in model.modules():
        if isinstance(cell, snn.SpikingNeuron):
            cell.reset_mem()
    outputs = []
    with torch.no_grad():
        for frame in x:
            value = frame
            for layer in model:
                value = layer(value)
                value = value[0] if isinstance(value, tuple) else value
                value = value.to(x.dtype)
            outputs.append(value)
    return torch.stack(outputs, 1).numpy()


def spikes_of(x: torch.Tensor) -> Bits:
    return x.movedim(0, 1).numpy().astype(np.uint8)


def random_input(seed: int, *shape: int, rate: float = 0.35) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.rand(T, N, *shape) < rate).float()


def equal(model: nn.Module, shape: tuple[int, ...], x: torch.Tensor) -> Network:
    """Make sure that the float network gives snnTorch's bits, and return it."""
    expected = per_step(model, x)
    network = read_snntorch(model, shape)
    assert np.array_equal(simulate(network, spikes_of(x)).output, expected)
    return network


def parameter(data: st.DataObject, low: float, high: float, size: int) -> torch.Tensor:
    """Draw one number, or one for each neuron."""
    one = st.integers(round(low * 1000), round(high * 1000)).map(lambda number: number / 1000)
    if data.draw(st.booleans()):
        return torch.tensor(data.draw(one))
    return torch.tensor(data.draw(st.lists(one, min_size=size, max_size=size)))


def keeps_precision(v: torch.Tensor) -> torch.Tensor:
    """Fire as snnTorch's surrogates do, in the precision of the potential."""
    return (v > 0).to(v)


def cell(data: st.DataObject, size: int) -> nn.Module:
    """Draw a cell of any kind."""
    kind = data.draw(st.sampled_from(["Leaky", "Synaptic", "Lapicque", "RLeaky", "RSynaptic"]))
    common: dict[str, Any] = {
        "threshold": parameter(data, -0.2, 1.5, size),
        "reset_mechanism": data.draw(st.sampled_from(["subtract", "zero", "none"])),
        "learn_threshold": data.draw(st.booleans()),
        "init_hidden": True,
        "spike_grad": data.draw(st.sampled_from([None, keeps_precision])),
    }
    if kind == "Lapicque":
        if data.draw(st.booleans()):
            return snn.Lapicque(beta=data.draw(st.floats(0.1, 0.95)), **common)
        return snn.Lapicque(
            R=data.draw(st.integers(1, 7)), C=data.draw(st.floats(1.1, 9)), **common
        )
    common["beta"] = parameter(data, -0.2, 1.2, size)
    common["learn_beta"] = data.draw(st.booleans())
    if kind != "RSynaptic":
        common["reset_delay"] = data.draw(st.booleans())
    if "Synaptic" in kind:
        common["alpha"] = parameter(data, -0.1, 1.0, size)
    if kind.startswith("R"):
        if data.draw(st.booleans()):
            # snnTorch's own surrogates give single precision, which its own Linear then refuses.
            common |= {"linear_features": size, "spike_grad": keeps_precision}
        else:
            common |= {"all_to_all": False, "V": parameter(data, -1.0, 1.0, size)}
    return getattr(snn, kind)(**common)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**20))
def test_every_cell_gives_snntorch_bits(
    data: st.DataObject, n_in: int, n_out: int, wide: bool, seed: int
) -> None:
    x = random_input(seed, n_in)
    model = nn.Sequential(
        nn.Linear(n_in, n_out, bias=bool(seed % 2)),
        cell(data, n_out),
        nn.Linear(n_out, 3),
        snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True),
    )
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[2].weight.mul_(3)
    if wide:
        model, x = model.double(), x.double()
    equal(model, (n_in,), x)
