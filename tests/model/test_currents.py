"""Exact currents against fractions, which do not round, and against torch's own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from osbc_deploy.model.currents import exact_current, framework_current, in_full_precision, parts
from osbc_deploy.model.graph import AvgPool, Connection, Conv, Dense, Projection
from solver_problems import Array


def drawn(rng: np.random.Generator, *shape: int) -> Array:
    """Weights of very different sizes, so that sums in another order differ."""
    return rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 1, shape)


def connections(
    rng: np.random.Generator, dtype: str
) -> dict[str, tuple[Connection, AvgPool | None]]:
    conv = Conv(
        drawn(rng, 6, 2, 3, 2).astype(dtype), drawn(rng, 6).astype(dtype),
        (2, 1), (1, 1), (1, 2), groups=2,
    )  # fmt: skip
    pool = AvgPool((2, 3), (1, 2), (1, 0), 5)
    return {
        "dense": (Dense(drawn(rng, 5, 4 * 7 * 8).astype(dtype)), None),
        "conv": (conv, None),
        "pooled": (conv, pool),
        "pooled dense": (Dense(drawn(rng, 5, 4 * 8 * 3).astype(dtype)), pool),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "conv", "pooled", "pooled dense"])
def test_exact_currents_are_the_frameworks_up_to_rounding(
    kind: str, dtype: str, rng: np.random.Generator
) -> None:
    connection, pool = connections(rng, dtype)[kind]
    projection = Projection("w", "input", "p", connection, pool)
    spikes = torch.tensor(rng.random((3, 4, 7, 8)) < 0.4, dtype=getattr(torch, dtype))
    exact = exact_current(projection, spikes.dtype)(spikes)
    theirs = framework_current(projection, spikes.dtype)(spikes)
    assert exact.dtype == theirs.dtype
    assert exact.shape == theirs.shape
    largest = np.abs(connection.weight).reshape(len(connection.weight), -1).sum(axis=1).max()
    tolerance = 100 * torch.finfo(spikes.dtype).eps * float(largest)
    assert torch.allclose(exact, theirs, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_current_is_the_true_sum_whatever_the_order(dtype: str, rng: np.random.Generator) -> None:
    W = drawn(rng, 40, 900).astype(dtype)
    spikes = rng.random((5, 900)) < 0.3
    order = rng.permutation(900)
    kind = getattr(torch, dtype)

    def current(weight: Array, active: Array, exact: bool) -> Array:
        projection = Projection("w", "input", "p", Dense(weight))
        made = exact_current if exact else framework_current
        return made(projection, kind)(torch.tensor(active, dtype=kind)).numpy()

    found = current(W, spikes, True)
    assert np.array_equal(found, current(W[:, order], spikes[:, order], True))
    # What this is about: the framework's own sums change with the order.
    assert not np.array_equal(
        current(W, spikes, False), current(W[:, order], spikes[:, order], False)
    )
    for n in range(5):
        for row in range(40):
            true = sum(Fraction(float(w)) for w in W[row, spikes[n]])
            size = float(np.abs(W[row]).sum())
            # Double precision rounds the weights, to less than the last digit of the largest sum.
            weights = 900 * size if dtype == "float64" else 1e-3 * size
            rounding = np.finfo(dtype).eps * (abs(float(true)) / 2 + weights)
            assert abs(Fraction(float(found[n, row])) - true) <= Fraction(float(rounding))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "conv", "pooled", "pooled dense"])
def test_a_gpu_adds_up_the_same_bits(kind: str, dtype: str, rng: np.random.Generator) -> None:
    connection, pool = connections(rng, dtype)[kind]
    projection = Projection("w", "input", "p", connection, pool)
    spikes = torch.tensor(rng.random((3, 4, 7, 8)) < 0.4, dtype=getattr(torch, dtype))
    gpu = torch.device("cuda")
    here = exact_current(projection, spikes.dtype)(spikes)
    with in_full_precision(gpu):
        there = exact_current(projection, spikes.dtype, device=gpu)(spikes.to(gpu))
    assert torch.equal(here, there.cpu())


def test_parts_add_up_to_the_weights_and_hold_few_digits(rng: np.random.Generator) -> None:
    W = drawn(rng, 7, 300).astype(np.float32)
    first, second = parts(W, 4).astype(np.float64)
    assert np.abs(first + second - W).max() <= 2.0**-34 * 4 * np.abs(W).sum(axis=1).max()
    for part in (first, second):
        unit = np.abs(part[part != 0]).min()
        while (part / unit != np.rint(part / unit)).any():
            unit /= 2
        assert 4 * np.abs(part / unit).sum(axis=1).max() <= 2**24
    assert not parts(np.zeros((2, 3), np.float32), 1).any()


@pytest.mark.parametrize("peak", [1, 1.0])
def test_a_current_does_not_hang_on_which_channels_come_together(
    peak: float, rng: np.random.Generator
) -> None:
    """Grouped, pooled, with a bias; spikes and real values."""
    conv, pool = connections(rng, "float32")["pooled"]
    projection = Projection("w", "input", "p", conv, pool)
    source = torch.tensor(rng.random((3, 4, 7, 8)), dtype=torch.float32)
    source = source if isinstance(peak, float) else (source < 0.4).float()
    whole = exact_current(projection, torch.float32, peak)(source)
    cut = [slice(0, 3), slice(3, 6)]
    assert torch.equal(exact_current(projection, torch.float32, peak, outputs=cut)(source), whole)
