"""What a record says beyond those before it: residuals of an autoregression.

Charts of correlated records alarm far too often, and how much so cannot be measured from a few
thousand of them: an error of one percent in the sum of all correlations is one of fourteen in the
logarithm of the time between alarms. Their residuals are nearly independent, and what is left of
correlation, tails and common movement of channels, a block bootstrap of them shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_toeplitz

from osbc_deploy.arrays import FloatArray

__all__ = ["Autoregression", "fit"]

_MOST = 8
"""Records before that are looked at."""


@dataclass(frozen=True)
class Autoregression:
    """A channel in control.

    Attributes
    ----------
    mean : float
    coefficients : tuple of float
        Of the records before, the last one first.
    deviation : float
        Standard deviation of the residuals.
    """

    mean: float
    coefficients: tuple[float, ...]
    deviation: float

    def scores(self, values: FloatArray) -> FloatArray:
        """Return standardized residuals of a stream; before it, all is as in control.

        Parameters
        ----------
        values : ndarray (n,)
        """
        left = values - self.mean
        padded = np.concatenate([np.zeros(len(self.coefficients)), left])
        found = left.copy()
        for lag, weight in enumerate(self.coefficients, start=1):
            found -= weight * padded[len(self.coefficients) - lag : len(padded) - lag]
        scored: FloatArray = found / self.deviation
        return scored


def fit(values: FloatArray, grain: float) -> Autoregression:
    """Fit a channel by the Yule-Walker equations, of the order that AIC chooses.

    Parameters
    ----------
    values : ndarray (n,)
    grain : float
        Least deviation: what one count more changes. A channel that never moved has it.
    """
    n, mean = len(values), float(values.mean())
    left = values - mean
    most = min(_MOST, n // 10)
    moments = np.array([float(left[lag:] @ left[: n - lag]) / n for lag in range(most + 1)])
    if moments[0] <= (1e-3 * grain) ** 2:
        return Autoregression(mean, (), grain)
    best, chosen, left_over = n * np.log(moments[0]), np.zeros(0), moments[0]
    for order in range(1, most + 1):
        weights = solve_toeplitz(moments[:order], moments[1 : order + 1])
        variance = float(moments[0] - weights @ moments[1 : order + 1])
        if variance <= 0:
            break
        score = n * np.log(variance) + 2 * order
        if score < best:
            best, chosen, left_over = score, weights, variance
    deviation = max(float(np.sqrt(left_over)), grain)
    return Autoregression(mean, tuple(map(float, chosen)), deviation)
