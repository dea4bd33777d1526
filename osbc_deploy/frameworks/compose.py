"""Compose linear operations between spikes and neurons into what one projection can be.

A projection delays spikes, pools them, and maps them with one dense or convolutional connection.
A :class:`.Term` is such a map still open at its end: operations are composed into it one by one, in
float64, as long as the result is exactly of that form. Anything else raises
:class:`.NotComposable` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.averages import Averages
from osbc_deploy.frameworks.convolved import (
    behind_constant,
    border_fault,
    channels_seen,
    convolved,
    convolved_matrix,
    convolved_shape,
    trimmed,
)
from osbc_deploy.frameworks.operations import (
    Add,
    Beside,
    Delay,
    Flatten,
    NotComposable,
    Operation,
    Scale,
    Shift,
    Term,
    per_channel,
    per_output,
)
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.windows import AvgPool, Shape

__all__ = ["compose", "multiplied"]


def multiplied(term: Term, operation: Operation) -> Shape:
    """Return the shape of the weights that two layers become, none where an operation has none."""
    if isinstance(operation, Beside):
        first = term.connection
        if first is None:
            return operation.channels, term.shape[0]
        if not term.spatial:
            return operation.channels, first.fan_in
        return operation.channels, first.weight.shape[1] * first.groups, *first.weight.shape[2:]
    if term.connection is not None and isinstance(operation, AvgPool):
        return _pooled_shape(term, operation)
    if term.connection is None or not isinstance(operation, Connection):
        return (0,)
    if term.spatial and operation.convolutional:
        return convolved_shape(cast("Conv", term.connection), cast("Conv", operation))
    taken = math.prod(term.shape) if term.spatial else term.connection.fan_in
    return len(operation.weight), taken


def compose(
    term: Term, operation: Operation, shape: Shape, path: str, *, trained: bool = True
) -> Term:
    """Return a term followed by one more operation.

    Parameters
    ----------
    term : Term
    operation : Operation
        Takes the signal of `shape`; see :func:`.result_shape`.
    shape : tuple of int
        Of the term's result.
    path : str
        Name of the operation's node.
    trained : bool
        Whether its weights are trained, where it has any.

    Raises
    ------
    NotComposable
        With the reason, where no single projection is equal to the two.
    """
    if isinstance(operation, Add):
        return term
    is_matrix = isinstance(operation, Connection) and not operation.convolutional
    if term.averages is not None and not (is_matrix or isinstance(operation, Flatten)):
        raise NotComposable(term.averages.alone)
    step: Callable[..., Term] = _STEPS[type(operation)]
    made = step(term, operation, shape, path)
    return _named(term, made, path, trained) if isinstance(operation, Connection) else made


def _named(term: Term, made: Term, path: str, trained: bool) -> Term:
    """Name a term whose connection is new, or is multiplied with one more, after the layer.

    The last one names it, since it gives what the neurons hear; but weights that nobody trained,
    such as those of a sum, do not name trained ones.
    """
    both = replace(made, name=path, trained=term.trained or trained)
    if not term.layered:
        return both
    first, last = (term.name, path) if trained or not term.trained else (path, term.name)
    note = f"{first}: multiplied into {last}, as no neurons lie between them"
    return replace(both, name=last, folded=(*made.folded, note))


def _dense(term: Term, dense: Dense, shape: Shape, path: str) -> Term:
    weight: FloatArray = dense.weight.astype(np.float64)
    if term.averages is not None:
        weight = term.averages.before(weight).astype(np.float64)
    if term.connection is None:
        if term.factor is not None:
            weight = weight * np.broadcast_to(term.factor, term.shape).ravel()
    elif term.spatial:
        weight = convolved_matrix(cast("Conv", term.connection), weight, term.shape)
    else:
        weight = weight @ term.connection.weight
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
        flattened=False,
    )


def _conv(term: Term, conv: Conv, shape: Shape, path: str) -> Term:
    offset = term.offset
    if not (term.layered and term.trained) and term.constant and any(conv.padding):
        raise NotComposable(
            "takes spikes with a constant added; only zero is padded with. Put the constant, such "
            "as a BatchNorm, behind it, or neurons before it"
        )
    if term.connection is None:
        weight = conv.weight.astype(np.float64)
        if term.factor is not None:
            channels = per_channel(term.factor, term.shape)
            weight = weight * channels[channels_seen(conv)][:, :, None, None]
        made = replace(conv, weight=weight.astype(conv.weight.dtype), bias=None)
    else:
        made = convolved(_before(term, conv, path), conv)
        # Where values only lie elsewhere, most of the window of both may hear nothing.
        made = made if term.trained else trimmed(made)
    if offset is not None:
        offset = behind_constant(conv, per_channel(offset, shape)).reshape(-1, 1, 1)
    if conv.bias is not None:
        bias = conv.bias.reshape(-1, 1, 1)
        offset = bias if offset is None else offset + bias
    return replace(term, connection=made, factor=None, offset=offset)


def _before(term: Term, conv: Conv, path: str) -> Conv:
    """Return the convolution that another one follows, if the two are one."""
    if not term.spatial:
        raise NotComposable(
            f"follows {term.name} with no neurons between; merge the two or put spiking neurons "
            "there"
        )
    # Whatever is convolutional has the geometry of one.
    first = cast("Conv", term.connection)
    if why := border_fault(first, conv, term.shape, constant=term.constant):
        alone = ""
        if not border_fault(first, conv, term.shape, constant=False):
            alone = ", or let nothing be added (bias=False, no BatchNorm)"
        raise NotComposable(
            f"follows {term.name} with no neurons between, and the two are no single convolution: "
            f"{why}. Move the padding of {path} to {term.name}, times the strides from there on "
            f"(unless maps become larger between the two){alone}, and train again, or put spiking "
            "neurons between"
        )
    return first


def _beside(term: Term, beside: Beside, shape: Shape, path: str) -> Term:
    """Put a signal where it lies beside others, which is no layer of its own."""
    step: Callable[..., Term] = _dense if len(shape) == 1 else _conv
    made = step(term, beside.weights(shape), shape, path)
    return made if term.layered else replace(made, name="")


def _by_place(connection: Connection) -> bool:
    """Tell whether a connection takes every place by itself."""
    if not connection.convolutional:
        return False
    geometry = connection.geometry
    alone = connection.weight.shape[2:] == geometry["stride"] == (1, 1)
    return bool(alone and geometry["padding"] == (0, 0))


def _pooled_before(
    term: Term, connection: Connection, pool: AvgPool, shape: Shape, path: str
) -> Term:
    """Pool spikes before they are mapped place by place, which takes fewer weights.

    What a sum is divided by goes into the weights, so that they compare with those of other terms.
    """
    offset = term.offset
    if offset is not None:
        share = pool.kernel[0] * pool.kernel[1] / pool.divisor
        offset = per_channel(offset, shape).reshape(-1, 1, 1) * share
    weight = (connection.weight / pool.divisor).astype(connection.weight.dtype)
    both = pool if term.pool is None else _pooled_pool(term.pool, pool)
    note = f"{path}: pooling moved in front of {term.name}"
    return replace(
        term,
        pool=replace(both, divisor=both.divisor // pool.divisor),
        shape=pool.output_shape(term.shape),
        connection=replace(connection, weight=weight),
        offset=offset,
        folded=(*term.folded, note) if term.layered else term.folded,
    )


def _pooled_shape(term: Term, pool: AvgPool) -> Shape:
    """Return the shape of a term's weights with a pooling behind them."""
    connection = term.connection
    if connection is None or not connection.convolutional:
        return (0,)
    if _goes_before(term, connection, pool):
        return connection.weight.shape
    return cast("Conv", connection).shape_followed_by(pool)


