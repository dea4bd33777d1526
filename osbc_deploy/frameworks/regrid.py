"""Functions and layers that only put the values of a sample elsewhere: on another grid, turned.

Each is applied to the positions of the values themselves: where a position comes out, its value
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.fx.node import map_aggregate
from torch.nn import functional

from osbc_deploy.frameworks.layout import whole_of
from osbc_deploy.frameworks.reasons import unsupported_part
from osbc_deploy.frameworks.signals import Signal
from osbc_deploy.frameworks.tracing import Event, Value

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.moves import Follower
    from osbc_deploy.frameworks.signals import Called

__all__ = ["REGRIDDED", "REGRIDS", "not_moved", "regridded"]

_NEAREST = ("nearest", "nearest-exact")

REGRIDDED: dict[str, Callable[..., torch.Tensor]] = {
    "interpolate": functional.interpolate,
    "upsample": functional.interpolate,
    "upsample_nearest": functional.interpolate,
    "repeat": torch.Tensor.repeat,
    "flip": torch.Tensor.flip,
    **{
        name: getattr(torch, name)
        for name in (
            *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "repeat_interleave"),
            *("fliplr", "flipud", "roll", "rot90", "narrow", "tile"),
        )
    },
}
"""Functions, by name."""

_ANY_AXIS = ("flip", "fliplr", "flipud", "roll", "rot90")
"""Those of them that keep shapes, whatever axis they take."""

REGRIDS = (nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
"""Layers."""


def regridded(
    follower: Follower, event: Event, sources: Sequence[Signal]
) -> list[Signal] | str | None:
    """Take what lies elsewhere; None where a function computes something."""
    source, module = sources[0], event.module
    if not event.results or len(sources) > 1:
        return None
    mode = event.kwargs.get("mode", event.args[3] if len(event.args) > 3 else "nearest")
    mode = getattr(module, "mode", mode if event.name in ("interpolate", "upsample") else "nearest")
    if mode not in _NEAREST:
        return None
    function = REGRIDDED[event.name] if module is None else module.forward
    before = (source.layout or whole_of(source.shape)).index
    # Positions are whole numbers far below 2**53, and only some functions take integers.
    places = torch.from_numpy(before.astype(np.float64))
    lead, sizes = len(source.axes), follower.size(source.axes)
    found = _applied(function, event, places.reshape((1,) * lead + before.shape))
    alone = found.shape[:lead] == (1,) * lead
    if not alone or event.results[0].shape != (*sizes, *found.shape[lead:]):
        return f"{event.name} puts time steps or samples elsewhere"
    front = torch.arange(math.prod(sizes), dtype=torch.float64)
    if event.name in _ANY_AXIS:
        front = front.reshape(sizes + (1,) * len(source.shape))
        if not torch.equal(_applied(function, event, front), front):
            return f"{event.name} puts time steps or samples elsewhere"
    index = found.reshape(found.shape[lead:]).numpy().astype(np.int64)
    return [source.moved(lambda _: index)]


def _applied(function: Callable[..., Any], event: Event, places: torch.Tensor) -> torch.Tensor:
    def given(part: Any) -> Any:
        return places if isinstance(part, Value) else part

    args, kwargs = map_aggregate((event.args, dict(event.kwargs)), given)
    if not args:
        args = (kwargs.pop("input"),)
    with torch.no_grad():
        found: torch.Tensor = function(*args, **kwargs)
    return found


def not_moved(builder: Builder, called: Called, layer: Any) -> None:
    """Refuse a layer that does not only put values elsewhere; one that failed says so itself."""
    if called.event.results:
        builder.refuse_part(called, unsupported_part(builder.kind(layer).__name__))
    else:
        builder.passed(called)
