"""Signals that meet: added or masked value by value, one of them repeated along axes or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from osbc_deploy.arrays import IntArray
from osbc_deploy.frameworks.gating import NO_SPIKES
from osbc_deploy.frameworks.layout import Layout, spread, summed, whole_of
from osbc_deploy.frameworks.operations import Add, Beside, Flatten, Scale, Shift
from osbc_deploy.frameworks.phases import blocks_of, in_phases
from osbc_deploy.model.windows import Shape

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.draft import Draft
    from osbc_deploy.frameworks.signals import Called, Signal

__all__ = [
    "averaged",
    "brought",
    "fits",
    "joined",
    "put_beside",
    "put_sum",
    "sample_axes",
    "shared",
    "side_by_side",
]


def joined(builder: Builder, called: Called, name: str) -> tuple[list[list[str]], Layout]:
    """Bring the signals of a call to where one of them lies.

    Returns
    -------
    names : list of list of str
        The nodes whose sum each signal is there.
    layout : Layout
        Of the answer.

    Raises
    ------
    ValueError
        That says why they cannot be.
    """
    shapes = [source.shape for source in called.sources]
    try:
        seen = np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(map(str, shapes))
        raise ValueError(f"{name} of signals of different shapes, {listed}") from None
    found = [builder.placed(source).own() for source in called.sources]
    full = [layout for layout in found if layout.seen == seen and layout.whole]
    # Flat neurons would take synapses from all to all.
    full.sort(key=lambda layout: len(layout.shape), reverse=True)
    placed = [builder.placed(source) for source in called.sources]
    targets = full or [whole_of(seen if len(seen) in (1, 3) else (math.prod(seen),), seen)]
    target = next((one for one in targets if all(fits(layout, one) for layout in placed)), None)
    if target is None:
        target = targets[0]
        if len(builder.shape(seen)) == 3 and {p.seen for p in placed} == {seen}:
            target = shared(builder, placed)(seen)
    names = [
        brought(builder, f"{called.name}.{number}", source, target)
        for number, source in enumerate(called.sources)
    ]
    return names, target


def fits(source: Layout, target: Layout) -> bool:
    """Tell whether a connection brings a signal to where another lies."""
    try:
        spread(source, target)
    except ValueError:
        return False
    return True


def shared(builder: Draft, layouts: Sequence[Layout]) -> Callable[[Shape], Layout]:
    """Return where maps of any number of channels may lie to which several can all be brought.

    They lie in the phases of blocks that are common to all of them, or flat if any of them does.
    """
    phases = None
    if all(len(layout.shape) == 3 for layout in layouts):
        blocks = [
            blocks_of(layout.shape, layout.index.reshape(builder.shape(layout.seen)))
            for layout in layouts
        ]
        phases = tuple(math.lcm(*(one[axis].seen for one in blocks)) for axis in (0, 1))
        if phases == builder.shape(layouts[0].seen)[1:]:
            # A single block is a matrix.
            phases = None

    def target(seen: Shape) -> Layout:
        if phases is None:
            return whole_of((math.prod(seen),), seen)
        shape, index = in_phases(builder.shape(seen), (phases[0], phases[1]))
        return Layout(shape, index.reshape(seen))

    return target


def brought(builder: Draft, name: str, signal: Signal, target: Layout) -> list[str]:
    """Return the nodes whose sum a signal is where another lies; ValueError where none can be."""
    heard, layout = builder.names(signal), builder.placed(signal)
    operation = spread(layout, target, name)
    if operation is None:
        return heard
    silent = builder.literal(signal) == NO_SPIKES
    if silent:
        # Where it pads, there are no spikes, rather than 1 less none.
        heard = [builder.spikes_behind(heard[0])]
    if len(layout.shape) > 1 and not operation.convolutional:
        heard = [builder.node(f"{name}.flat", Flatten(), heard)]
    builder.fixed.add(name)
    heard = [builder.node(name, operation, heard)]
    if silent:
        heard = [builder.node(f"{name}.scale", Scale(np.asarray(-1.0)), heard)]
        heard = [builder.node(f"{name}.shift", Shift(np.asarray(1.0)), heard)]
    return heard


def put_beside(builder: Draft, called: Called) -> None:
    """Put maps side by side by their channels, or values: each where it lies, and all are added."""
    shape = called.shape
    parts = [source.shape for source in called.sources]
    alike = all(len(builder.shape(p)) in (1, 3) and p[1:] == shape[1:] for p in parts)
    starts = np.cumsum([0, *(part[0] if part else 0 for part in parts)]).tolist()
    if not alike or starts[-1] != shape[0]:
        builder.refuse(
            called,
            f"cat puts {' and '.join(map(str, parts))} side by side, which only a Linear may hear, "
            "flattened; all else hears whole channels of maps of one size side by side",
        )
        builder.leave_out(called)
        return
    placed = [builder.placed(source) for source in called.sources]

    def plain(seen: Shape) -> Layout:
        return whole_of(builder.shape(seen), seen)

    alike = all(fits(layout, plain(part)) for layout, part in zip(placed, parts, strict=True))
    lies = plain if alike else shared(builder, placed)
    heard, whole = [], lies(shape)
    each = whole.shape[0] // shape[0]
    for number, (source, start) in enumerate(zip(called.sources, starts[:-1], strict=True)):
        name = f"{called.name}.{number}"
        names = brought(builder, f"{name}.part", source, lies(source.shape))
        heard.append(builder.node(name, Beside(start * each, whole.shape[0]), names))
    builder.lies(called, whole)
    builder.now[called] = [builder.node(called.name, Add(), heard)]


def side_by_side(signal: Signal) -> list[IntArray]:
    """Return where the parts of a `cat` lie in it, flattened, each in its own order."""
    called = signal.called
    if called is None:
        raise ValueError("nothing is put side by side")
    event = called.event
    given = {**dict(zip(("tensors", "dim"), event.args, strict=False)), **event.kwargs}
    lead, rank = len(called.sources[0].axes), len(called.sources[0].shape)
    axis = int(given.get("dim", given.get("axis", 0))) % (lead + rank) - lead
    sizes = [part.shape[axis] for part in called.sources]
    whole = list(called.sources[0].shape)
    whole[axis] = sum(sizes)
    places = np.arange(math.prod(whole)).reshape(whole)
    return [part.ravel() for part in np.split(places, np.cumsum(sizes)[:-1], axis)]


def put_sum(
    builder: Builder,
    called: Called,
    axes: tuple[int, ...],
    *,
    keep: bool,
    mean: bool,
    name: str | None = None,
) -> None:
    """Put what sums a signal along axes of a sample; ValueError where nothing does."""
    layout = builder.placed(called.sources[0])
    operation, after = summed(layout, axes, keep=keep, mean=mean)
    builder.put(called, name or called.name, operation)
    builder.fixed.add(name or called.name)
    builder.lies(called, after)


def sample_axes(called: Called) -> tuple[tuple[int, ...], bool]:
    """Return the axes of a sample that a function reduces, and whether it keeps them.

    There are none where it reduces time or samples as well.
    """
    event, source = called.event, called.sources[0]
    given = {**dict(zip(("input", "dim", "keepdim"), event.args, strict=False)), **event.kwargs}
    rank, lead = len(source.axes) + len(source.shape), len(source.axes)
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(rank)
    axes = tuple(int(d) % rank - lead for d in dims)
    return (() if min(axes) < 0 else axes), bool(given.get("keepdim"))


def averaged(called: Called) -> int:
    """Return how many values in a row a call averages or adds up, 0 where it does neither.

    A pooling of one dimension does, and so does a sum along the last axis of values that were cut
    into rows; a multiple is as good for a vote.
    """
    event, shape = called.event, called.sources[0].shape
    if isinstance(event.module, nn.AvgPool1d) or event.name == "avg_pool1d":
        pool: Any = event.module or nn.AvgPool1d(*event.args[1:], **event.kwargs)
        (size,), (step,), (padding,) = pool.kernel_size, pool.stride, pool.padding
        alone = math.prod(shape) == shape[-1] and size == step and not padding
        return int(size) if alone and shape[-1] % size == 0 else 0
    before = called.sources[0].called
    stacked = before is not None and before.event.name == "stack"
    if event.module is None and event.name in ("sum", "mean") and len(shape) > 1 and not stacked:
        axes, _ = sample_axes(called)
        return shape[-1] if axes == (len(shape) - 1,) else 0
    return 0
