"""Metrics against hand calculations, direct integration and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from osbc_deploy.verification.metrics import (
    first_divergence,
    holm,
    mcnemar,
    squared_error,
    van_rossum,
)


def trains(*rows: str) -> np.ndarray:
    """Return one sample (1, T, neurons) with a row of 0 and 1 for each neuron."""
    return np.array([[int(c) for c in row] for row in rows], np.uint8).T[None]


def test_first_divergence_is_the_earliest_of_any_neuron() -> None:
    a = np.concatenate([trains("0101", "0010"), trains("0101", "0010"), trains("1111", "1111")])
    b = np.concatenate([trains("0101", "0010"), trains("0100", "0110"), trains("0111", "1111")])
    assert first_divergence(a, b).tolist() == [-1, 1, 0]


@pytest.mark.parametrize("tau", [0.7, 5.0, 40.0])
def test_van_rossum_is_the_integral(tau: float) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.random((2, 9, 3)) < 0.4 for _ in range(2))
    found = van_rossum(a.astype(np.uint8), b.astype(np.uint8), tau)
    dt = 1e-3
    t = np.arange(0.0, 9 + 20 * tau, dt) + dt / 2

    def filtered(train: np.ndarray) -> np.ndarray:
        out = np.zeros_like(t)
        for spike in np.flatnonzero(train):
            out += np.where(t >= spike, np.exp(-(t - spike) / tau), 0.0)
        return out

    for sample in range(2):
        for neuron in range(3):
            f, g = filtered(a[sample, :, neuron]), filtered(b[sample, :, neuron])
            expected = ((f - g) ** 2).sum() * dt / tau
            assert found[sample, neuron] == pytest.approx(expected, rel=1e-4)


def test_van_rossum_of_a_spike_too_many_is_a_half_wherever_it_is() -> None:
    silence = trains("000000", "000000", "000000")
    one = trains("100000", "000100", "000001")
    assert van_rossum(one, silence, 3.0) == pytest.approx(np.full((1, 3), 0.5))
    assert np.array_equal(van_rossum(one, None, 3.0), van_rossum(one, silence, 3.0))
    # Late by d steps: 1 - exp(-d / tau).
    late = van_rossum(trains("100000"), trains("001000"), 3.0)
    assert late[0, 0] == pytest.approx(1 - np.exp(-2 / 3))


def test_squared_error_by_hand() -> None:
    a, b = np.array([[[1.0, 3.0], [2.0, 5.0]]]), np.array([[[1.5, 3.0], [0.0, 9.0]]])
    rest = np.array([1.0, 0.0])
    assert squared_error(a, b, rest) == (0.25 + 4.0 + 16.0, 0.0 + 9.0 + 1.0 + 25.0)
    where = np.array([[[True, True], [True, False]]])
    assert squared_error(a, b, rest, where) == (4.25, 10.0)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (3, 3), (9, 2), (0, 14), (2000, 2150)])
def test_mcnemar_is_a_binomial_test(lost: int, won: int) -> None:
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-9)


def test_holm_stops_at_the_first_that_fails() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == {
        "a": True,  # 0.01 <= 0.05 / 3
        "b": False,
        "c": False,  # 0.03 > 0.05 / 2
        "d": True,  # 0.005 <= 0.05 / 4
    }
    # What is not left to be tested does not count: 0.02 <= 0.05 / 2, 0.04 <= 0.05.
    assert holm({"a": 0.04, "b": 0.016, "c": 0.02}) == {"a": True, "b": True, "c": True}
    assert holm({"a": 0.05}) == {"a": True}
    assert holm({}) == {}
