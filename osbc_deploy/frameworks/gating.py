"""What a framework computes with spikes that is a logic gate: poolings by maximum, masks.

The largest of several spikes is 1 if any of them is: a gate with a weight of 1 from each input of
its window. The largest of sums of spikes is as many gates as they can hold spikes: whether any sum
reaches 1, whether any reaches 2, and so on. Of currents the largest is no gate; it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.operations import Add, Beside, Flatten, Scale, Shift
from osbc_deploy.frameworks.walk import Cells, Node
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import INPUT, AvgPool, Connection, Conv, Pair, Shape
from osbc_deploy.model.windows import pair, window_count

__all__ = [
    "NO_SPIKES",
    "OF_CURRENTS",
    "OF_NUMBERS",
    "SPIKES",
    "counted",
    "gates_note",
    "literal_of",
    "max_pooling",
    "most_spikes",
    "spikes_behind",
    "unless_all",
]

OF_CURRENTS = (
    "takes the largest of several currents, sums or graded values, which no neuron of a chip does; "
    "put it behind neurons, where it is a gate of spikes"
)
OF_NUMBERS = (
    "of signals of which one is neither spikes nor 1 less spikes; only spikes mask spikes, so put "
    "neurons before it"
)
_WEIGHT = 16
"""Bytes of a weight while it is put together."""


def max_pooling(layer: Any, shape: Shape) -> tuple[Conv, ...]:
    """Return the weights into the gates that a MaxPool2d or AdaptiveMaxPool2d of spikes is.

    Windows of several sizes take gates in a row of their own, as channels of one place, and others
    that put them where they belong.

    Parameters
    ----------
    layer : torch.nn.MaxPool2d or torch.nn.AdaptiveMaxPool2d
    shape : tuple of int
        Of the spikes.

    Raises
    ------
    ValueError
        That says what has no counterpart.
    """
    kind = "AdaptiveMaxPool2d" if hasattr(layer, "output_size") else "MaxPool2d"
    if len(shape) != 3:
        raise ValueError(f"{kind} needs (C, H, W), got {shape}")
    if layer.return_indices:
        raise ValueError(f"{kind}(return_indices=True) answers with places; only spikes are read")
    if kind == "AdaptiveMaxPool2d":
        return _adaptive(layer.output_size, shape)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    windows = _windows(
        pair(layer.kernel_size),
        pair(stride),
        pair(layer.padding),
        pair(layer.dilation),
        shape,
        ceil_mode=layer.ceil_mode,
    )
    return (windows,)


def unless_all(windows: Connection, shape: Shape) -> tuple[Connection, FloatArray]:
    """Return weights and thresholds of the largest of what is 1 less spikes of a shape.

    It is 1 unless all in its window fire; how many those are differs at the edges.
    """
    rows = windows.unfolded(np.ones((1, *shape)))
    grouped = windows.weight.reshape(windows.groups, -1, windows.fan_in)
    counts = np.einsum("gpf,gof->gop", rows, grouped).reshape(windows.output_shape(shape))
    return replace(windows, weight=-windows.weight), 1.0 - counts


def gates_note(path: str, what: str, count: int) -> str:
    """Say in the notes what became gates."""
    return f"{path}: {what} becomes {count} gates, which take a step of their own on the chip"


SPIKES, NO_SPIKES = (1.0, 0.0), (-1.0, 1.0)


def literal_of(
    name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], *, graded: bool
) -> tuple[float, float] | None:
    """Return which of SPIKES (s) and NO_SPIKES (1 - s) a node sends, or None if neither.

    What is graded, the input is if anything, is neither; nor is 1 less spikes of several.
    """
    found = _affine(name, nodes, edges)
    if found not in (SPIKES, NO_SPIKES):
        return None
    behind = _all_behind(name, nodes, edges)
    several = len(behind) > 1 and found == NO_SPIKES
    return None if several or (graded and INPUT in behind) else found


def _affine(
    name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]
) -> tuple[float, float] | None:
    """Return factor and offset of a node that sends ``factor * spikes + offset``."""
    node = nodes.get(name)
    if node is None or isinstance(node, Cells):
        return SPIKES if node is None or node.neuron.spiking else None
    before = _before(name, edges)
    # Of signals side by side, each brings other channels.
    apart = len(before) == 1 or all(isinstance(nodes.get(pre), Beside) for pre in before)
    found = {_affine(pre, nodes, edges) for pre in before} if apart else set()
    heard = found.pop() if len(found) == 1 else None
    if heard is None or isinstance(node, Add | Beside | Flatten):
        return heard
    if _picks(node):
        # Where it pads, there are no spikes, rather than 1 less none.
        return heard if heard == SPIKES else None
    if isinstance(node, Scale) and node.factor.size == 1:
        by = float(node.factor.item())
        return by * heard[0], by * heard[1]
    if isinstance(node, Shift) and node.offset.size == 1:
        return heard[0], heard[1] + float(node.offset.item())
    return None


def _picks(node: object) -> bool:
    """Tell whether each value that a connection gives is one of those that it hears."""
    if not isinstance(node, Connection) or node.bias is not None:
        return False
    taps = node.weight.reshape(len(node.weight), -1)
    return bool(((taps != 0).sum(axis=1) == 1).all() and (taps.sum(axis=1) == 1).all())


def _before(name: str, edges: Sequence[tuple[str, str]]) -> list[str]:
    return [pre for pre, post in edges if post == name]


def _all_behind(name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]) -> set[str]:
    """Return all neurons, and the input, whose spikes a node sends a multiple of."""
    node = nodes.get(name)
    if node is None or isinstance(node, Cells):
        return {name}
    return {end for pre in _before(name, edges) for end in _all_behind(pre, nodes, edges)}


def spikes_behind(name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]) -> str:
    """Return what a node sends a multiple of: neurons, the input, or some of their channels."""
    node = nodes.get(name)
    while isinstance(node, Scale | Shift | Add | Flatten):
        (name,) = _before(name, edges)
        node = nodes.get(name)
    return name


def counted(
    names: Sequence[str],
    nodes: Mapping[str, Node],
    edges: Sequence[tuple[str, str]],
    fixed: Collection[str],
    *,
    graded: bool,
) -> tuple[bool, bool]:
    """Tell whether the sum of nodes is a whole number of spikes, and never below 0."""
    whole = positive = True
    waiting = list(names)
    while waiting and whole:
        name = waiting.pop()
        node = nodes.get(name)
        if node is None or isinstance(node, Cells):
            whole = not graded if node is None else node.neuron.spiking
            continue
        waiting += _before(name, edges)
        if isinstance(node, Scale | Shift):
            values = node.factor if isinstance(node, Scale) else node.offset
            whole = bool((values == np.rint(values)).all())
            positive = positive and bool((values >= 0).all())
        elif isinstance(node, AvgPool):
            whole = node.divisor == 1
        elif not isinstance(node, Add | Beside | Flatten):
            # Sums that are no pooling are convolutions of ones.
            whole = name in fixed
    return whole, positive


def most_spikes(
    names: Sequence[str], nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]
) -> float:
    """Return how large the sum of nodes is at most, if it is one of spikes; else infinity."""
    total = 0.0
    for name in names:
        node, before = nodes.get(name), _before(name, edges)
        if node is None or isinstance(node, Cells):
            total += 1.0
        elif isinstance(node, Scale) and node.factor.size == 1:
            total += float(node.factor.item()) * most_spikes(before, nodes, edges)
        elif before and all(isinstance(nodes.get(pre), Beside) for pre in before):
            # Each brings other channels.
            total += max(most_spikes([pre], nodes, edges) for pre in before)
        elif isinstance(node, Add | Beside | Flatten) or _picks(node):
            total += most_spikes(before, nodes, edges)
        else:
            return math.inf
    return total


def _windows(
    kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, shape: Shape, *, ceil_mode: bool
) -> Conv:
    sides = list(zip(shape[1:], kernel, stride, padding, dilation, strict=True))
    if any(window_count(side, k, s, p, d) < 1 for side, k, s, p, d in sides):
        raise ValueError(f"MaxPool2d{kernel} is larger than its input {shape}")
    beyond = [_beyond(*side) if ceil_mode else 0 for side in sides]
    if not any(beyond):
        return _depthwise(np.ones(kernel), shape, stride, padding, dilation)
    # A convolution pads both ends alike, so the kernel begins with as many zeros as are too many.
    weight = np.zeros([d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)])
    weight[:: dilation[0], :: dilation[1]] = 1.0
    weight = np.pad(weight, [(more, 0) for more in beyond])
    wider = (padding[0] + beyond[0], padding[1] + beyond[1])
    return _depthwise(weight, shape, stride, wider, (1, 1))


def _beyond(side: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return how far the last window of ceil_mode reaches beyond the padding."""
    left = side + 2 * padding - dilation * (kernel - 1) - 1
    count = -(-left // stride)
    # It must begin in the input or in the padding before it.
    if left % stride == 0 or count * stride >= side + padding:
        return 0
    return count * stride - left


def _adaptive(wanted: Any, shape: Shape) -> tuple[Conv, ...]:
    channels, *sides = shape
    asked = wanted if isinstance(wanted, tuple | list) else (wanted, wanted)
    size = [side if w is None else int(w) for w, side in zip(asked, sides, strict=True)]
    if min(size) < 1:
        raise ValueError(f"AdaptiveMaxPool2d to {tuple(size)}")
    # Window i reaches from floor(i side / size) to ceil((i + 1) side / size).
    spans = [
        [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
        for side, n in zip(sides, size, strict=True)
    ]
    if all(_is_even(span) for span in spans):
        kernel = [span[0][1] for span in spans]
        down, right = (span[1][0] if len(span) > 1 else 1 for span in spans)
        return (_depthwise(np.ones(kernel), shape, (down, right), (0, 0), (1, 1)),)
    rows, cols = size
    made = array_bytes((channels, rows * cols, max(rows * cols, math.prod(sides))), _WEIGHT)
    Allowance("AdaptiveMaxPool2d", remedy="Use a size that divides its input").take(made)
    below, beside = (
        np.array([[a <= x < b for x in range(side)] for a, b in span], np.float32)
        for span, side in zip(spans, sides, strict=True)
    )
    windows = np.einsum("ax,by->abxy", below, beside).reshape(1, rows * cols, 1, *sides)
    windows = np.broadcast_to(windows, (channels, *windows.shape[1:]))
    # Only one place of the padding around them is there, and every window is to see it otherwise.
    place = np.eye(rows * cols, dtype=np.float32)[::-1].reshape(1, rows * cols, rows, cols)
    return (
        Conv(windows.reshape(-1, 1, *sides), groups=channels),
        Conv(
            np.broadcast_to(place, (channels, *place.shape[1:])),
            padding=(rows - 1, cols - 1),
            groups=channels,
        ),
    )


def _is_even(span: list[Pair]) -> bool:
    """Tell whether windows are of one size and in equal steps."""
    sizes = {stop - start for start, stop in span}
    steps = {after[0] - before[0] for before, after in pairwise(span)}
    return len(sizes) == 1 and len(steps) < 2 and 0 not in steps


def _depthwise(
    kernel: FloatArray, shape: Shape, stride: Pair, padding: Pair, dilation: Pair
) -> Conv:
    weight = np.broadcast_to(kernel.astype(np.float32), (shape[0], 1, *kernel.shape))
    return Conv(weight, None, stride, padding, dilation, shape[0])
