"""How far a share that was counted may be from the true one."""

from __future__ import annotations

import math

__all__ = ["wilson"]

_Z = 1.959963984540054
"""The standard normal quantile of (1 + LEVEL) / 2."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson, JASA 22, 1927)."""
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, _Z * _Z
    centre = share + square / (2 * trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    low, high = (centre - half) / (1 + square / trials), (centre + half) / (1 + square / trials)
    # At the ends the bounds are 0 and 1; rounding must not say otherwise.
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)
