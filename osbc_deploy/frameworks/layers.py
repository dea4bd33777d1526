"""Turn torch's linear layers into connections and poolings of the float network."""

from __future__ import annotations

from typing import Any

from osbc_deploy.frameworks.folding import as_array
from osbc_deploy.model.graph import AvgPool, Conv, Pair, Shape

__all__ = ["adaptive_pooling", "average_pooling", "convolution"]


def convolution(layer: Any) -> tuple[Conv, list[str]]:
    """Return the connection of a Conv2d, and what of it has no counterpart."""
    faults = []
    if isinstance(layer.padding, str):
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if layer.padding == "same" and any(r % 2 for r in reach):
            faults.append("Conv2d(padding='same') with an even kernel pads one side more")
        padding = (0, 0) if layer.padding == "valid" else (reach[0] // 2, reach[1] // 2)
    else:
        padding = _pair(layer.padding)
    if layer.padding_mode != "zeros":
        faults.append(f"Conv2d(padding_mode={layer.padding_mode!r}); only 'zeros'")
    conv = Conv(
        as_array(layer.weight),
        None if layer.bias is None else as_array(layer.bias),
        _pair(layer.stride),
        padding,
        _pair(layer.dilation),
        layer.groups,
    )
    return conv, faults


def average_pooling(layer: Any) -> AvgPool:
    """Return the pooling of an AvgPool2d; ValueError says what has no counterpart."""
    pool = AvgPool(
        kernel=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=_pair(layer.padding),
        divisor=layer.divisor_override or 0,
    )
    if layer.ceil_mode or (pool.padding != (0, 0) and not layer.count_include_pad):
        raise ValueError("AvgPool2d with ceil_mode, or padding left out of the average")
    return pool


def adaptive_pooling(layer: Any, shape: Shape) -> AvgPool:
    """Return the pooling that an AdaptiveAvgPool2d is for input of a shape.

    ValueError says why it is not the average of windows of one size.
    """
    wanted = layer.output_size
    if not isinstance(wanted, tuple | list):
        wanted = (wanted, wanted)
    if len(shape) != 3:
        raise ValueError(f"AdaptiveAvgPool2d needs (C, H, W), got {shape}")
    size = [s if w is None else w for w, s in zip(wanted, shape[1:], strict=True)]
    if any(s % w for w, s in zip(size, shape[1:], strict=True)):
        raise ValueError(
            f"AdaptiveAvgPool2d from {shape[1:]} to {tuple(size)} averages windows of several "
            "sizes; use a size that divides its input, or AvgPool2d"
        )
    kernel = (shape[1] // size[0], shape[2] // size[1])
    return AvgPool(kernel=kernel, stride=kernel)


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first), int(second)
