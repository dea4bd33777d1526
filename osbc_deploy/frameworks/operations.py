"""Linear operations between spikes and neurons, and the maps that they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, frozen
from osbc_deploy.frameworks.averages import Averages
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.windows import AvgPool, Shape

__all__ = [
    "Add",
    "Beside",
    "Delay",
    "Flatten",
    "NotComposable",
    "Operation",
    "Scale",
    "Shift",
    "Term",
    "broadcasts",
    "per_channel",
    "per_output",
    "result_shape",
    "without_bias",
]


@dataclass(frozen=True)
class Add:
    """Where several currents meet, and nothing else happens; also an identity."""


@dataclass(frozen=True)
class Flatten:
    """All axes of the sample become one, the last running fastest."""


@dataclass(frozen=True)
class Beside:
    """Put maps (c, H, W) or values (c,) into more, of which other signals bring the others.

    The sum of several is what ``torch.cat`` makes of them.

    Attributes
    ----------
    start : int
        The channel that the first one becomes.
    channels : int
        Of the larger maps, or how many values there are.
    """

    start: int
    channels: int

    def mismatch(self, shape: Shape) -> str:
        """Return why it cannot take a source of `shape`; empty if it can."""
        if len(shape) in (1, 3) and self.start + shape[0] <= self.channels:
            return ""
        return (
            f"takes up to {self.channels - self.start} channels (C, H, W) or values, gets {shape}"
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape with the others beside it."""
        return self.channels, *shape[1:]

    def weights(self, shape: Shape) -> Connection:
        """Return the convolution that does it for maps, or the matrix for values."""
        places = np.eye(self.channels, shape[0], -self.start)
        return Dense(places) if len(shape) == 1 else Conv(places[:, :, None, None])


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply by `factor`, which broadcasts to the signal, such as (C, 1, 1) to (C, H, W).

    `what` says what does so, for the notes.
    """

    factor: FloatArray
    what: str = "scale"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", frozen(self.factor))


@dataclass(frozen=True, eq=False)
class Shift:
    """Add `offset`, which broadcasts to the signal, in every time step."""

    offset: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", frozen(self.offset))


@dataclass(frozen=True, eq=False)
class Delay:
    """Let the signal arrive `steps` late: one whole number, or one that broadcasts to it."""

    steps: IntArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", frozen(self.steps, np.int64))


Operation: TypeAlias = (
    Add | Averages | AvgPool | Beside | Connection | Delay | Flatten | Scale | Shift
)


class NotComposable(Exception):  # noqa: N818 - reported as a fault of the model, never raised to users
    """Two operations have no exact counterpart as one projection; the message says why."""


@dataclass(frozen=True, eq=False)
class Term:
    """A linear map from one population's spikes to a current: delay, pool, scale, connection.

    Attributes
    ----------
    pre : str
    source, shape : tuple of int
        Of the spikes, and of the connection takes: the spikes, or what their pooling leaves.
    delay : ndarray of int (n_pre,) or None
    pool : AvgPool or None
    averages : Averages or None
        What a matrix has still to take in.
    factor : ndarray of float64 or None
        Broadcasts to `shape`; multiplies what the connection takes.
    connection : Connection or None
        Without bias.
    trained : bool
        Whether any of the weights in it are trained.
    offset : ndarray of float64 or None
        Broadcasts to the current; added in every step.
    name : str
        Node of the connection, or of the pooling where there is none. Empty where the connection
        is no layer, but puts channels beside others.
    flattened : bool
        Whether a Flatten comes after a convolution.
    folded : tuple of str
        What was folded into the connection, for the notes.
    """

    pre: str
    source: Shape
    shape: Shape
    delay: IntArray | None = None
    pool: AvgPool | None = None
    averages: Averages | None = None
    factor: FloatArray | None = None
    connection: Connection | None = None
    trained: bool = False
    offset: FloatArray | None = None
    name: str = ""
    flattened: bool = False
    folded: tuple[str, ...] = ()

    @property
    def layered(self) -> bool:
        """Whether its connection is a layer."""
        return self.connection is not None and self.name != ""

    @property
    def constant(self) -> bool:
        """Whether something is added in every step."""
        return self.offset is not None and bool(self.offset.any())

    @property
    def spatial(self) -> bool:
        """Whether its connection has the same weights for all places."""
        return self.connection is not None and self.connection.convolutional


def result_shape(operation: Operation, shape: Shape) -> Shape:
    """Return the shape an operation makes of a signal's, or say why it cannot take it.

    Raises
    ------
    NotComposable
    """
    if isinstance(operation, Averages | AvgPool | Beside | Connection):
        if why := operation.mismatch(shape):
            raise NotComposable(why)
        return operation.output_shape(shape)
    if isinstance(operation, Flatten):
        return (math.prod(shape),)
    for name in ("factor", "offset", "steps"):
        value = getattr(operation, name, None)
        if value is not None and not broadcasts(value.shape, shape):
            raise NotComposable(
                f"its {name} of shape {value.shape} does not fit the signal {shape}"
            )
    return shape


def broadcasts(shape: Shape, to: Shape) -> bool:
    """Tell whether values of one shape fit a signal of another."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def without_bias(operation: Operation) -> Operation:
    """Return what an operation does besides adding a constant."""
    if isinstance(operation, Shift):
        return Add()
    return replace(operation, bias=None) if isinstance(operation, Connection) else operation


def per_channel(values: FloatArray, shape: Shape) -> FloatArray:
    """Return one value for each channel of (C, H, W), which they must have in common."""
    spread = np.broadcast_to(values, shape)
    first = spread[:, :1, :1]
    if (spread != first).any():
        raise NotComposable("values that differ within a channel")
    return np.asarray(first.ravel())


def per_output(connection: Connection, values: FloatArray, shape: Shape) -> FloatArray:
    """Return one value for each output of a connection: channel or neuron."""
    if connection.convolutional:
        return per_channel(values, shape)
    return np.broadcast_to(values, shape).ravel()
