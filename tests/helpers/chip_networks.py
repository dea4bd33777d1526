"""Fixed-point networks of given shapes, for tests that only count memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation, FixedProjection


def population(name: str, shape: tuple[int, ...], groups: int = 1) -> FixedPopulation:
    size = int(np.prod(shape))
    zero = np.zeros(size, np.int32)
    return FixedPopulation(
        name,
        shape,
        zero + 4095,
        zero,
        100 + np.arange(size) % groups,
        zero,
        zero,
        zero,
        zero,
        True,
        np.ones(size),
        np.zeros(size),
    )


def network(
    input_shape: tuple[int, ...], *layers: tuple[Any, FixedPopulation, int], chip: str = "loihi2"
) -> FixedPointNetwork:
    projections, pre = [], "input"
    for connection, post, bits in layers:
        projections.append(FixedProjection(f"to {post.name}", pre, post.name, connection, bits, 0))
        pre = post.name
    return FixedPointNetwork(
        input_shape,
        tuple(p for _, p, _ in layers),
        tuple(projections),
        load_target(chip).number_formats,
        "sum",
    )
