"""Second moments and held-out losses against rows of numbers, added up in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.compress.exact import WholeSum
from osbc_deploy.compress.guard import layer_loss, target_loss
from osbc_deploy.compress.moments import Moments, averaged
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.model.graph import AvgPool, Dense, Projection

Array = np.ndarray

UNITS = 0.5, 0.125
AFFERENTS = (
    Projection("a", "input", "x", Dense(np.zeros((4, 3)))),
    Projection("b", "input", "x", Dense(np.zeros((4, 2))), AvgPool((2, 2), (2, 2))),
)
SHARES = np.array([1.0, 1.0, 1.0, 0.25, 0.25])
"""What is left of a spike behind no pooling, and behind one of four places."""


def rows(rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
    """Whole numbers of what arrives, what arrives in the float network, and of a constant 1."""
    x, y = (rng.integers(0, 9, (count, 5)).astype(float) for _ in range(2))
    return x, y, rng.integers(1, 9, count).astype(float)


def added_up(x: Array, y: Array, m: Array) -> Moments:
    """Moments as they are made, from whole sums."""
    found = []
    for value in (
        (x.T @ x)[None],
        (m @ x)[None],
        np.array([m @ m]),
        (x.T @ y)[None],
        (m @ y)[None],
    ):
        total = WholeSum(value.shape)
        total.add(value, int(value.max()))
        found.append(total)
    return averaged(AFFERENTS, found, UNITS, len(x), 3 * len(x))


def real(x: Array, y: Array, m: Array) -> tuple[Array, Array, Array]:
    """The numbers that the whole ones stand for."""
    return UNITS[0] * SHARES * x, UNITS[0] * SHARES * y, UNITS[1] * m


def test_moments_are_means_over_rows_whoever_added_them_up(rng: np.random.Generator) -> None:
    parts = [rows(rng, count) for count in (7, 40)]
    whole = [np.concatenate(both) for both in zip(*parts, strict=True)]
    x, y, m = real(*whole)
    for found in (added_up(*whole), added_up(*parts[0]) + added_up(*parts[1])):
        assert (found.rows, found.of) == (47, 141)
        assert found.hessian[0] == pytest.approx(2 * x.T @ x / 47)
        assert found.cross is not None
        assert found.cross[0] == pytest.approx(2 * x.T @ y / 47)
        assert found.drift[0] == pytest.approx(2 * m @ x / 47)
        assert found.float_drift[0] == pytest.approx(2 * m @ y / 47)
        assert found.constant == pytest.approx(2 * m @ m / 47)
        # What a free bias takes is what lies along m.
        hessian, cross = found.centred()
        left = x - np.outer(m, m @ x) / (m @ m)
        assert hessian[0] == pytest.approx(2 * left.T @ left / 47)
        assert cross is not None
        assert cross[0] == pytest.approx(2 * left.T @ y / 47)


@pytest.mark.parametrize("free_bias", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_held_out_losses_are_those_of_potentials(
    free_bias: bool, other: bool, rng: np.random.Generator
) -> None:
    x, y, m = real(*rows(rng, 60))
    y = y if other else x
    moments = Moments(
        (2 * x.T @ x / 60)[None], (2 * x.T @ y / 60)[None] if other else None,
        (2 * m @ x / 60)[None], (2 * m @ y / 60)[None], float(2 * m @ m / 60), 60, 60,
    )  # fmt: skip
    original, weights = rng.normal(size=(2, 1, 4, 5))
    problem = LayerProblem(
        AFFERENTS, True, "osbc", weights, moments.hessian, (), moments, original, free_bias, 1.0, ()
    )
    wanted, got = y @ original[0].T, x @ weights[0].T
    if free_bias:
        # The best bias takes what of the difference lies along m; of the reference, too.
        across = np.eye(60) - np.outer(m, m) / (m @ m)
        wanted, got = across @ wanted, across @ got
    expected = 2 * (((wanted - got) ** 2).sum() - (wanted**2).sum()) / 60
    assert target_loss(problem, moments) == pytest.approx(expected, rel=1e-9)

    class Part:
        weight = weights[0]

    assert layer_loss(problem, moments, [Part()]) == pytest.approx(expected)  # type: ignore[list-item]
