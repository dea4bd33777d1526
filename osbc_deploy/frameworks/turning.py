"""Functions that turn axes: transpose, permute, movedim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.frameworks.signals import Signal
from osbc_deploy.frameworks.tracing import Event

if TYPE_CHECKING:
    from osbc_deploy.frameworks.moves import Follower

__all__ = ["turned", "turned_order"]


def turned_order(event: Event, rank: int) -> list[int]:
    """Return which axis a function that turns them puts at each place."""
    given = [*event.args[1:], *event.kwargs.values()]
    order = list(range(rank))
    if event.name == "permute":
        axes = given[0] if isinstance(given[0], tuple | list) else given
        return [int(a) % rank for a in axes]
    if event.name in ("movedim", "moveaxis"):
        return list(np.moveaxis(np.empty(order), *given).shape)
    a, b = (int(g) % rank for g in given)
    order[a], order[b] = order[b], order[a]
    return order


def turned(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    """Take what lies in another order; where time and samples come later is noted."""
    source = sources[0]
    order = turned_order(event, len(source.axes) + len(source.shape))
    lead = len(source.axes)
    if sorted(order[:lead]) != list(range(lead)):
        if sorted(order[1 : lead + 1]) != list(range(lead)):
            return [replace(source, turned=tuple(order))]
        # Queries, keys and values of one layer are told apart so.
        fault = f"{event.name} moves axes of a sample in front of time or samples"
        (found,) = follower.call(event, sources, fault)
        return [replace(found, parts=_apart(source, order))]
    moved = source.moved(lambda index: index.transpose([a - lead for a in order[lead:]]))
    return [replace(moved, axes=tuple(source.axes[a] for a in order[:lead]))]


def _apart(source: Signal, order: Sequence[int]) -> tuple[Signal, ...]:
    """Return what is seen along an axis of a sample that is turned in front of all others."""
    lead = len(source.axes)
    front = order[0] - lead
    rest = [a - lead - (a > order[0]) for a in order[lead + 1 :]]
    axes = tuple(source.axes[a] for a in order[1 : lead + 1])

    def part(number: int) -> Signal:
        moved = source.moved(lambda index: np.take(index, number, front).transpose(rest))
        return replace(moved, axes=axes)

    return tuple(part(number) for number in range(source.shape[front]))
