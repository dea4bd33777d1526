"""Where the compiled engine keeps the sums of a population: channels last, with a margin.

A spike adds the same weights wherever it is; what they reach beyond the border lands in the margin,
which nobody reads. Populations that hear whole maps (:mod:`.maps`), and those that are no maps, are
kept in the order of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray
from osbc_deploy.model.windows import Shape

T = TypeVar("T", bound=np.generic)

__all__ = ["NO_MARGIN", "Lines", "Margin", "Site"]


class Margin(NamedTuple):
    """Rows and columns beyond the border."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def or_wider(self, other: Margin) -> Margin:
        """Return what both need."""
        return Margin(*map(max, self, other))


NO_MARGIN = Margin()


class Lines(NamedTuple):
    """What of a step's sums is read: `lines` of `length`, `step` apart, from `start` on."""

    lines: int
    length: int
    step: int
    start: int


@dataclass(frozen=True)
class Site:
    """The order of a population's neurons in the engine, and the places of their sums.

    Attributes
    ----------
    shape : tuple of int
    turned : bool
        Whether the channels of (channels, rows, columns) are last.
    margin : Margin
        Of the sums.
    """

    shape: Shape
    turned: bool
    margin: Margin = NO_MARGIN

    @cached_property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @cached_property
    def order(self) -> IntArray:
        """Which neuron each place here belongs to."""
        return self.here(np.arange(self.size))

    def here(self, values: NDArray[T]) -> NDArray[T]:
        """Return values (..., n) in the order that is used here."""
        if not self.turned:
            return values
        maps = values.reshape(*values.shape[:-1], self.shape[0], -1)
        return np.ascontiguousarray(maps.swapaxes(-1, -2)).reshape(values.shape)

    def there(self, values: IntArray) -> IntArray:
        """Return values (..., n) that are in the order used here in that of the network."""
        if not self.turned:
            return values
        maps = values.reshape(*values.shape[:-1], -1, self.shape[0])
        return np.asarray(maps.swapaxes(-1, -2).reshape(values.shape))

    @cached_property
    def line(self) -> int:
        """Places of a row with its margin."""
        if not self.turned:
            return self.size
        return (self.shape[2] + self.margin.left + self.margin.right) * self.shape[0]

    @property
    def strides(self) -> tuple[int, int, int]:
        """Places from one channel, row and column of maps to the next."""
        if not self.turned:
            return self.shape[1] * self.shape[2], self.shape[2], 1
        return 1, self.line, self.shape[0]

    @cached_property
    def start(self) -> int:
        """The place of the first neuron."""
        if not self.turned:
            return 0
        return self.margin.top * self.line + self.margin.left * self.shape[0]

    @cached_property
    def pitch(self) -> int:
        """Places of a step."""
        if not self.turned:
            return self.size
        return (self.shape[1] + self.margin.top + self.margin.bottom) * self.line

    @cached_property
    def lines(self) -> Lines:
        """What is read of a step."""
        if self.margin == NO_MARGIN:
            return Lines(1, self.size, self.size, 0)
        return Lines(self.shape[1], self.shape[2] * self.shape[0], self.line, self.start)

    @cached_property
    def places(self) -> IntArray:
        """The place of each neuron, in the order of the network."""
        if not self.turned:
            return np.arange(self.size)
        channels, rows, cols = self.shape
        c, y, x = np.ogrid[:channels, :rows, :cols]
        return np.asarray(self.start + y * self.line + x * channels + c).ravel()
