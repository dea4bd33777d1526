"""Layers of maps that hear flat values seen as maps: each of them is a matrix.

A population is flat where a Linear leads to it, and a forward may see it as maps behind
(``nn.Unflatten``, ``view``). A chip shares the weights of a convolution among the places of maps
alone, so here each place has its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.frameworks.convolved import convolved_matrix
from osbc_deploy.frameworks.layout import columns_of, whole_of
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import AvgPool, Conv, Dense

if TYPE_CHECKING:
    from osbc_deploy.frameworks.builder import Builder
    from osbc_deploy.frameworks.flow import Called

__all__ = ["put_maps"]

_WEIGHT = 24
"""Bytes of a weight while it is put together."""


def put_maps(builder: Builder, called: Called, conv: Conv, pool: AvgPool | None = None) -> None:
    """Put a convolution behind what a call hears, or a pooling that is the same."""
    layout = builder.layout(called.sources[0])
    if layout is None or len(layout.shape) > 1 or builder.hears_input(called):
        if builder.settled(called):
            builder.put(called, called.name, conv if pool is None else pool)
        return
    shape = builder.shape(layout.seen)
    made = math.prod(conv.output_shape(shape))
    size = (max(made, math.prod(layout.shape)), made)
    Allowance(called.name, remedy="Use a smaller one").take(array_bytes(size, _WEIGHT))
    weight = columns_of(convolved_matrix(conv, np.eye(made), shape), layout)
    bias = None if conv.bias is None else np.repeat(conv.bias, made // len(conv.weight))
    builder.put(called, called.name, Dense(weight.astype(conv.weight.dtype), bias))
    if pool is not None:
        builder.fixed.add(called.name)
    seen = called.event.results[0].shape[len(called.sources[0].axes) :]
    builder.lies(called, whole_of((made,), seen))
    builder.note(
        f"{called.name}: hears flat neurons as {layout.seen}, so it becomes a matrix of "
        f"{weight.size:,} weights; of maps, all places share theirs"
    )
