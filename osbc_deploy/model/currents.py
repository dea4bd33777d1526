"""The current a projection delivers in one step, in torch.

As the framework adds it up: sums of floating-point numbers, whose last bit depends on the order of
the terms, and that on the processor and the number of threads. Or exactly, rounded once at the
end: the same everywhere, and as close to what is meant as the precision allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.windows import AvgPool

if TYPE_CHECKING:
    import torch

__all__ = [
    "WHOLE",
    "Current",
    "exact_current",
    "framework_current",
    "in_full_precision",
    "mapped",
    "parts",
    "pooled",
    "untransformed",
]

Part: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"

WHOLE: tuple[slice, ...] = (slice(None),)
"""All channels together."""


@dataclass(frozen=True, eq=False)
class Current:
    """The current (n, *post shape) of the activity (n, *pre shape) that arrives in a step.

    Attributes
    ----------
    ready : callable
        What all channels need of the activity.
    parts : tuple of callable
        From that to the currents of some channels each.
    """

    ready: Part
    parts: tuple[Part, ...]

    def __call__(self, source: torch.Tensor) -> torch.Tensor:
        """Return the current of all channels."""
        import torch

        found = self.ready(source)
        return torch.cat([part(found) for part in self.parts], dim=1)


@contextmanager
def untransformed() -> Iterator[None]:
    """Keep torch from the library that transforms small convolutions, which is not exact."""
    import torch

    with torch.backends.nnpack.flags(enabled=False):
        yield


@contextmanager
def in_full_precision(device: torch.device) -> Iterator[None]:
    """Let an accelerator multiply as the CPU does: no TF32, and no transformed convolutions."""
    import torch

    if device.type == "cpu":
        yield
        return
    held = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = held


def framework_current(
    projection: Projection, dtype: torch.dtype, device: torch.device | None = None
) -> Current:
    """Return the current in the framework's own operations."""
    connection = projection.connection
    weight = _tensor(connection.weight, dtype, device)
    bias = None if connection.bias is None else _tensor(connection.bias, dtype, device)
    pool = projection.pool

    def current(source: torch.Tensor) -> torch.Tensor:
        if pool is not None:
            source = pooled(source, pool)
        return mapped(connection, source, weight, bias)

    return Current(lambda source: source, (current,))


def exact_current(
    projection: Projection,
    dtype: torch.dtype,
    peak: float = 1,
    device: torch.device | None = None,
    outputs: Sequence[slice] = WHOLE,
) -> Current:
    """Return the current as an exact sum that is rounded once.

    Weights are cut in parts (:func:`parts`) whose sums over any of the inputs are exact, pooled
    activity is summed before it is divided, and the bias is added at last.

    Parameters
    ----------
    projection : Projection
    dtype : torch.dtype
        float32 or float64.
    peak : int or float
        The largest size of an activity: 1 for spikes. Where it is a whole number, all activity is;
        where it is a float, activity is rounded to as many digits as single precision has.
    device : torch.device, optional
    outputs : sequence of slice
        Channels that are computed together; of a grouped convolution, those of whole groups.
    """
    if isinstance(peak, float):
        return _exact_of_real(projection, dtype, peak, device, outputs)
    connection, pool = projection.connection, projection.pool
    area = 1 if pool is None else math.prod(pool.kernel)
    found = parts(connection.weight, area * peak)
    bias = None
    if connection.bias is not None:
        bias = _tensor(connection.bias, dtype, device).reshape(-1, *(1,) * (found.ndim - 3))

    def summed(channels: slice) -> Part:
        share, heard = connection.share(channels)
        each = _each_part(share, found[:, channels], dtype, device)
        added = None if bias is None else bias[channels]

        def part(source: torch.Tensor) -> torch.Tensor:
            total = each(source[:, heard])
            if pool is not None and pool.divisor != 1:
                # A GPU multiplies with the reciprocal of a number; by a tensor it divides.
                total = total / total.new_tensor(pool.divisor)
            return total if added is None else total + added

        return part

    def ready(source: torch.Tensor) -> torch.Tensor:
        return source if pool is None else pooled(source, pool, divisor=1)

    return Current(ready, tuple(summed(channels) for channels in outputs))


