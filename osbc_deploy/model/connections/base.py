"""What every connection of the float network is and can do."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, frozen
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.windows import AvgPool, Shape

__all__ = ["Connection", "Kind", "no_such_kind"]


class Kind:
    """What a kind of connection says of itself, in floating point and in integers alike."""

    kind: ClassVar[str] = ""
    """What reports and files call it."""
    convolutional: ClassVar[bool] = False
    """Whether it takes (channels, rows, columns) and has the same weights for all places;
    otherwise it reads its source flattened."""
    held: ClassVar[tuple[str, ...]] = ()
    """Names of its arrays."""

    @property
    def geometry(self) -> dict[str, Any]:
        """What it is described by beside its arrays, by name."""
        names = (f.name for f in fields(self) if f.name not in self.held)  # type: ignore[arg-type]
        return {name: getattr(self, name) for name in names}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result for a source of `shape`."""
        raise NotImplementedError

    def fan_out(self, kept: BoolArray, shape: Shape) -> IntArray:
        """Return the synapses (size,) of every neuron of a source.

        Parameters
        ----------
        kept : ndarray of bool, of the weights' shape
            Those that count.
        shape : tuple of int
            Of the source.
        """
        return np.asarray(np.count_nonzero(kept, axis=0))


@dataclass(frozen=True, eq=False)
class Connection(Kind):
    """A linear map from spikes to currents.

    Attributes
    ----------
    weight : ndarray
        Outputs (neurons or channels) first.
    bias : ndarray (outputs,) or None
        Current added in every time step.
    """

    held: ClassVar[tuple[str, ...]] = ("weight", "bias")
    delayed: ClassVar[bool] = False
    """Whether chips have delays for its synapses."""

    weight: FloatArray
    bias: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight))
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias))

    @property
    def groups(self) -> int:
        """Groups of outputs whose inputs are apart."""
        return 1

    @property
    def fan_in(self) -> int:
        """Weights of one output."""
        return int(np.prod(self.weight.shape[1:]))

    def share(self, outputs: slice) -> tuple[Connection, slice]:
        """Return the geometry of some outputs, and the channels of the source that they see.

        Outputs of groups come by whole groups.
        """
        return self, slice(None)

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        raise NotImplementedError

    def unfolded(self, frames: FloatArray) -> FloatArray:
        """Return the rows (groups, m * positions, fan_in) that the weights are multiplied with.

        Parameters
        ----------
        frames : ndarray (m, *source shape)
        """
        raise NotImplementedError

    def unfolded_at(self, frame: FloatArray, places: IntArray) -> FloatArray:
        """Return the rows (groups, k, fan_in) of some positions of one frame (*source shape)."""
        return self.unfolded(frame[None])[:, places]

    def followed_by(self, pool: AvgPool) -> Connection:
        """Return the single connection that does what this one and a pooling after it do."""
        raise NotImplementedError


def no_such_kind(connection: object, where: str) -> UnsupportedModelError:
    """Return the error for a kind of connection that a room has no variant for."""
    return UnsupportedModelError(
        f"network: a kind of connection that {where} lacks",
        [type(connection).__name__],
        "Use linear layers and convolutions.",
    )
