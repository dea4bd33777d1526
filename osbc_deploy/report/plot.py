"""Axes of pictures: from values to places, and the values to write beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis"]

_TICKS = 6
"""At most so many values are written."""


@dataclass(frozen=True)
class Axis:
    """An axis of a picture.

    Attributes
    ----------
    low, high : float
        The ends, as values or their logarithms.
    places : tuple of float
        Where the ends are drawn.
    log : bool
    """

    low: float
    high: float
    places: tuple[float, float]
    log: bool

    @classmethod
    def linear(cls, values: Sequence[float], places: tuple[float, float]) -> Axis:
        """Return an axis for some values, with a margin."""
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 1.0
        return cls(low - margin, high + margin, places, log=False)

    @classmethod
    def logarithmic(cls, values: Sequence[float], places: tuple[float, float]) -> Axis:
        """Return an axis for some positive values, with a margin."""
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = 0.06 * (high - low) or 0.1
        return cls(low - margin, high + margin, places, log=True)

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        start, end = self.places
        return start + share * (end - start)

    def span(self, difference: float) -> float:
        """Return how long a difference of values is drawn, on a linear axis."""
        start, end = self.places
        return abs(end - start) * difference / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and texts of round values."""
        if self.log:
            found = _powers(self.low, self.high)
        else:
            step = _round((self.high - self.low) / _TICKS)
            first = math.ceil(self.low / step)
            found = [n * step for n in range(first, math.floor(self.high / step) + 1)]
        return [(self.at(value), f"{value:,.6g}") for value in found]


def _powers(low: float, high: float) -> list[float]:
    """Return round numbers: powers of ten, parts between them where these are few, or steps."""
    for parts in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(map(float, range(1, 10)))):
        found = [
            part * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for part in parts
            if low <= math.log10(part) + power <= high
        ]
        if 3 <= len(found) <= 2 * _TICKS:
            return found
    step = _round((10.0**high - 10.0**low) / _TICKS)
    first = math.ceil(10.0**low / step)
    return [n * step for n in range(max(1, first), math.floor(10.0**high / step) + 1)]


def _round(step: float) -> float:
    """Return the next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 5, 10) if part * power >= step * (1 - 1e-9))
