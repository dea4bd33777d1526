"""torch's layers as operations of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from torch import nn

from osbc_deploy.frameworks.as_matrix import put_averages, put_maps
from osbc_deploy.frameworks.averages import Averages, adaptive_windows, pooling_windows
from osbc_deploy.frameworks.folding import as_array, batch_norm_factors
from osbc_deploy.frameworks.gating import OF_CURRENTS, SPIKES, max_pooling, unless_all
from osbc_deploy.frameworks.joining import side_by_side
from osbc_deploy.frameworks.layout import Layout, columns_of
from osbc_deploy.frameworks.operations import Flatten, Scale, Shift
from osbc_deploy.frameworks.padding import pad_layer, padding_before
from osbc_deploy.frameworks.reasons import unsupported_part
from osbc_deploy.frameworks.regrid import REGRIDS, not_moved
from osbc_deploy.frameworks.transposed import transposed_layer
from osbc_deploy.model.graph import AvgPool, Connection, Conv, Dense
from osbc_deploy.model.windows import pair

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.flow import Called

__all__ = [
    "DROPOUTS",
    "FLAT",
    "LAYERS",
    "LINEAR_LAYERS",
    "SUPPORTED_LAYERS",
    "TIMELESS",
    "WEIGHTED",
    "LayerReader",
    "conv_layer",
    "convolution",
    "joined_linear",
]

_MOST = 16
"""Spikes in a sum of which the largest is taken: each number of them is a population of gates."""

LayerReader: TypeAlias = "Callable[[Builder, Called, Any], None]"
"""Puts what a layer computes into the graph, or refuses it."""


def convolution(layer: Any) -> tuple[Conv, list[str]]:
    """Return the connection of a Conv2d or Conv1d, and what of it has no counterpart.

    One dimension is two with a height of 1.
    """
    faults = []
    name = f"Conv{len(layer.kernel_size)}d"
    if isinstance(layer.padding, str):
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if layer.padding == "same" and any(r % 2 for r in reach):
            faults.append(f"{name}(padding='same') with an even kernel pads one side more")
        padding = tuple(0 if layer.padding == "valid" else r // 2 for r in reach)
    else:
        padding = layer.padding
    if layer.padding_mode != "zeros":
        faults.append(f"{name}(padding_mode={layer.padding_mode!r}); only 'zeros'")
    weight = as_array(layer.weight)
    conv = Conv(
        weight if weight.ndim == 4 else weight[:, :, None],
        None if layer.bias is None else as_array(layer.bias),
        pair(layer.stride, 1),
        pair(padding, 0),
        pair(layer.dilation, 1),
        layer.groups,
    )
    return conv, faults


def conv_layer(builder: Builder, called: Called, layer: Any) -> None:
    """Put a convolution behind what it hears."""
    conv, faults = convolution(layer)
    for fault in faults:
        builder.refuse(called, fault)
    channels, dims = conv.weight.shape[1] * conv.groups, len(layer.kernel_size)
    shape = called.sources[0].shape
    if any(around := padding_before(builder, called)):
        both = (conv.padding[0] + around[0], conv.padding[1] + around[1])
        conv = replace(conv, padding=both)
        sides = (0, *around)[-len(shape) :] if len(shape) == dims + 1 else ()
        shape = tuple(s - 2 * a for s, a in zip(shape, sides, strict=False))
    layout = builder.layout(called.sources[0])
    by_place = len(shape) == dims + 1 and shape[0] == channels and _by_place(conv) and not faults
    if by_place and layout is not None and per_place(builder, called, conv, layout, 0):
        return
    if len(shape) != dims + 1 or shape[0] != channels:
        takes = f"({channels}, {'H, W' if dims == 2 else 'L'})"
        builder.misfit(called, f"Conv{dims}d takes {takes}, gets {shape}")
    elif min(conv.output_shape(builder.shape(shape))) < 1:
        builder.misfit(
            called, f"Conv{dims}d: kernel {layer.kernel_size} is larger than its input {shape}"
        )
    elif not faults:
        put_maps(builder, called, conv)


def _by_place(conv: Conv) -> bool:
    """Tell whether a convolution takes every place by itself."""
    return conv.weight.shape[2:] == conv.stride == (1, 1) and conv.padding == (0, 0)


def per_place(builder: Builder, called: Called, conv: Conv, layout: Layout, axis: int) -> bool:
    """Put a map of the channels of each place, which are an axis that is seen, if they are."""
    if not layout.has_channels(axis):
        return False
    builder.put(called, called.name, conv)
    builder.lies(called, layout.with_channels(len(conv.weight), axis))
    return True


def _linear(builder: Builder, called: Called, layer: Any) -> None:
    bias = None if layer.bias is None else as_array(layer.bias)
    joined_linear(builder, called, as_array(layer.weight), bias)


def joined_linear(builder: Builder, called: Called, weight: Any, bias: Any) -> None:
    """Put a matrix behind what it hears: one signal, or several side by side."""
    bias = builder.bias(called, bias)
    parts = builder.joined(called.sources[0])
    shape = called.sources[0].shape
    if parts is None and len(shape) > 1 and shape[-1] == weight.shape[1]:
        conv = Conv(weight[:, :, None, None], bias)
        if per_place(builder, called, conv, builder.placed(called.sources[0]), -1):
            return
    if shape != (weight.shape[1],):
        fits = int(np.prod(shape)) == weight.shape[1]
        hint = "; put a Flatten before it" if fits else ""
        builder.misfit(called, f"Linear takes {weight.shape[1]} inputs, gets {shape}{hint}")
        return
    builder.lies(called, None)
    names = []
    sources = called.sources[:1]
    places: list[Any] = [slice(None)]
    if parts is not None:
        sources, places = parts, side_by_side(called.sources[0])
        moved = called.sources[0].layout
        weight = weight if moved is None else columns_of(weight, moved, called.name)
    for number, (part, place) in enumerate(zip(sources, places, strict=True)):
        name = called.name if parts is None else f"{called.name}.{number}"
        layout, heard = builder.placed(part), builder.names(part)
        if len(layout.shape) > 1:
            heard = [builder.node(f"{name}.flat", Flatten(), heard)]
        columns = columns_of(weight[:, place], layout, called.name)
        names.append(builder.node(name, Dense(columns, bias if number == 0 else None), heard))
    builder.now[called] = names


def _batch_norm(builder: Builder, called: Called, norm: Any) -> None:
    name = type(norm).__name__
    if norm.running_mean is None:
        builder.refuse(called, f"{name} without running statistics cannot be folded")
        return
    factor, offset = batch_norm_factors(norm)
    layout = builder.layout(called.sources[0])
    shape = builder.shape(called.sources[0].shape)
    if not shape or shape[0] != len(factor):
        builder.misfit(called, f"{name}({len(factor)}) does not match its input {shape}")
        return
    if layout is not None:
        layout = builder.in_phases(called, layout)
    if layout is not None and (not layout.whole or (layout.mixed and builder.settles(called))):
        if not builder.settled(called):
            return
        layout = None
    rank = len(shape if layout is None else layout.seen)
    by_channel = [values.reshape(-1, *(1,) * (rank - 1)) for values in (factor, offset)]
    if layout is not None:
        by_channel = [layout.values(values) for values in by_channel]
    builder.put(called, called.name, Scale(by_channel[0], name))
    builder.put(called, f"{called.name}.shift", Shift(by_channel[1]))


def _average(builder: Builder, called: Called, layer: Any) -> None:
    name = type(layer).__name__
    dims = 1 if isinstance(layer, nn.AvgPool1d) else 2
    shape = called.sources[0].shape
    pool = AvgPool(
        kernel=pair(layer.kernel_size, 1),
        stride=pair(layer.stride, 1),
        padding=pair(layer.padding, 0),
        divisor=getattr(layer, "divisor_override", None) or 0,
    )
    uneven = layer.ceil_mode or (any(pool.padding) and not layer.count_include_pad)
    if uneven and pool.divisor != math.prod(pool.kernel):
        builder.refuse(called, f"{name} with ceil_mode or padding left out, and its own divisor")
    elif len(shape) != dims + 1:
        builder.misfit(
            called, f"{name} needs {'(C, H, W)' if dims == 2 else '(C, L)'}, got {shape}"
        )
    elif min(pool.output_shape(builder.shape(shape))) < 1:
        builder.misfit(called, f"{name}{pool.kernel} is larger than its input {shape}")
    elif not uneven:
        _pooled(builder, called, pool)
    else:
        axes = zip(builder.shape(shape)[1:], pool.kernel, pool.stride, pool.padding, strict=True)
        up, counted = layer.ceil_mode, layer.count_include_pad
        windows = [pooling_windows(*axis, up=up, counted=counted) for axis in axes]
        put_averages(builder, called, Averages(*windows))


def _pooled(builder: Builder, called: Called, pool: AvgPool) -> None:
    """Put a pooling whose windows are all of one size."""
    channels = builder.shape(called.sources[0].shape)[0]
    weight = np.full((channels, 1, *pool.kernel), 1.0 / pool.divisor)
    same = Conv(weight, None, pool.stride, pool.padding, groups=channels)
    put_maps(builder, called, same, pool)


def _adaptive(builder: Builder, called: Called, layer: Any) -> None:
    shape = builder.shape(called.sources[0].shape)
    one = isinstance(layer, nn.AdaptiveAvgPool1d)
    name = f"AdaptiveAvgPool{1 if one else 2}d"
    if len(shape) != 3:
        builder.misfit(called, f"{name} needs (C, H, W), got {shape}")
        return
    wanted = layer.output_size
    if not isinstance(wanted, tuple | list):
        wanted = (1, wanted) if one else (wanted, wanted)
    elif one:
        wanted = (1, *wanted)
    size = [s if w is None else w for w, s in zip(wanted, shape[1:], strict=True)]
    if any(s % w for w, s in zip(size, shape[1:], strict=True)):
        rows, columns = map(adaptive_windows, shape[1:], size)
        put_averages(builder, called, Averages(rows, columns))
        return
    kernel = (shape[1] // size[0], shape[2] // size[1])
    _pooled(builder, called, AvgPool(kernel=kernel, stride=kernel))


def _largest(builder: Builder, called: Called, layer: Any) -> None:
    """Take a pooling by maximum, which is a population of gates."""
    name = type(layer).__name__
    if isinstance(layer, nn.MaxPool1d):
        layer = nn.MaxPool2d(
            kernel_size=pair(layer.kernel_size, 1, flat=True),
            stride=pair(layer.stride, 1, flat=True),
            padding=pair(layer.padding, 0, flat=True),
            dilation=pair(layer.dilation, 1, flat=True),
            return_indices=layer.return_indices,
            ceil_mode=layer.ceil_mode,
        )
    shape = builder.shape(called.sources[0].shape)
    literal = builder.literal(called.sources[0])
    most = 1.0 if literal is not None else builder.most(called)
    try:
        if most > _MOST:
            raise ValueError(f"{name} {OF_CURRENTS}{_exchanged(called)}")
        stages: list[tuple[Connection, Any]] = [(w, 1.0) for w in max_pooling(layer, shape)]
    except ValueError as why:
        builder.refuse_part(called, str(why))
        return
    (window, least), *others = stages
    alone = window.convolutional and not others
    if literal == SPIKES and alone and not builder.settles(called):
        put_maps(builder, called, cast("Conv", window), name=f"to {called.name}")
        builder.gates(called, least, name, window.output_shape(shape))
        return
    if not builder.settled(called):
        return
    if literal is None:
        _largest_sum(builder, called, stages, int(most), name)
        return
    if literal != SPIKES:
        builder.now[called] = [builder.spikes_behind(builder.heard(called)[0])]
        stages[0] = unless_all(stages[0][0], shape)
    _windows(builder, called, stages, name, called.name)


def _windows(
    builder: Builder,
    called: Called,
    stages: Sequence[tuple[Connection, Any]],
    name: str,
    path: str,
) -> None:
    """Put the gates of a pooling by maximum."""
    shape = builder.shape(called.sources[0].shape)
    for number, (weights, least) in enumerate(stages):
        gates = path if number == len(stages) - 1 else f"{path}.windows"
        builder.put(called, f"to {gates}", weights)
        shape = weights.output_shape(shape)
        builder.gates(called, least, name, shape, gates)


def _largest_sum(
    builder: Builder,
    called: Called,
    stages: Sequence[tuple[Connection, Any]],
    most: int,
    name: str,
) -> None:
    """Take the largest of sums of spikes: how many of the numbers up to it are reached."""
    heard, shape = builder.heard(called), builder.shape(called.sources[0].shape)
    found = []
    for number in range(1, most + 1):
        path = called.name if number == 1 else f"{called.name}.{number}"
        builder.now[called] = heard
        if number > 1:
            builder.gates(called, number, "sums", shape, f"{path}.reached")
        _windows(builder, called, stages, f"{name} of sums", path)
        found += builder.now[called]
    builder.now[called] = found
    # What it gives is their sum.
    builder.modules.pop(found[0], None)


def _exchanged(called: Called) -> str:
    """Say how a pooling by maximum can be exchanged for one that averages, if it can."""
    before = called.sources[0].called
    maker = None if before is None else before.event.module
    if not isinstance(maker, nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
        return ""
    if isinstance(called.event.module, nn.MaxPool1d | nn.MaxPool2d):
        return ", or ask for --substitute maxpool=avg"
    if called.event.module is None and called.event.name in ("max_pool1d", "max_pool2d"):
        kind = f"MaxPool{called.event.name[-2:]}"
        return f", or call it as a layer, nn.{kind}, and ask for --substitute maxpool=avg"
    return ""


def _dropped(builder: Builder, called: Called, layer: Any) -> None:
    if not isinstance(layer, nn.Identity | nn.Flatten | nn.Unflatten):
        kind = builder.kind(layer).__name__
        builder.note(f"{called.name}: {kind} dropped (inactive after training)")
    builder.passed(called)


def rectified(builder: Builder, called: Called, layer: Any = None) -> None:
    """Let sums of spikes through, which are never below 0; refuse all else."""
    if builder.known(called) and all(builder.counts(called)):
        builder.passed(called)
    else:
        builder.refuse_part(called, unsupported_part("relu" if layer is None else "ReLU"))


DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)
LAYERS: Mapping[type, LayerReader] = {
    **dict.fromkeys((*DROPOUTS, nn.Identity), _dropped),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), conv_layer),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), transposed_layer),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), _batch_norm),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), _average),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), _adaptive),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d), _largest),
    nn.Linear: _linear,
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _dropped),
    **dict.fromkeys(REGRIDS, not_moved),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d), pad_layer),
    nn.ReLU: rectified,
}
"""How torch's layers are read, by class; subclasses are read as these."""

SUPPORTED_LAYERS = (
    "Linear, Conv1d/2d (zero padding, ZeroPad1d/2d before it), ConvTranspose1d/2d, "
    "BatchNorm1d/2d, AvgPool1d/2d, AdaptiveAvgPool1d/2d, MaxPool1d/2d and AdaptiveMaxPool2d of "
    "spikes, Upsample (nearest), PixelShuffle/Unshuffle, Flatten, Unflatten, Dropout, Identity"
)
"""The same for a message."""

FLAT = (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.MaxPool1d)
"""Layers of one dimension: a network that has any is read with a height of 1."""

TIMELESS = (
    *(nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.MaxPool1d, nn.MaxPool2d),
    nn.AdaptiveMaxPool2d,
)
"""Layers that take no time axis beside the batch."""

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
"""Layers of weights, whose subclasses may compute with others than they keep."""

LINEAR_LAYERS = (
    *(nn.Linear, nn.Flatten, nn.Unflatten, nn.Identity, *DROPOUTS),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
)
"""Layers that make of a sum what they make of its parts, summed, but for a constant."""
