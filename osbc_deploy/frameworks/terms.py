"""What a way from spikes to a population becomes: one connection, with its bias and its pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.frameworks.operations import (
    NotComposable,
    Term,
    per_channel,
    per_output,
)
from osbc_deploy.model.graph import AvgPool, Connection, Conv, Dense, Shape

__all__ = ["mapped", "merged"]


def merged(terms: Sequence[Term], notes: list[str]) -> list[Term]:
    """Add up terms whose spikes arrive in the same way, as one connection of both weights."""
    found: list[Term] = []
    for term in terms:
        for number, other in enumerate(found):
            both = _added(other, term)
            if both is not None:
                found[number] = both
                notes.append(f"{term.name}: added to {other.name}, which hears the same spikes")
                break
        else:
            found.append(term)
    return found


def _added(first: Term, second: Term) -> Term | None:
    """Return the sum of two terms as one, or None where it takes two projections."""
    a, b = first.connection, second.connection
    same = (first.pre, first.pool, first.flattened) == (second.pre, second.pool, second.flattened)
    if not same or a is None or b is None or not _equal(first.delay, second.delay):
        return None
    if _layout(a) != _layout(b):
        return None
    offset = second.offset if first.offset is None else first.offset
    if first.offset is not None and second.offset is not None:
        offset = first.offset + second.offset
    weight = a.weight.astype(np.float64) + b.weight
    return replace(
        first,
        connection=replace(a, weight=weight.astype(np.result_type(a.weight, b.weight))),
        trained=first.trained or second.trained,
        offset=offset,
        folded=(*first.folded, *second.folded),
    )


def _layout(connection: Connection) -> tuple[object, ...]:
    return type(connection), connection.weight.shape, connection.geometry


def _equal(a: IntArray | None, b: IntArray | None) -> bool:
    none = np.zeros(1, np.int64)
    return bool(((none if a is None else a) == (none if b is None else b)).all())


def mapped(term: Term, shape: Shape, *, alone: bool) -> tuple[Connection, AvgPool | None]:
    """Return the connection of a term with its bias, and the pooling before it."""
    connection, pool = term.connection, term.pool
    if term.averages is not None:
        raise NotComposable(term.averages.alone)
    if connection is None:
        connection, pool = _bare(term, shape, alone=alone)
    elif term.flattened and term.spatial:
        raise NotComposable(
            f"hears the convolution {term.name} flattened; flatten its spikes instead"
        )
    offset = term.offset
    if offset is None or not offset.any():
        return connection, pool
    return replace(connection, bias=per_output(connection, offset, shape)), pool


def _bare(term: Term, shape: Shape, *, alone: bool) -> tuple[Connection, AvgPool | None]:
    """Return what lets spikes through as they are, but for a pooling and a factor.

    Neurons that hear nothing else get a depthwise convolution. Beside trained connections it is a
    full one, which the solver can compress together with them.
    """
    factor = np.ones(()) if term.factor is None else term.factor
    if len(shape) != 3:
        return Dense(np.diag(np.broadcast_to(factor, term.shape).ravel())), term.pool
    rows = per_channel(factor, term.shape)
    if not alone:
        return Conv(np.diag(rows)[:, :, None, None]), term.pool
    pool = term.pool or AvgPool((1, 1), (1, 1))
    weight = np.ones((len(rows), 1, *pool.kernel)) * rows.reshape(-1, 1, 1, 1) / pool.divisor
    return Conv(weight, None, pool.stride, pool.padding, groups=len(rows)), None
