"""A variant has to be better than chance explains."""

from __future__ import annotations

import numpy as np
import pytest

from osbc_deploy.compress.tuning import _best, _Variant

PLAIN, CROSS, FREE = _Variant(), _Variant(cross=True), _Variant(free_bias=True)


@pytest.mark.parametrize(
    ("gains", "better"),
    [
        # Means of 0.5; the standard error of the mean of n numbers is that of one by sqrt(n).
        ([0.5, 0.5, 0.5, 0.5], True),
        ([0.0, 1.0, 0.0, 1.0], True),  # sqrt(1/3) / 2 = 0.289
        ([-0.4, 1.4, -0.4, 1.4], False),  # 1.039 / 2 = 0.520
        ([-0.36, 1.36, -0.36, 1.36], True),  # 0.993 / 2 = 0.497
        ([-0.5, -0.5, -0.5, -0.5], False),
    ],
)
def test_a_gain_beyond_its_standard_error_wins(gains: list[float], better: bool) -> None:
    errors = np.full(4, 2.0)
    assert _best({PLAIN: errors, CROSS: errors - gains}) == (CROSS if better else PLAIN)


def test_each_is_held_against_the_best_so_far() -> None:
    errors = {PLAIN: 3.0, CROSS: 1.0, FREE: 2.0}
    assert _best({variant: np.full(4, error) for variant, error in errors.items()}) == CROSS
