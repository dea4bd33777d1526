"""Sums over the rows of some samples: what one process adds up, and what all of them come to.

Sums are of whole numbers and exact, so it makes no difference who adds up which samples, or in what
order; what rows are rounded to, and which of them are looked at, is settled for all samples before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray
from osbc_deploy.cluster import Part
from osbc_deploy.compress.exact import WholeSum
from osbc_deploy.compress.on_device import Products, Unfolding, filtered, on
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import CHUNK, Drawn, SampledRows
from osbc_deploy.compress.traces import membrane_trace
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster, part_of
from osbc_deploy.model.threads import batches_of
from osbc_deploy.model.windows import Shape

if TYPE_CHECKING:
    import torch

__all__ = ["AllRows", "DrawnRows", "Grid", "Shard", "Sums", "places_of", "summed"]


@dataclass(frozen=True, eq=False)
class Shard:
    """What arrives at each afferent in some samples.

    Attributes
    ----------
    part : Part
        Which samples they are.
    seen : tuple of ndarray or PackedSpikes, each (n, T, *pre shape)
    meant : like `seen`, or None
        The same in the float network, where that is other.
    """

    part: Part
    seen: tuple[Raster, ...]
    meant: tuple[Raster, ...] | None

    def __str__(self) -> str:
        return str(self.part)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of products of rows, exact.

    Attributes
    ----------
    used, held : list of WholeSum
        Of ``x x^T``, ``m x``, ``m m`` and, with a cross term, ``x y^T`` and ``m y``; of the rows
        held out, the first three, if there are such rows.
    rows, rows_held : int
    """

    used: list[WholeSum]
    held: list[WholeSum]
    rows: int
    rows_held: int = 0

    def __add__(self, other: Sums) -> Sums:
        """Return the sums of both; those of the first are changed."""
        for ours, theirs in ((self.used, other.used), (self.held, other.held)):
            for one, more in zip(ours, theirs, strict=True):
                one.merge(more)
        return Sums(self.used, self.held, self.rows + other.rows, self.rows_held + other.rows_held)


def places_of(projection: Projection, shape: Shape) -> int:
    """Return the rows of one time step: the places a kernel is applied at."""
    if projection.pool is not None:
        shape = projection.pool.output_shape(shape)
    return math.prod(projection.connection.output_shape(shape)[1:])


class Job(Protocol):
    """What is to be summed, settled for all samples."""

    def sums(self, shard: Shard, space: Workspace) -> Sums:
        """Return the sums of some samples; `space` is told of each that is done."""


def summed(
    job: Job,
    seen: Sequence[Raster],
    meant: Sequence[Raster] | None,
    space: Workspace,
    cost: float,
) -> Sums:
    """Return the sums of all samples, from other processes where that is worth it.

    Parameters
    ----------
    job : Job
    seen, meant : sequence of ndarray or PackedSpikes, each (n, T, *pre shape)
    space : Workspace
    cost : float
        Multiplications of all samples.
    """
    samples = len(seen[0])
    crew = space.crew_for(cost, samples)
    parts = Part.cut(samples, 1 if crew is None else crew.hands, "samples")
    shards = [
        Shard(
            part,
            tuple(part_of(raster, part.slice) for raster in seen),
            None if meant is None else tuple(part_of(raster, part.slice) for raster in meant),
        )
        for part in parts
    ]
    if crew is None:
        return job.sums(shards[0], space)
    total: Sums | None = None
    for number, found in crew.run(_elsewhere, (job, space.memory, space.device), shards):
        total = found if total is None else total + found
        space.on_rows(parts[number].stop - parts[number].start)
    assert total is not None  # noqa: S101 - there is a shard
    return total


def _elsewhere(common: tuple[Job, int, str | None], shard: Shard, threads: int) -> Sums:
    job, memory, device = common
    return job.sums(shard, Workspace(memory, threads, device=device))


@dataclass(frozen=True)
class Grid:
    """The fixed-point numbers that traces are rounded to.

    Attributes
    ----------
    unit : float
        Of a trace: a power of two.
    top : int
        The largest number of units that a row holds, poolings summed.
    frames : int
        Time steps whose rows may be multiplied at once.
    """

    unit: float
    top: int
    frames: int

    def round(self, traces: FloatArray) -> FloatArray:
        """Return traces in units."""
        return np.asarray(np.rint(traces / self.unit))


