"""Fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.connections.base import Connection
from osbc_deploy.model.windows import Shape

__all__ = ["Dense"]


@dataclass(frozen=True, eq=False)
class Dense(Connection):
    """Fully connected linear map of the flattened source.

    Attributes
    ----------
    weight : ndarray (n_post, n_pre)
    bias : ndarray (n_post,) or None
        Current added in every time step.
    """

    kind: ClassVar[str] = "dense"
    delayed: ClassVar[bool] = True

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result for a source of `shape`."""
        return (int(self.weight.shape[0]),)

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        if shape == (self.fan_in,):
            return ""
        hint = "; put a Flatten before it" if math.prod(shape) == self.fan_in else ""
        return f"takes {self.fan_in} inputs, gets {shape}{hint}"

    def unfolded(self, frames: FloatArray) -> FloatArray:
        """Return the rows (1, m, n_pre) that the weights are multiplied with."""
        return frames.reshape(1, len(frames), -1)
