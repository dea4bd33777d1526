"""Second moments of what weights see, as averages over samples, steps and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.exact import WholeSum
from osbc_deploy.model.graph import Projection

__all__ = ["Moments", "averaged"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of what a module's weights see, filtered by its membrane kernel.

    With ``x (fan_in,)`` a filtered row of the inputs, ``y`` the same row in the float network, and
    ``m`` the filter's answer to a constant 1 (what a bias is multiplied with), averaged over
    samples, time steps and patch positions:

    Attributes
    ----------
    hessian : ndarray of float64 (groups, fan_in, fan_in)
        ``E[2 x x^T]``.
    cross : ndarray (groups, fan_in, fan_in) or None
        ``E[2 x y^T]``; None where x and y are the same.
    drift, float_drift : ndarray (groups, fan_in)
        ``E[2 m x]`` and ``E[2 m y]``.
    constant : float
        ``E[2 m m]``.
    rows : int
        How many rows were averaged.
    of : int
        How many there are.
    held : Moments or None
        The same of rows that are in none of the above, where rows were drawn.
    """

    hessian: FloatArray
    cross: FloatArray | None
    drift: FloatArray
    float_drift: FloatArray
    constant: float
    rows: int
    of: int
    held: Moments | None = None

    def __add__(self, other: Moments) -> Moments:
        """Return the moments over the rows of both."""
        rows = self.rows + other.rows
        a, b = self.rows / rows, other.rows / rows
        cross = None
        if self.cross is not None and other.cross is not None:
            cross = a * self.cross + b * other.cross
        return Moments(
            a * self.hessian + b * other.hessian,
            cross,
            a * self.drift + b * other.drift,
            a * self.float_drift + b * other.float_drift,
            a * self.constant + b * other.constant,
            rows,
            self.of + other.of,
            self.held + other.held if self.held is not None and other.held is not None else None,
        )

    def centred(self) -> tuple[FloatArray, FloatArray | None]:
        r"""Return `hessian` and `cross` less what a free bias can take.

        By completing the square: with `a` the drift, :math:`H - a a^T / E[2 m m]`.
        """
        drift = self.drift[:, :, None] / self.constant
        hessian = self.hessian - drift * self.drift[:, None, :]
        if self.cross is None:
            return hessian, None
        return hessian, self.cross - drift * self.float_drift[:, None, :]


def averaged(
    afferents: Sequence[Projection],
    sums: Sequence[WholeSum],
    units: tuple[float, float],
    rows: int,
    of: int,
) -> Moments:
    """Return the moments that sums over rows stand for, given the units of x and of m."""
    unit, of_constant = units
    scale = np.concatenate(
        [
            np.full(p.connection.fan_in, unit / (1 if p.pool is None else p.pool.divisor))
            for p in afferents
        ]
    )
    each = 2.0 / rows * scale
    values = [total.finish() for total in sums]
    for value in values:
        if value.ndim == 3:
            np.multiply(value, each[:, None], out=value)
            np.multiply(value, scale, out=value)
        elif value.ndim == 2:
            np.multiply(value, each * of_constant, out=value)
    hessian, drift, constant, *others = values
    cross, float_drift = others or (None, drift)
    return Moments(
        hessian,
        cross,
        drift,
        float_drift,
        float(constant[0]) * (2.0 / rows * of_constant**2),
        rows,
        of,
    )