@dataclass(frozen=True, eq=False)
class AllRows:
    """All rows of samples, filtered a batch of samples at a time.

    Attributes
    ----------
    afferents : tuple of Projection
    dynamics : LinearDynamics or None
    ones : ndarray (T,)
        A constant input, filtered.
    grid : Grid
    batch : int
        Samples.
    """

    afferents: tuple[Projection, ...]
    dynamics: LinearDynamics | None
    ones: FloatArray
    grid: Grid
    batch: int

    def sums(self, shard: Shard, space: Workspace) -> Sums:
        """Return the sums of some samples; `space` is told of each that is done."""
        if space.device is not None:
            return self._sums_on(space.device, shard, space)
        grid, samples = self.grid, len(shard.seen[0])
        groups = self.afferents[0].connection.groups
        fan_in = sum(p.connection.fan_in for p in self.afferents)
        square, vector = (groups, fan_in, fan_in), (groups, fan_in)
        shapes = [square, vector, (1,)] + ([] if shard.meant is None else [square, vector])
        sums, rows = [WholeSum(shape) for shape in shapes], 0
        for part in batches_of(samples, self.batch):
            seen = self._filtered(shard.seen, part)
            meant = None if shard.meant is None else self._filtered(shard.meant, part)
            weight = np.tile(grid.round(self.ones), part.stop - part.start)
            for frames in _frame_batches(
                self.afferents, [s.shape for s in seen], space.memory, grid.frames
            ):
                x = _stacked(self.afferents, seen, frames)
                positions = x.shape[1] // (frames.stop - frames.start)
                m = np.repeat(weight[frames], positions)
                rows += x.shape[1]
                found = [x.swapaxes(1, 2) @ x, m @ x, m @ m]
                if meant is not None:
                    y = _stacked(self.afferents, meant, frames)
                    found += [x.swapaxes(1, 2) @ y, m @ y]
                for total, value in zip(sums, found, strict=True):
                    total.add(value, x.shape[1] * grid.top**2)
            space.on_rows(part.stop - part.start)
        return Sums(sums, [], rows)

    def _sums_on(self, device: str, shard: Shard, space: Workspace) -> Sums:
        import torch

        grid = self.grid
        unfolding = Unfolding(self.afferents, [r.shape[2:] for r in shard.seen], device)
        fan_in = sum(p.connection.fan_in for p in self.afferents)
        groups = self.afferents[0].connection.groups
        sums = Products(groups, fan_in, cross=shard.meant is not None)
        weight, rows = torch.from_numpy(grid.round(self.ones)).to(device), 0

        def frames_of(rasters: Sequence[Raster], part: slice) -> list[torch.Tensor]:
            traces = [filtered(self.dynamics, on(device, r, part), grid.unit) for r in rasters]
            return unfolding.pooled([trace.flatten(0, 1) for trace in traces])

        for part in batches_of(len(shard.seen[0]), self.batch):
            samples = part.stop - part.start
            seen = frames_of(shard.seen, part)
            meant = None if shard.meant is None else frames_of(shard.meant, part)
            ones = weight.repeat(samples)
            for frames in _frame_batches(
                self.afferents,
                [(samples, *raster.shape[1:]) for raster in shard.seen],
                space.memory,
                grid.frames,
            ):
                x = unfolding.rows(seen, frames)
                y = None if meant is None else unfolding.rows(meant, frames)
                m = ones[frames].repeat_interleave(x.shape[1] // (frames.stop - frames.start))
                sums.add(x, y, m, grid.top)
                rows += x.shape[1]
            space.on_rows(samples)
        return Sums(sums.finish(), [], rows)

    def _filtered(self, rasters: Sequence[Raster], part: slice) -> list[FloatArray]:
        return [self.grid.round(membrane_trace(self.dynamics, r[part])) for r in rasters]


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Some of the rows of convolutions, a sample at a time.

    Attributes
    ----------
    afferents : tuple of Projection
    dynamics : LinearDynamics or None
    unit : float
    places : int
    weight : ndarray (T,)
        See :class:`.SampledRows`.
    rows : ndarray of int (m,)
        Which of all samples' rows to look at, ascending.
    held : ndarray of bool (m,)
    most : int
        Of a sample.
    """

    afferents: tuple[Projection, ...]
    dynamics: LinearDynamics | None
    unit: float
    places: int
    weight: FloatArray
    rows: IntArray
    held: BoolArray
    most: int

    def sums(self, shard: Shard, space: Workspace) -> Sums:
        """Return the sums of some samples; `space` is told of each that is done."""
        cross = shard.meant is not None
        if space.device is not None:
            return self._sums_on(space.device, shard, space)
        sums = SampledRows(
            self.afferents, self.dynamics, self.unit, self.places, self.weight, cross=cross
        )

        def drawn(part: slice) -> Iterator[Drawn]:
            for n in range(part.start, part.stop):
                meant = None if shard.meant is None else [raster[n] for raster in shard.meant]
                yield [raster[n] for raster in shard.seen], meant, *self._of(shard, n)

        fan_in = sum(p.connection.groups * p.connection.fan_in for p in self.afferents)
        maps = sum(math.prod(raster.shape[2:]) for raster in shard.seen)
        samples = len(shard.seen[0])
        # Rows of some samples wait until they are as many as are multiplied at once.
        together = max(self.most, min(CHUNK, self.most * samples))
        each = 16 * (fan_in * together + maps)
        space.batches(lambda part: sums.add(drawn(part)), samples, each)
        return Sums(sums.used, sums.held, sums.rows["used"], sums.rows["held"])

    def _of(self, shard: Shard, n: int) -> tuple[IntArray, BoolArray]:
        """Return the rows of a sample to look at, and which of them are held out."""
        each = len(self.weight) * self.places
        first = (shard.part.start + n) * each
        of = slice(*np.searchsorted(self.rows, (first, first + each)))
        return self.rows[of] - first, self.held[of]

    def _sums_on(self, device: str, shard: Shard, space: Workspace) -> Sums:
        import torch

        unfolding = Unfolding(self.afferents, [r.shape[2:] for r in shard.seen], device)
        fan_in = sum(p.connection.fan_in for p in self.afferents)
        groups = self.afferents[0].connection.groups
        used = Products(groups, fan_in, cross=shard.meant is not None)
        kept = Products(groups, fan_in, cross=False)
        weight, most = torch.from_numpy(self.weight).to(device), int(np.abs(self.weight).max())
        counts = [0, 0]

        def maps(rasters: Sequence[Raster], n: int) -> list[torch.Tensor]:
            sent = unfolding.pooled([on(device, raster, n) for raster in rasters])
            return [filtered(self.dynamics, s[None], self.unit)[0] for s in sent]

        for n in range(len(shard.seen[0])):
            rows, held = self._of(shard, n)
            seen = maps(shard.seen, n)
            meant = None if shard.meant is None else maps(shard.meant, n)
            for number, (sums, of) in enumerate(((used, rows[~held]), (kept, rows[held]))):
                for part in batches_of(len(of), max(1, space.memory // (32 * groups * fan_in))):
                    t, place = (
                        torch.from_numpy(index).to(device)
                        for index in np.divmod(of[part], self.places)
                    )
                    x = unfolding.rows_at(seen, t, place)
                    y = None
                    if meant is not None and not number:
                        y = unfolding.rows_at(meant, t, place)
                    top = int(max(float(v.abs().max()) for v in (x, x if y is None else y)))
                    sums.add(x, y, weight[t], max(top, most))
                counts[number] += len(of)
            space.on_rows(1)
        return Sums(used.finish(), kept.finish(), *counts)


def _frame_batches(
    afferents: Sequence[Projection], shapes: Sequence[Shape], memory: int, most: int
) -> list[slice]:
    """Cut the time steps of a batch: `most` at once, their unfolded rows within memory."""
    frames = shapes[0][0] * shapes[0][1]
    wide = 0
    for projection, shape in zip(afferents, shapes, strict=True):
        connection = projection.connection
        wide += 8 * connection.groups * connection.fan_in * places_of(projection, shape[2:])
    # Two copies while stacking, and two sides of the cross term.
    step = max(1, min(most, memory // (4 * wide)))
    return batches_of(frames, step)


def _stacked(
    afferents: Sequence[Projection], traces: Sequence[FloatArray], frames: slice
) -> FloatArray:
    """Return the rows (groups, m, fan_in) that the weights of all afferents are multiplied with."""
    parts = [
        _inputs(p, trace.reshape(-1, *trace.shape[2:])[frames])
        for p, trace in zip(afferents, traces, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _inputs(projection: Projection, frames: FloatArray) -> FloatArray:
    """Return the rows (groups, m, fan_in) the weights are multiplied with, pooling undivided."""
    if projection.pool is not None:
        frames = projection.pool.sums(frames)
    return projection.connection.unfolded(frames)
