"""Signals whose time comes behind axes of a sample, and what is made of them.

Forwards stack steps along a last axis, (N, C, T), turn them there, or take samples so, and then
take one step of that, or their sum. Where the axes lie is noted, and functions that name an axis
are given the one they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from osbc_deploy.frameworks.moves import MOVES, Follower
from osbc_deploy.frameworks.signals import Signal
from osbc_deploy.frameworks.tracing import Event
from osbc_deploy.frameworks.turning import turned_order

__all__ = ["BEHIND", "turned_back"]

BEHIND = (
    "hears time behind axes of a sample, as what computes across time does; on a chip each step is "
    "computed by itself, so of steps that lie so one can be taken, or their sum, mean or maximum"
)
_SAME = ("contiguous", "clone", "detach", "to", "float", "double", "type", "cpu", "alias")
_OVER = ("sum", "mean", "max", "amax", "any", "nansum", "count_nonzero")
_TURNS = ("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis")


def turned_back(follower: Follower, event: Event, sources: list[Signal]) -> list[Signal] | str:
    """Take a function of a signal whose axes are turned."""
    source, name = sources[0], event.name
    if event.module is not None or len(sources) > 1:
        return BEHIND
    if name in _SAME:
        return [source]
    straight, turned = replace(source, turned=()), source.turned
    if name in _TURNS:
        return [_lying(straight, [turned[a] for a in turned_order(event, len(turned))])]
    if name == "getitem":
        return _indexed(follower, event, straight, turned)
    axis = _axis(event)
    if not isinstance(axis, int) or name not in (*_OVER, "select", "unbind"):
        return BEHIND
    axis %= len(turned)
    left = [a for place, a in enumerate(turned) if place != axis]
    given = (*event.args[:1], turned[axis], *event.args[2:])
    kept = {k: v for k, v in event.kwargs.items() if k not in ("dim", "axis")}
    # A step that is taken is a number, and 1 == True.
    if kept.get("keepdim") or any(given is True for given in event.args[2:]):
        return BEHIND
    found = MOVES[name](follower, replace(event, args=given, kwargs=kept), [straight])
    if not isinstance(found, list):
        return found or BEHIND
    return [_lying(one, left) for one in found]


def _axis(event: Event) -> Any:
    more = event.kwargs.get("dim", event.kwargs.get("axis"))
    axis = event.args[1] if len(event.args) > 1 else more
    return axis[0] if isinstance(axis, tuple | list) and len(axis) == 1 else axis


def _indexed(
    follower: Follower, event: Event, straight: Signal, turned: Sequence[int]
) -> list[Signal] | str:
    """Take what indices choose, each of the axis that lies where it stands."""
    given = event.args[1]
    indices = given if isinstance(given, tuple) else (given,)
    if any(not (isinstance(i, int | slice) or i is Ellipsis) for i in indices):
        return BEHIND
    if Ellipsis in indices:
        place = indices.index(Ellipsis)
        missing = len(turned) - len(indices) + 1
        indices = (*indices[:place], *(slice(None),) * missing, *indices[place + 1 :])
    indices = (*indices, *(slice(None),) * (len(turned) - len(indices)))
    meant: list[Any] = [slice(None)] * len(turned)
    for axis, index in zip(turned, indices, strict=True):
        meant[axis] = index
    found = MOVES["getitem"](
        follower, replace(event, args=(event.args[0], tuple(meant))), [straight]
    )
    if not isinstance(found, list):
        return found or BEHIND
    left = [a for a, index in zip(turned, indices, strict=True) if not isinstance(index, int)]
    return [_lying(one, left) for one in found]


def _lying(signal: Signal, axes: Sequence[int]) -> Signal:
    """Return a signal whose axes lie in an order, given by where they came before."""
    order = tuple(sorted(axes).index(axis) for axis in axes)
    return replace(signal, turned=() if list(order) == sorted(order) else order)
