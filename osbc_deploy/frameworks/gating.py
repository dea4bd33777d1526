"""What a framework computes with spikes that is a logic gate: poolings by maximum, masks.

The largest of several spikes is 1 if any of them is: a gate with a weight of 1 from each input of
its window. Of currents, or of sums of spikes, the largest is no gate; those are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.frameworks.assemble import Cells, Node
from osbc_deploy.frameworks.compose import Add, Flatten, Scale, Shift
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import Conv, Dense, Pair, Shape
from osbc_deploy.model.windows import window_count

__all__ = [
    "OF_CURRENTS",
    "OF_NUMBERS",
    "SPIKES",
    "gates_note",
    "literal_of",
    "max_pooling",
]

OF_CURRENTS = (
    "takes the largest of several currents or sums of spikes, which no neuron of a chip does; put "
    "it behind neurons, where it is a gate of spikes, or ask for --substitute maxpool=avg"
)
OF_NUMBERS = (
    "of signals of which one is neither spikes nor 1 less spikes; only spikes mask spikes, so put "
    "neurons before it"
)

_WEIGHT = 16
"""Bytes of a weight while it is put together."""


def max_pooling(layer: Any, shape: Shape) -> Conv | Dense:
    """Return the weights into the gates that a MaxPool2d or AdaptiveMaxPool2d of spikes is.

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
    return _windows(
        _pair(layer.kernel_size),
        _pair(stride),
        _pair(layer.padding),
        _pair(layer.dilation),
        shape,
        ceil_mode=layer.ceil_mode,
    )


def gates_note(path: str, what: str, count: int) -> str:
    """Say in the notes what became gates."""
    return f"{path}: {what} becomes {count} gates, which take a step of their own on the chip"


SPIKES, NO_SPIKES = (1.0, 0.0), (-1.0, 1.0)


def literal_of(
    name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]
) -> tuple[float, float] | None:
    """Return which of SPIKES (s) and NO_SPIKES (1 - s) a node sends, or None if neither."""
    found = _affine(name, nodes, edges)
    return found if found in (SPIKES, NO_SPIKES) else None


def _affine(
    name: str, nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]
) -> tuple[float, float] | None:
    """Return factor and offset of a node that sends ``factor * spikes + offset``."""
    node = nodes.get(name)
    if node is None or isinstance(node, Cells):
        return SPIKES if node is None or node.neuron.spiking else None
    before = [pre for pre, post in edges if post == name]
    heard = _affine(before[0], nodes, edges) if len(before) == 1 else None
    if heard is None or isinstance(node, Add | Flatten):
        return heard
    if isinstance(node, Scale) and node.factor.size == 1:
        by = float(node.factor.item())
        return by * heard[0], by * heard[1]
    if isinstance(node, Shift) and node.offset.size == 1:
        return heard[0], heard[1] + float(node.offset.item())
    return None


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


def _adaptive(wanted: Any, shape: Shape) -> Conv | Dense:
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
        return _depthwise(np.ones(kernel), shape, (down, right), (0, 0), (1, 1))
    made = array_bytes((channels, channels, *size, *sides), _WEIGHT)
    Allowance("AdaptiveMaxPool2d", remedy="Use a size that divides its input").take(made)
    rows, cols = (
        np.array([[a <= x < b for x in range(side)] for a, b in span], np.float32)
        for span, side in zip(spans, sides, strict=True)
    )
    return Dense(np.kron(np.eye(channels, dtype=np.float32), np.kron(rows, cols)))


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


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)
