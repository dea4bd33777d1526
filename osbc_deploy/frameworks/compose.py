"""Compose linear operations between spikes and neurons into what one projection can be.

A projection delays spikes, pools them, and maps them with one dense or convolutional connection.
A :class:`Term` is such a map still open at its end: operations are composed into it one by one, in
float64, as long as the result is exactly of that form. Anything else raises
:class:`NotComposable` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, frozen
from osbc_deploy.frameworks.averages import Averages
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.windows import AvgPool, Shape

__all__ = [
    "UNEVEN",
    "Add",
    "Delay",
    "Flatten",
    "NotComposable",
    "Operation",
    "Scale",
    "Shift",
    "Term",
    "broadcasts",
    "compose",
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


Operation: TypeAlias = Add | Averages | AvgPool | Connection | Delay | Flatten | Scale | Shift


UNEVEN = "averages windows of several sizes; only a Linear may follow that, behind spikes"


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
    offset : ndarray of float64 or None
        Broadcasts to the current; added in every step.
    name : str
        Node of the connection, or of the pooling where there is none.
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
    offset: FloatArray | None = None
    name: str = ""
    flattened: bool = False
    folded: tuple[str, ...] = ()

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
    if isinstance(operation, Averages | AvgPool | Connection):
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


def compose(term: Term, operation: Operation, shape: Shape, path: str) -> Term:
    """Return a term followed by one more operation.

    Parameters
    ----------
    term : Term
    operation : Operation
        Takes the signal of `shape`; see :func:`result_shape`.
    shape : tuple of int
        Of the term's result.
    path : str
        Name of the operation's node.

    Raises
    ------
    NotComposable
        With the reason, where no single projection is equal to the two.
    """
    if isinstance(operation, Add):
        return term
    if term.averages is not None and not isinstance(operation, Dense | Flatten):
        raise NotComposable(UNEVEN)
    step: Callable[..., Term] = _STEPS[type(operation)]
    return step(term, operation, shape, path)


def _dense(term: Term, dense: Dense, shape: Shape, path: str) -> Term:
    weight = dense.weight.astype(np.float64)
    folded = term.folded
    if term.spatial:
        raise NotComposable(_between(term.name))
    if term.averages is not None:
        weight = term.averages.before(weight).astype(np.float64)
    if term.connection is None:
        if term.factor is not None:
            weight = weight * np.broadcast_to(term.factor, term.shape).ravel()
    else:
        weight = weight @ term.connection.weight
        folded = (*folded, f"{term.name}: multiplied into {path}, as no neurons lie between them")
    offset = term.offset
    if offset is not None:
        offset = dense.weight @ np.broadcast_to(offset, shape).ravel()
    if dense.bias is not None:
        offset = dense.bias if offset is None else offset + dense.bias
    return replace(
        term,
        connection=Dense(weight.astype(dense.weight.dtype)),
        averages=None,
        factor=None,
        offset=offset,
        name=path,
        folded=folded,
    )


def _conv(term: Term, conv: Conv, shape: Shape, path: str) -> Term:
    if term.connection is not None:
        raise NotComposable(_between(term.name))
    if term.offset is not None:
        raise NotComposable("takes spikes with a constant added; only zero is padded with")
    weight = conv.weight.astype(np.float64)
    if term.factor is not None:
        channels = per_channel(term.factor, term.shape)
        # Output channel o of group g sees input channels g * width to (g + 1) * width - 1.
        width = weight.shape[1]
        group = np.arange(len(weight)) // (len(weight) // conv.groups)
        seen = group[:, None] * width + np.arange(width)
        weight = weight * channels[seen][:, :, None, None]
    return replace(
        term,
        connection=replace(conv, weight=weight.astype(conv.weight.dtype), bias=None),
        factor=None,
        offset=None if conv.bias is None else conv.bias.reshape(-1, 1, 1),
        name=path,
    )


def _pool(term: Term, pool: AvgPool, shape: Shape, path: str) -> Term:
    if term.connection is not None:
        if pool.padding != (0, 0):
            raise NotComposable(f"a pooling with padding after the convolution {term.name}")
        offset = term.offset
        if offset is not None:
            share = pool.kernel[0] * pool.kernel[1] / pool.divisor
            offset = per_channel(offset, shape).reshape(-1, 1, 1) * share
        note = f"{path}: pooling folded into the convolution {term.name}"
        return replace(
            term,
            connection=term.connection.followed_by(pool),
            offset=offset,
            folded=(*term.folded, note),
        )
    if term.offset is not None:
        raise NotComposable("pools spikes with a constant added")
    factor = term.factor
    if factor is not None:
        factor = per_channel(factor, term.shape).reshape(-1, 1, 1)
    both = pool if term.pool is None else _pooled_pool(term.pool, pool)
    return replace(
        term, pool=both, factor=factor, shape=pool.output_shape(shape), name=term.name or path
    )


def _averages(term: Term, averages: Averages, shape: Shape, path: str) -> Term:
    if term.connection is not None or term.offset is not None:
        raise NotComposable(UNEVEN)
    note = f"{path}: averages windows of several sizes; taken into the weights behind"
    return replace(term, averages=averages, folded=(*term.folded, note))


def _pooled_pool(first: AvgPool, second: AvgPool) -> AvgPool:
    """Return one pooling equal to two, whose first has windows side by side."""
    if first.stride != first.kernel or first.padding != (0, 0) or second.padding != (0, 0):
        raise NotComposable(
            "two poolings in a row, which are one only if the first's windows lie side by side and "
            "neither pads"
        )
    return AvgPool(
        kernel=(first.kernel[0] * second.kernel[0], first.kernel[1] * second.kernel[1]),
        stride=(first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        divisor=first.divisor * second.divisor,
    )


def _flatten(term: Term, _: Flatten, shape: Shape, path: str) -> Term:
    offset = term.offset
    if offset is not None:
        offset = np.broadcast_to(offset, shape).ravel()
    # A dense connection reads its source flattened, so what comes before it stays as it is.
    return replace(term, offset=offset, flattened=term.spatial)


def _scale(term: Term, scale: Scale, shape: Shape, path: str) -> Term:
    factor = scale.factor.astype(np.float64)
    offset = None if term.offset is None else term.offset * factor
    connection = term.connection
    if connection is None:
        if len(shape) != len(term.shape):
            factor = np.broadcast_to(factor, shape).reshape(term.shape)
        both = factor if term.factor is None else term.factor * factor
        return replace(term, factor=both, offset=offset)
    if term.spatial and term.flattened:
        raise NotComposable(f"scales the convolution {term.name} after it was flattened")
    rows = per_output(connection, factor, shape)
    weight = connection.weight * rows.reshape(-1, *(1,) * (connection.weight.ndim - 1))
    return replace(
        term,
        connection=replace(connection, weight=weight.astype(connection.weight.dtype)),
        offset=offset,
        folded=(*term.folded, f"{path}: {scale.what} folded into {term.name}"),
    )


def _shift(term: Term, shift: Shift, shape: Shape, path: str) -> Term:
    offset = shift.offset.astype(np.float64)
    return replace(term, offset=offset if term.offset is None else term.offset + offset)


def _delay(term: Term, delay: Delay, shape: Shape, path: str) -> Term:
    steps = delay.steps
    if not steps.any():
        return term
    if term.offset is not None:
        raise NotComposable("delays a constant, which then starts late")
    if (steps == steps.flat[0]).all():
        late = np.full(math.prod(term.source), steps.flat[0])
    elif term.connection is not None or term.pool is not None:
        raise NotComposable("delays that differ, after spikes were mapped or pooled")
    else:
        late = np.broadcast_to(steps, shape).ravel()
    return replace(term, delay=late if term.delay is None else term.delay + late)


_STEPS: dict[type, Callable[..., Term]] = {
    Dense: _dense,
    Conv: _conv,
    Averages: _averages,
    AvgPool: _pool,
    Flatten: _flatten,
    Scale: _scale,
    Shift: _shift,
    Delay: _delay,
}


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


def _between(name: str) -> str:
    return f"follows {name} with no neurons between; merge the two or put spiking neurons there"
