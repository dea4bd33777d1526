r"""What two runs of the same neurons differ in: arrays in, numbers out.

Rasters are (n, T, size): samples, steps, neurons. The van Rossum distance (van Rossum, A novel
spike distance, Neural Computation 13, 2001) compares spike trains after each spike has been
replaced by a decaying exponential,

.. math::

    D^2(f, g) = \frac{1}{\tau} \int_0^\infty (f(t) - g(t))^2 \, dt, \qquad
    f(t) = \sum_i H(t - t_i)\, e^{-(t - t_i) / \tau}

so a spike that the other train lacks costs 1/2, and one that comes late costs less than two of
them. Between steps the difference only decays, which gives the integral in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray

__all__ = [
    "LEVEL",
    "first_divergence",
    "holm",
    "mcnemar",
    "squared_error",
    "van_rossum",
]

LEVEL = 0.95
"""Confidence of intervals; 1 - LEVEL is the level of tests."""


def first_divergence(a: IntArray, b: IntArray) -> IntArray:
    """Return the first step (n,) at which each sample's spikes differ, -1 where none do."""
    differs = (a != b).any(axis=2)
    return np.where(differs.any(axis=1), differs.argmax(axis=1), -1)


def van_rossum(a: SpikeArray, b: SpikeArray | None, tau: float) -> FloatArray:
    """Return the squared van Rossum distance (n, size) between spike trains.

    Parameters
    ----------
    a, b : ndarray of uint8 (n, T, size)
        `b` may be None for silence.
    tau : float
        Time constant in steps, more than 0.
    """
    kept = math.exp(-1.0 / tau)
    n, steps, size = a.shape
    trace, integral = np.zeros((n, size)), np.zeros((n, size))
    for t in range(steps):
        trace *= kept
        trace += a[:, t]
        if b is not None:
            trace -= b[:, t]
        # The integral of one step, and after the last step that of the whole tail.
        share = 1.0 - kept**2 if t < steps - 1 else 1.0
        integral += 0.5 * share * trace**2
    return integral


def squared_error(
    a: FloatArray, b: FloatArray, rest: FloatArray, counted: SpikeArray | None = None
) -> tuple[float, float]:
    """Return the sums of squares of a difference of potentials and of the reference.

    Parameters
    ----------
    a, b : ndarray (n, T, size)
        Reference and other, in the same unit.
    rest : ndarray (size,)
        What `a` is measured from.
    counted : ndarray of bool (n, T, size), optional
        Where to look; everywhere by default.

    Returns
    -------
    error, reference : float
        Their ratio's root is the relative RMS error.
    """
    error = (b.astype(np.float64) - a) ** 2
    reference = (a.astype(np.float64) - rest) ** 2
    if counted is not None:
        error, reference = error * counted, reference * counted
    return float(error.sum()), float(reference.sum())


def mcnemar(lost: int, won: int) -> float:
    """Return the p-value of the exact McNemar test (McNemar, Psychometrika 12, 1947).

    Parameters
    ----------
    lost, won : int
        Samples that only the first classifier gets right, and only the second.

    Returns
    -------
    float
        Two-sided: the chance that a fair coin splits them at least as unevenly.
    """
    n, fewer = lost + won, min(lost, won)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    # Divided as integers, which are too large for floating point.
    return 1.0 if 2 * tail >= 2**n else (2 * tail) / 2**n


def holm(p_values: Mapping[str, float]) -> dict[str, bool]:
    """Return which of several tests are significant together (Holm, Scand. J. Statist. 6, 1979).

    The chance of one false alarm among all of them stays at most 5 %.
    """
    significant, left = dict.fromkeys(p_values, False), len(p_values)
    for name in sorted(p_values, key=lambda name: p_values[name]):
        if p_values[name] > (1.0 - LEVEL) / left:
            break
        significant[name] = True
        left -= 1
    return significant
