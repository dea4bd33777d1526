"""Make a Hessian positive definite: inputs that never fire leave it, the rest is damped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.kernels import factorize

__all__ = ["DampedHessian", "damp", "firmer"]

_SMALLEST_PIVOT = 1e-7
"""Relative to the largest diagonal: elimination loses as many of its sixteen digits."""

_ROUNDING = 1e-7
"""Relative to the trace: moments are sums of squares, so all that makes one of their eigenvalues
negative is rounding, which is less, even where a free bias takes nearly all of them away
(:meth:`.Moments.centred`)."""

_LEAST = 1e-8
"""The damping tried next when none was asked for and none does not suffice."""


@dataclass(frozen=True, eq=False)
class DampedHessian:
    """The positive definite Hessian of the inputs that matter.

    Attributes
    ----------
    H : ndarray of float64 (m, m)
        Of the live inputs, damping added to its diagonal.
    live : ndarray of int (m,)
        Inputs that were active at least once, ascending. The weights of the others have no effect
        on the loss.
    inputs : int
        Number of all inputs, live or dead.
    damping : float
        What was added, relative to the mean of the live diagonal.
    attempts : int
        1 if the first damping sufficed.
    """

    H: FloatArray
    live: IntArray
    inputs: int
    damping: float
    attempts: int

    @property
    def dead(self) -> int:
        """Number of inputs that never were active."""
        return self.inputs - len(self.live)

    def whole(self) -> FloatArray:
        """Return the Hessian of all inputs, positive definite; dead ones have next to nothing."""
        least = max(float(np.diagonal(self.H).min(initial=1.0)) * 1e-9, 1e-300)
        H = np.eye(self.inputs) * least
        H[np.ix_(self.live, self.live)] = self.H
        return H


def damp(H: FloatArray, fraction: float = 0.03) -> DampedHessian:
    """Take dead inputs out of `H` and damp the rest until its Cholesky factor exists.

    Damping keeps a solution near the original weights where calibration says little (Frantar,
    Ashkboos, Hoefler, Alistarh 2022, GPTQ, who add 1 % of the mean diagonal).

    Parameters
    ----------
    H : ndarray (n, n)
        Symmetric, positive semidefinite up to rounding.
    fraction : float
        Damping relative to the mean diagonal of the live inputs; multiplied by 10 on failure.
    """
    diagonal = np.diagonal(H)
    live = np.flatnonzero(diagonal > 0.0)
    own = diagonal[live].astype(np.float64)
    mean = float(diagonal[live].mean()) if len(live) else 0.0
    damped = H[np.ix_(live, live)].astype(np.float64, copy=False)
    attempts = 1
    while True:
        added = fraction * mean
        damped[np.diag_indices(len(live))] = own + added
        # No pivot is smaller than the least eigenvalue, which damping mostly bounds well enough.
        least = added - _ROUNDING * mean * len(live)
        if least > _SMALLEST_PIVOT * (own.max(initial=0.0) + added) or _well_posed(damped):
            return DampedHessian(damped, live, len(H), fraction, attempts)
        fraction = max(10.0 * fraction, _LEAST)
        attempts += 1


def firmer(d: DampedHessian, times: float) -> DampedHessian:
    """Return a damped Hessian with this many times the damping."""
    if times == 1.0:
        return d
    H = d.H.copy()
    mean = float(np.diagonal(H).mean()) / (1.0 + d.damping) if len(H) else 0.0
    H[np.diag_indices(len(H))] += (times - 1.0) * d.damping * mean
    return DampedHessian(H, d.live, d.inputs, times * d.damping, d.attempts)


def _well_posed(H: FloatArray) -> bool:
    """Whether a Cholesky factor exists whose pivots are more than rounding."""
    factor = H.copy()
    if not factorize(factor):
        return False
    pivots = np.diagonal(factor) ** 2
    return bool((pivots > _SMALLEST_PIVOT * np.diagonal(H).max(initial=0.0)).all())
