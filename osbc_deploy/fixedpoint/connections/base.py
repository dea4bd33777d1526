"""What every connection of an integer network is and can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, frozen
from osbc_deploy.model.connections.base import Kind
from osbc_deploy.model.windows import Shape

__all__ = ["FixedConnection", "Range", "Ranges", "widest_sum"]

Range: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[Range, ...]
"""Starts and stops along each axis of a population."""


@dataclass(frozen=True, eq=False)
class FixedConnection(Kind):
    """Weight mantissas (int16) of a projection, outputs (neurons or channels) first."""

    wraps: ClassVar[bool] = False
    """Whether its sum wraps to the width of a state register."""

    dimensions: ClassVar[int] = 0
    """Axes of the weights."""
    held: ClassVar[tuple[str, ...]] = ("weight",)

    weight: IntArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.int16))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it holds, by name."""
        found = {name: getattr(self, name) for name in self.held}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def shortest_delay(self) -> int:
        """The smallest delay of a synapse."""
        return 0

    @property
    def longest_delay(self) -> int:
        """The largest delay of a synapse."""
        return 0

    def with_delays(self, delay: IntArray) -> FixedConnection:
        """Return the connection with delays (n_pre,), where its synapses can have any."""
        raise NotImplementedError

    def rows(self, order: IntArray) -> FixedConnection:
        """Return the synapses of these outputs, in this order, where each has its own."""
        raise NotImplementedError

    def seen(self, shape: Shape, ranges: Ranges) -> Ranges:
        """Return the part of a source of `shape` that a slice of the result sees."""
        return tuple((0, size) for size in shape)

    def heard(self, post: BoolArray, shape: Shape) -> BoolArray:
        """Return which neurons (n_pre,) of a source of `shape` project to any of some neurons.

        Parameters
        ----------
        post : ndarray of bool (n_post,)
        shape : tuple of int
        """
        raise NotImplementedError

    def driven(self, pre: BoolArray, shape: Shape) -> BoolArray:
        """Return which neurons (n_post,) receive input from any of some neurons (n_pre,)."""
        ways = np.asarray(self.weight != 0, np.float32)
        spikes = np.asarray(pre[None], np.float32)
        return np.asarray(self.total(spikes, ways, shape)[0] > 0)

    def bound(self, pre: BoolArray, post: BoolArray) -> tuple[BoolArray, BoolArray]:
        """Return which units of its ends must stay for some to stay.

        Parameters
        ----------
        pre, post : ndarray of bool (units,)
            Neurons; of a convolution, channels.
        """
        return pre, post

    def part(self, pre: BoolArray, post: BoolArray) -> Self:
        """Return the connection between some units of its ends, as :meth:`bound` leaves them."""
        raise NotImplementedError

    def by_delay(self, weight: NDArray[Any]) -> dict[int, Any]:
        """Return weights, dense or sparse, apart for each delay, for :meth:`total`."""
        return {0: weight}

    def total(self, spikes: FloatArray, weight: Any, shape: Shape) -> FloatArray:
        """Return the sums (n, size) that spikes (n, n_pre) of a source of `shape` make."""
        raise NotImplementedError


def widest_sum(weight: IntArray) -> int:
    """Return the largest magnitude that a sum of weights into one output can have."""
    wide = np.abs(weight.astype(np.int64))
    return int(wide.reshape(len(weight), -1).sum(axis=1).max(initial=0))
