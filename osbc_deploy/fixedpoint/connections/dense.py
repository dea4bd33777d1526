"""Synapses from all neurons to all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, frozen
from osbc_deploy.fixedpoint.connections.base import FixedConnection
from osbc_deploy.model.windows import Shape

__all__ = ["FixedDense"]


@dataclass(frozen=True, eq=False)
class FixedDense(FixedConnection):
    """A projection from all neurons to all, most of which may be zero.

    Attributes
    ----------
    weight : ndarray of int16 (n_post, n_pre)
        Mantissas.
    delay : ndarray of uint8 (n_post, n_pre) or None
        Steps that each synapse delivers late, on top of the one that every projection takes.
    """

    kind: ClassVar[str] = "dense"
    dimensions: ClassVar[int] = 2
    held: ClassVar[tuple[str, ...]] = ("weight", "delay")

    delay: IntArray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delay is not None:
            if np.shape(self.delay) != self.weight.shape:
                raise ValueError(
                    f"delays of shape {np.shape(self.delay)}, weights {self.weight.shape}"
                )
            object.__setattr__(self, "delay", frozen(self.delay, np.uint8))

    @property
    def shortest_delay(self) -> int:
        """The smallest delay of a synapse."""
        return 0 if self.delay is None or not self.delay.size else int(self.delay.min())

    @property
    def longest_delay(self) -> int:
        """The largest delay of a synapse."""
        return 0 if self.delay is None else int(self.delay.max(initial=0))

    def with_delays(self, delay: IntArray) -> FixedDense:
        """Return the connection with delays (n_pre,)."""
        return replace(self, delay=np.broadcast_to(delay, self.weight.shape))

    def rows(self, order: IntArray) -> FixedDense:
        """Return the synapses of these postsynaptic neurons, in this order."""
        delay = None if self.delay is None else self.delay[order]
        return replace(self, weight=self.weight[order], delay=delay)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result; ValueError for a source of another size."""
        if math.prod(shape) != self.weight.shape[1]:
            raise ValueError(f"weights for {self.weight.shape[1]} inputs, source of {shape}")
        return (len(self.weight),)

    def heard(self, post: BoolArray, shape: Shape) -> BoolArray:
        """Return which neurons (n_pre,) project to any of some neurons (n_post,)."""
        return np.asarray((self.weight[post] != 0).any(axis=0))

    def driven(self, pre: BoolArray, shape: Shape) -> BoolArray:
        """Return which neurons (n_post,) receive input from any of some neurons (n_pre,)."""
        return np.asarray((self.weight[:, pre] != 0).any(axis=1))

    def part(self, pre: BoolArray, post: BoolArray) -> FixedDense:
        """Return the synapses from some neurons to some."""
        delay = None if self.delay is None else self.delay[np.ix_(post, pre)]
        return replace(self, weight=self.weight[np.ix_(post, pre)], delay=delay)

    def by_delay(self, weight: NDArray[Any]) -> dict[int, Any]:
        """Return weights apart for each delay: sparse, as all together are every synapse once."""
        if self.delay is None:
            return {0: weight}
        return {
            int(d): csr_array(np.where(self.delay == d, weight, 0)) for d in np.unique(self.delay)
        }

    def total(self, spikes: FloatArray, weight: Any, shape: Shape) -> FloatArray:
        """Return the sums (n, n_post) that spikes (n, n_pre) make."""
        return np.asarray((weight @ spikes.T).T)
