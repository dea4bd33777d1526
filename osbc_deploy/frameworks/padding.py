"""Zeros around a map in front of a convolution, which are the convolution's own padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from osbc_deploy.model.windows import Pair

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.signals import Called

__all__ = ["pad_function", "pad_layer", "padding_before"]


def pad_layer(builder: Builder, called: Called, layer: Any) -> None:
    """Take a layer that pads, such as ZeroPad2d."""
    _put(builder, called, type(layer).__name__, layer.padding, layer.value)


def pad_function(builder: Builder, called: Called) -> None:
    """Take ``F.pad``."""
    event = called.event
    names = ("input", "pad", "mode", "value")
    given = {**dict(zip(names, event.args, strict=False)), **event.kwargs}
    value = given.get("value") if given.get("mode", "constant") == "constant" else "no constant"
    _put(builder, called, "pad", given["pad"], value)


def padding_before(builder: Builder, called: Called) -> Pair:
    """Return how many rows and columns of zeros were put at each side of what a call hears."""
    source = called.sources[0].called
    return (0, 0) if source is None else builder.padded.get(source, (0, 0))


def _put(builder: Builder, called: Called, name: str, amounts: Sequence[int], value: Any) -> None:
    shape = called.sources[0].shape
    # Columns come first, then rows, each with what is put before and behind.
    sides = [(int(a), int(b)) for a, b in zip(amounts[::2], amounts[1::2], strict=True)]
    outside = sides[len(shape) - 1 :]
    (_, columns), (_, rows) = [*sides, (0, 0), (0, 0)][:2]
    if value not in (None, 0):
        builder.refuse(called, f"{name} with anything but zeros; outside of a map nothing fires")
    elif any(map(any, outside)):
        builder.refuse(called, f"{name} of anything but the rows and columns of a map")
    elif any(a != b or a < 0 for a, b in sides):
        builder.refuse(
            called, f"{name} puts more zeros at one side than at the other; put as many at both"
        )
    else:
        builder.passed(called)
        builder.lies(called, builder.layout(called.sources[0]))
        builder.padded[called] = (rows, columns)
