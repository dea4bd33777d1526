"""Intervals of shares, against SciPy's and those that were published."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from osbc_deploy.intervals import wilson


@pytest.mark.parametrize(("k", "n"), [(0, 12), (12, 12), (81, 263), (1, 1), (488, 500)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    known = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_of_newcombes_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)
