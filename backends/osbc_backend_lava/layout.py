"""What parent and worker agree on: files, the order of neurons, and which step is whose.

A projection delivers one step later, so a population runs its depth (steps) behind the input, and
its rows of a trace are read that much later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation

__all__ = [
    "INPUT",
    "OPTIONS",
    "PREFIX",
    "Schedule",
    "from_lava",
    "lava_shape",
    "to_lava",
    "trace_path",
]

INPUT = "input.npz"
OPTIONS = "options.json"
PREFIX = "osbc-lava-"
"""What the name of a temporary folder starts with; the worker removes no other folder."""

Array = NDArray[Any]


def trace_path(folder: Path, number: int, name: str) -> Path:
    """Return the file for trace `name` ("s", "u" or "v") of population `number`."""
    return folder / f"{name}{number}.npy"


def lava_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how Lava has a population of `shape`: (C, H, W) as (W, H, C)."""
    return shape[::-1] if len(shape) == 3 else shape


def to_lava(values: Array, shape: tuple[int, ...]) -> Array:
    """Lay out values (..., size) of a population of `shape` as Lava has them."""
    values = values.reshape(*values.shape[:-1], *shape)
    return values.swapaxes(-1, -3) if len(shape) == 3 else values


def from_lava(values: Array, shape: tuple[int, ...]) -> Array:
    """Undo :func:`to_lava`: return values (..., size) in the population's own order."""
    ordered = values.swapaxes(-1, -3) if len(shape) == 3 else values
    return np.ascontiguousarray(ordered).reshape(*values.shape[: -len(shape)], -1)


@dataclass(frozen=True)
class Schedule:
    """How samples follow each other in one run.

    Attributes
    ----------
    streaming : bool
        Samples follow each other directly, and every population resets itself when the next one
        reaches it. Otherwise a sample is followed by silence, and states are set from outside.
    period : int
        Steps from the start of a sample to the start of the next.
    steps : int
        Steps of a sample.
    depth : int
        Steps by which the last population runs behind.
    """

    streaming: bool
    period: int
    steps: int
    depth: int

    @classmethod
    def of(cls, network: FixedPointNetwork, steps: int) -> Schedule:
        """Return the schedule for samples of so many steps.

        Streaming needs neurons that start at 0, and nothing on its way when a sample ends.
        """
        depth = max(network.depth.values())
        direct = all(
            network.latency(p) == 0 and p.connection.longest_delay == 0 for p in network.projections
        )
        rest = all(
            not (p.u_init.any() or p.v_init.any() or p.reset_interval) for p in network.populations
        )
        if direct and rest:
            return cls(True, steps, steps, depth)
        # Timed resets count Lava's own steps, so a sample starts at a multiple of all intervals.
        common = math.lcm(*(p.reset_interval or 1 for p in network.populations))
        return cls(False, -(-(steps + depth) // common) * common, steps, depth)

    def total(self, samples: int) -> int:
        """Return the steps of a whole run."""
        return samples * self.period + self.depth

    def finished(self, steps: int) -> int:
        """Return how many samples the last population has answered after so many steps."""
        return max(0, (steps - self.depth) // self.period)

    def rows(self, trace: Array, population: FixedPopulation, depth: int, samples: int) -> Array:
        """Return what a population did in its own time, (n, T, size), from its trace."""
        own = trace[depth : depth + samples * self.period]
        own = own.reshape(samples, self.period, *own.shape[1:])[:, : self.steps]
        return from_lava(own, population.shape)
