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
    "SOURCE",
    "Schedule",
    "from_lava",
    "lava_shape",
    "pieces",
    "to_lava",
    "trace_path",
]

INPUT = "input.npz"
OPTIONS = "options.json"
SOURCE = "source.npy"
"""The input, laid out as Lava has it."""
PREFIX = "osbc-lava-"
"""What the name of a temporary folder starts with; the worker removes no other folder."""

_AT_ONCE = 12
"""Populations and projections above which a network is run in pieces (measured)."""

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

        Streaming needs neurons that start at 0, and nothing on its way when a sample ends: every
        projection delivers in the step, of own time, in which it was sent.
        """
        depth = max(network.depth.values())
        direct = all(
            delay == -network.latency(p)
            for p in network.projections
            for delay in (p.connection.shortest_delay, p.connection.longest_delay)
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


def pieces(network: FixedPointNetwork, schedule: Schedule) -> tuple[tuple[str, ...], ...]:
    """Cut a network into populations to run one after the other, in network order.

    Lava starts a process for each population and projection, and those that wait poll: a hundred
    of them take most of the machine from the few that have work. A later piece hears what Lava
    recorded of the earlier ones, step for step, so it computes what it would beside them. Only a
    streaming network is cut: none of its projections leads back, and nothing sets its states from
    outside.
    """
    if not schedule.streaming:
        return (tuple(p.name for p in network.populations),)
    found: list[list[str]] = [[]]
    filled = 0
    for population in network.populations:
        size = 1 + len(network.afferents(population.name))
        if found[-1] and filled + size > _AT_ONCE:
            found.append([])
            filled = 0
        found[-1].append(population.name)
        filled += size
    return tuple(part for piece in found for part in _connected(network, piece))


def _connected(network: FixedPointNetwork, piece: list[str]) -> list[tuple[str, ...]]:
    """Split a piece where nothing connects its populations: Lava runs what it can reach."""
    groups: list[tuple[set[tuple[str, int]], list[str]]] = []
    for name in piece:
        # What is shown later has a source of its own.
        heard = {(p.pre, network.shown_late(p)) for p in network.afferents(name)}
        touched, members = {(name, 0), *heard}, [name]
        for group in [group for group in groups if group[0] & touched]:
            groups.remove(group)
            touched |= group[0]
            members = [*group[1], *members]
        groups.append((touched, members))
    return [tuple(members) for _, members in groups]