def _goes_before(term: Term, connection: Connection, pool: AvgPool) -> bool:
    """Tell whether a pooling behind a term's weights can as well stand in front of them."""
    # Where nothing is added, zeros that are padded with stay zeros.
    kept = pool.padding == (0, 0) or not term.constant
    return _by_place(connection) and kept and (term.pool is None or not term.layered)


def _pool(term: Term, pool: AvgPool, shape: Shape, path: str) -> Term:
    if term.connection is not None:
        if _goes_before(term, term.connection, pool):
            return _pooled_before(term, term.connection, pool, shape, path)
        if pool.padding != (0, 0):
            before = term.name if term.layered else "spikes with a constant added"
            raise NotComposable(f"a pooling with padding after {before}; put neurons before it")
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
        raise NotComposable(averages.alone)
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
    note = f"{path}: {scale.what} folded into {term.name}"
    weight = connection.weight * rows.reshape(-1, *(1,) * (connection.weight.ndim - 1))
    return replace(
        term,
        connection=replace(connection, weight=weight.astype(connection.weight.dtype)),
        offset=offset,
        folded=(*term.folded, note) if term.layered else term.folded,
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
    Beside: _beside,
    Flatten: _flatten,
    Scale: _scale,
    Shift: _shift,
    Delay: _delay,
}
