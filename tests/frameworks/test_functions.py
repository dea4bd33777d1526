"""Products with weights that a forward writes out are the Linear they are, spike for spike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.graph import Dense
from osbc_deploy.model.simulate import simulate

pytest.importorskip("snntorch")
import snntorch as snn

from osbc_deploy.frameworks.snntorch.reading import read_snntorch

T, N, IN, OUT = 15, 6, 14, 9
Act = Callable[[Any, Any, Any], Any]


def spikes(seed: int) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).random((N, T, IN)) < 0.4).astype(np.uint8)


class Written(nn.Module):
    """Multiplies by a parameter in its own code, `act(x, weight, bias)`."""

    def __init__(self, act: Act, *, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.act, self.last = act, last
        self.weight = nn.Parameter(torch.randn(OUT, IN).double())
        self.bias = nn.Parameter(torch.randn(OUT).double() / 5)
        self.first = nn.Linear(IN, IN).double()
        self.neurons = [snn.Leaky(0.8, threshold=0.4), snn.Leaky(0.9, threshold=0.3)]
        self.cells = nn.ModuleList(self.neurons)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = (cell.init_leaky() for cell in self.neurons)
        answers = []
        for frame in x:
            s, one = self.neurons[0](self.first(frame), one)
            # Surrogates fire in single precision, which no weight of double precision takes.
            y = self.act(s.double(), self.weight, self.bias)
            if not self.last:
                y, two = self.neurons[1](y, two)
            answers.append(y)
        return torch.stack(answers)


PRODUCTS: dict[str, Act] = {
    "x @ W.t()": lambda x, w, b: x @ w.t(),
    "matmul": lambda x, w, b: torch.matmul(x, other=w.T),
    "matmul and a bias": lambda x, w, b: x @ w.T + b,
    "a bias and linear": lambda x, w, b: b + functional.linear(x, w),
    "mm": lambda x, w, b: torch.mm(x, w.transpose(0, 1)),
    "addmm": lambda x, w, b: torch.addmm(b, x, w.T),
    "einsum": lambda x, w, b: torch.einsum("ni,oi->no", x, w),
    "einsum, weights first": lambda x, w, b: torch.einsum("io, ...i -> ...o", w.T, x),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("last", [False, True])
def test_a_product_with_a_parameter_is_a_linear(name: str, last: bool) -> None:
    model = Written(PRODUCTS[name], last=last).eval()
    network = read_snntorch(model, (IN,), samples=spikes(0))
    connection = network.projections[1].connection
    assert isinstance(connection, Dense)
    assert np.array_equal(connection.weight, model.weight.detach().numpy())
    fresh = spikes(1)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh.astype(float)).transpose(0, 1)).transpose(0, 1)
    output = simulate(network, fresh).output
    if last:
        # Potentials that hold the sum of all steps so far.
        np.testing.assert_allclose(output, theirs.cumsum(1).numpy(), rtol=1e-9)
    else:
        assert 0.02 < theirs.mean() < 0.9
        assert np.array_equal(output, theirs.numpy())


def parts(x: Any, w: Any) -> tuple[Any, Any]:
    return functional.linear(x, w), functional.linear(x, w.flip(0))


SUMS: dict[str, Act] = {
    "add": lambda x, w, b: torch.add(*parts(x, w), alpha=0.5),
    "add to itself": lambda x, w, b: torch.add(*parts(x, w)[:1] * 2, alpha=0.5),
    "method": lambda x, w, b: parts(x, w)[0].add(parts(x, w)[1], alpha=2),
    "sub": lambda x, w, b: torch.sub(*parts(x, w), alpha=0.25),
    "rsub": lambda x, w, b: torch.rsub(*parts(x, w), alpha=2),
    "add a constant": lambda x, w, b: torch.add(functional.linear(x, w), b, alpha=2),
    "add to a constant": lambda x, w, b: torch.add(b, functional.linear(x, w), alpha=2),
    "take a constant": lambda x, w, b: torch.sub(functional.linear(x, w), b, alpha=2),
    "take from a constant": lambda x, w, b: torch.sub(b, functional.linear(x, w), alpha=-2),
    "nothing of the second": lambda x, w, b: torch.add(*parts(x, w), alpha=0),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_factor_of_a_sum_is_a_factor_of_the_weights(name: str) -> None:
    model = Written(SUMS[name]).eval()
    network = read_snntorch(model, (IN,), samples=spikes(0))
    fresh = spikes(1)
    with torch.no_grad():
        theirs = model(torch.from_numpy(fresh.astype(float)).transpose(0, 1)).transpose(0, 1)
    assert 0.02 < theirs.mean() < 0.9
    assert np.array_equal(simulate(network, fresh).output, theirs.numpy())


REFUSED: dict[str, tuple[Act, str]] = {
    "scaled": (
        lambda x, w, b: torch.addmm(b, x, w.T, beta=0.5),
        "addmm of a signal by weights, but not as a Linear does; write F.linear(x, weight)",
    ),
    "summed": (
        lambda x, w, b: torch.einsum("ni,oi->n", x, w)[:, None].expand(-1, OUT),
        "einsum of a signal by weights, but not as a Linear does",
    ),
    "of signals": (
        lambda x, w, b: functional.linear((x.t() @ x)[:1].expand(len(x), -1), w),
        "matmul is not supported: it multiplies integers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_products_say_what_to_write(name: str) -> None:
    act, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError) as caught:
        read_snntorch(Written(act), (IN,), samples=spikes(0))
    assert any(line.startswith(f"forward: {words}") for line in caught.value.offenders)
