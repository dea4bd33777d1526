"""Random gates for random networks: windows, masks that are repeated along axes, silence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedConv, FixedDense, FixedPopulation, FixedProjection
from osbc_deploy.lower.gates import Way, gate

__all__ = ["drawn_gates"]


def _pair(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def drawn_gates(
    rng: Any, name: str, pre: str, shape: Any, formats: NumberFormats
) -> tuple[list[str], list[FixedProjection], list[FixedPopulation]]:
    """Gates that a window of each channel excites and inhibits, or all that there is.

    Some fire when nothing arrives. Of some, sums along axes mask what was summed up, which reaches
    them through a relay.
    """
    if len(shape) == 3 and rng.random() < 0.5:
        return _masked(rng, name, pre, shape, formats)
    if len(shape) == 3:
        kernel = rng.integers(1, shape[1:], endpoint=True)
        signs = rng.choice([-1, 0, 1, 1], (shape[0], 1, *kernel))
        stride, padding = _pair(rng.integers(1, 3, 2)), _pair(kernel // 2)
        connection: FixedConv | FixedDense = FixedConv(signs, stride, padding, (1, 1), shape[0])
    else:
        signs = rng.choice([-1, 0, 1, 1], (rng.integers(1, 17), math.prod(shape)))
        connection = FixedDense(signs)
    excited, inhibited = (
        int(np.maximum(sign * signs, 0).reshape(len(signs), -1).sum(axis=1).max())
        for sign in (1, -1)
    )
    silent = rng.random() < 0.3
    least = int(
        rng.integers(-inhibited, 0, endpoint=True)
        if silent
        else rng.integers(1, max(1, excited), endpoint=True)
    )
    way = Way(f"{pre} to {name}", pre, connection)
    ways, gates = gate(name, connection.output_shape(shape), least, [way], formats)
    return ["gates"] + ["gates that fire on silence"] * silent, [*ways], [gates]


def _masked(
    rng: Any, name: str, pre: str, shape: Any, formats: NumberFormats
) -> tuple[list[str], list[FixedProjection], list[FixedPopulation]]:
    """Gates that are masked by others along some axes."""
    channels, *sides = shape
    one = [bool(o) for o in rng.integers(0, 2, 3)]
    rows, cols = (size if alone else 1 for size, alone in zip(sides, one[1:], strict=True))
    groups = 1 if one[0] else channels
    counted = FixedConv(
        np.ones((groups, channels // groups, rows, cols), int), (1, 1), (0, 0), (1, 1), groups
    )
    summed = f"{name} counted"
    most = rows * cols * channels // groups
    found, counts = gate(
        summed,
        counted.output_shape(shape),
        int(rng.integers(1, max(1, most // 3), endpoint=True)),
        [Way(f"{pre} to {summed}", pre, counted)],
        formats,
    )
    relay = f"{name} relay"
    same = np.ones((channels, 1, 1, 1), int)
    late, relays = gate(
        relay,
        shape,
        1,
        [Way(f"{pre} to {relay}", pre, FixedConv(same, (1, 1), (0, 0), (1, 1), channels))],
        formats,
    )
    sign, least = ((1, 2), (1, 1), (-1, 1), (-1, 0))[rng.integers(4)]
    window = sign * np.ones((channels, 1, rows, cols), int)
    ways, gates = gate(
        name,
        shape,
        least,
        [
            Way(f"{relay} to {name}", relay, FixedConv(same, (1, 1), (0, 0), (1, 1), channels)),
            Way(
                f"{summed} to {name}",
                summed,
                FixedConv(window, (1, 1), (rows - 1, cols - 1), (1, 1), groups),
            ),
        ],
        formats,
    )
    return ["gates", "masks that broadcast"], [*found, *late, *ways], [counts, relays, gates]