def _each_part(
    connection: Connection, found: FloatArray, dtype: torch.dtype, device: torch.device | None
) -> Part:
    """Return the sum of what each part of the weights (parts, *shape) adds up to."""
    groups = connection.groups
    # The parts of a group's channels are next to each other: one convolution computes them all.
    by_group = found.reshape(len(found), groups, -1, *found.shape[2:]).swapaxes(0, 1)
    weight = _tensor(by_group.reshape(-1, *found.shape[2:]), dtype, device)

    def total(source: torch.Tensor) -> torch.Tensor:
        with untransformed():
            sums = mapped(connection, source, weight, None)
        if len(found) == 1:
            return sums
        each = sums.reshape(len(sums), groups, len(found), -1, *sums.shape[2:])
        return (each[:, :, 0] + each[:, :, 1]).reshape(len(sums), -1, *sums.shape[2:])

    return total


def _exact_of_real(
    projection: Projection,
    dtype: torch.dtype,
    peak: float,
    device: torch.device | None,
    outputs: Sequence[slice],
) -> Current:
    """Return the current of real values as an exact sum of multiples of one small unit."""
    import torch

    digits = np.finfo(np.float32).nmant + 1
    unit = _unit(peak, digits + 1)
    connection = projection.connection
    bias = None if connection.bias is None else _tensor(connection.bias, dtype, device)
    if bias is not None:
        bias = bias.reshape(-1, *(1,) * (len(projection.connection.weight.shape) - 2))
    plain = replace(
        projection,
        connection=replace(connection, weight=connection.weight.astype(np.float64), bias=None),
    )
    sums = exact_current(plain, torch.float64, 2**digits, device, outputs)

    def scaled(channels: slice, part: Part) -> Part:
        added = None if bias is None else bias[channels]

        def current(source: torch.Tensor) -> torch.Tensor:
            total = (part(source) * unit).to(dtype)
            return total if added is None else total + added

        return current

    return Current(
        lambda source: sums.ready(torch.round(source.double() / unit)),
        tuple(scaled(*each) for each in zip(outputs, sums.parts, strict=True)),
    )


def parts(weight: FloatArray, peak: int) -> FloatArray:
    """Cut weights into one or two parts (parts, *shape) whose sums have no rounding error.

    Each part is a multiple of a power of two, such that no sum of its products with whole numbers
    up to `peak` needs more digits than the format has, whatever the order. In single precision,
    where that leaves a part few digits, a second one holds what the first leaves out; what the two
    leave is far less than a sum's own rounding. In double precision the first leaves out no more
    than the last digit of the largest sum there can be.
    """
    digits = np.finfo(weight.dtype).nmant + 1
    wide = weight.astype(np.float64)
    fan_in = peak * max(1, weight[0].size)
    unit = _unit(peak * np.abs(wide).reshape(len(wide), -1).sum(axis=1).max(initial=0.0), digits)
    first = np.rint(wide / unit) * unit
    if digits > 24:
        return first[None].astype(weight.dtype)
    unit = _unit(fan_in * unit, digits)
    second = np.rint((wide - first) / unit) * unit
    if not second.any():
        return first[None].astype(weight.dtype)
    return np.stack([first, second]).astype(weight.dtype)


def _unit(total: float, digits: int) -> float:
    """Return the power of two of which a sum up to `total`, and its rounding, is a multiple."""
    return math.ldexp(1.0, math.frexp(max(total, 1e-30))[1] + 1 - digits)


def _tensor(array: FloatArray, dtype: torch.dtype, device: torch.device | None) -> torch.Tensor:
    import torch

    return torch.tensor(np.array(array), dtype=dtype, device=device)


def pooled(source: torch.Tensor, pool: AvgPool, divisor: int | None = None) -> torch.Tensor:
    """Return pooled activity (n, C, H, W), by its own divisor or another."""
    from torch.nn import functional

    return functional.avg_pool2d(
        source, pool.kernel, pool.stride, pool.padding, divisor_override=divisor or pool.divisor
    )


@singledispatch
def mapped(
    connection: Connection, source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the currents of a connection whose weights were replaced by `weight` and `bias`."""
    raise no_such_kind(connection, "the simulation in torch")


@mapped.register(Dense)
def _dense(
    _: Dense, source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    return functional.linear(source.flatten(1), weight, bias)


@mapped.register(Conv)
def _conv(
    conv: Conv, source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    from torch.nn import functional

    return functional.conv2d(
        source, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )
