r"""The Hessian of the membrane loss, from calibration spikes.

Changing the weights `w` of a neuron to `w'` changes the potential it would have without spiking
by :math:`M X (w - w')`, where `X (T, n_pre)` are its input spikes and `M (T, T)` is the causal
membrane kernel (Shi, Li, Ward-Cherrier 2025, arXiv 2506.03996). The squared change is quadratic
with the Hessian

.. math:: H = \mathrm{E}\,[2 (M X)^T (M X)].

Where the layers before are compressed already, the spikes `X'` that arrive are not those the
weights were trained for. The weights that bring the potential back,
:math:`\min_{w'} |M X' w' - M X w|^2`, need the cross term :math:`\mathrm{E}\,[2 (M X')^T (M X)]`
as well.

`M X` is not built as a matrix product: filtering the spikes with the neuron's own linear
dynamics is the same thing in T steps. Poolings and patches are linear and act after the filter.
With the identity in place of `M` this is the Hessian of the input current of Optimal Brain
Compression (Frantar, Singh, Alistarh 2022).

Filtered spikes are rounded to 20 bits or fewer, so all sums are of whole numbers, and they are
moved to 64-bit integers before they could need more digits than floating point has. Whatever
library adds them up, in whatever order, gets the same: everything that is decided from these
moments on is decided alike on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.exact import FLOAT_BITS, WHOLE_BITS, WholeSum, log2
from osbc_deploy.compress.moments import Moments, averaged
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import (
    BITS,
    HELD_OUT_ROWS,
    SampledRows,
    constants,
    drawn_rows,
)
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster, peak_of_raster
from osbc_deploy.model.windows import Shape

__all__ = [
    "batch_within",
    "groups_of",
    "membrane_kernel",
    "membrane_moments",
    "membrane_trace",
    "rows_of",
    "shares_kernel",
]

_BITS = 20
"""Of a trace, where there are few enough rows; half a unit is half a millionth of the largest trace
there can be. A billion rows leave 16."""


def membrane_kernel(dynamics: LinearDynamics, steps: int) -> FloatArray:
    """Return M (T, T): the potential at t caused by a unit input at s is ``M[t, s]``."""
    pulses = np.eye(steps)[:, :, None]
    return np.ascontiguousarray(membrane_trace(dynamics, pulses)[:, :, 0].T)


def membrane_trace(dynamics: LinearDynamics | None, spikes: FloatArray | SpikeArray) -> FloatArray:
    """Filter spikes (n, T, ...) with a neuron's linear dynamics: ``M X``.

    Neurons of one population share the filter; where their parameters differ, the mean is used
    (see :func:`shares_kernel`). None is the identity.
    """
    if dynamics is None:
        return spikes.astype(np.float64)
    decay_u, decay_v, gain = constants(dynamics)
    trace = np.empty(spikes.shape, np.float64)
    u = np.zeros(spikes.shape[:1] + spikes.shape[2:])
    v = np.zeros_like(u)
    for t in range(spikes.shape[1]):
        u = decay_u * u + spikes[:, t]
        v = decay_v * v + gain * u
        trace[:, t] = v
    return trace


def shares_kernel(dynamics: LinearDynamics) -> bool:
    """Tell whether all neurons of the population have the same membrane kernel."""
    parts = (dynamics.decay_u, dynamics.decay_v, dynamics.gain)
    return all(part is None or np.ptp(part) == 0 for part in parts)


def membrane_moments(
    afferents: Sequence[Projection],
    dynamics: LinearDynamics | None,
    spikes: Sequence[Raster],
    reference: Sequence[Raster] | None = None,
    *,
    wanted: int | None = None,
    batch_size: int = 16,
    space: Workspace | None = None,
) -> Moments:
    """Accumulate the moments of all weights into one population, a batch of samples at a time.

    Parameters
    ----------
    afferents : sequence of Projection
        The projections into the population; their inputs are stacked in this order.
    dynamics : LinearDynamics or None
        Of the postsynaptic neurons (OSBC); None for the input current (OBC).
    spikes : sequence of ndarray or PackedSpikes, each (n, T, *pre shape)
        Presynaptic spikes of each afferent (those of a recurrent one a step late).
    reference : like `spikes`, optional
        The same in the float network, for the cross term.
    wanted : int, optional
        Rows of convolutions to draw (:func:`.rows_wanted`); all, and to more digits, if None.
    batch_size : int
        Samples filtered at a time, at most.
    space : Workspace, optional
        Told the number of samples after each batch; its memory bounds the unfolded rows.

    Returns
    -------
    Moments
    """
    groups = groups_of(afferents)
    fan_in = sum(p.connection.fan_in for p in afferents)
    samples, steps = spikes[0].shape[:2]
    # A constant input at every step, seen through the membrane.
    ones = membrane_trace(dynamics, np.ones((1, steps)))[0]
    space = space or Workspace()
    if wanted is not None and afferents[0].connection.convolutional:
        places = _positions(afferents[0], spikes[0].shape[2:])
        return _sampled(afferents, dynamics, spikes, reference, ones, places, wanted, space)
    grid = _Grid.of(afferents, ones, spikes if reference is None else [*spikes, *reference])
    square, vector = (groups, fan_in, fan_in), (groups, fan_in)
    shapes = [square, vector, (1,)] + ([] if reference is None else [square, vector])
    sums = [WholeSum(shape) for shape in shapes]
    batch_size = batch_within(space.memory, steps, [s.shape[2:] for s in spikes], batch_size)
    rows = 0
    for start in range(0, samples, batch_size):
        part = slice(start, min(start + batch_size, samples))
        seen = [grid.round(membrane_trace(dynamics, s[part])) for s in spikes]
        meant = (
            None
            if reference is None
            else [grid.round(membrane_trace(dynamics, s[part])) for s in reference]
        )
        weight = np.tile(grid.round(ones), part.stop - start)
        for frames in _frame_batches(afferents, seen, space.memory, grid.frames):
            x = _stacked(afferents, seen, frames)
            positions = x.shape[1] // (frames.stop - frames.start)
            m = np.repeat(weight[frames], positions)
            rows += x.shape[1]
            found = [x.swapaxes(1, 2) @ x, m @ x, m @ m]
            if meant is not None:
                y = _stacked(afferents, meant, frames)
                found += [x.swapaxes(1, 2) @ y, m @ y]
            for total, value in zip(sums, found, strict=True):
                total.add(value, x.shape[1] * grid.top**2)
        space.on_rows(part.stop - start)
    return averaged(afferents, sums, (grid.unit, grid.unit), rows, rows)


def _sampled(
    afferents: Sequence[Projection],
    dynamics: LinearDynamics | None,
    spikes: Sequence[Raster],
    reference: Sequence[Raster] | None,
    ones: FloatArray,
    places: int,
    wanted: int,
    space: Workspace,
) -> Moments:
    samples, steps = spikes[0].shape[:2]
    each = steps * places
    rasters = spikes if reference is None else [*spikes, *reference]
    # Poolings are summed before they are filtered and rounded.
    unit = _unit_of(ones * _area(afferents), rasters, BITS)
    of_constant = _unit_of(ones, rasters, _BITS)
    weight, units = np.rint(ones / of_constant), (unit, of_constant)
    sums = SampledRows(afferents, dynamics, unit, places, weight, cross=reference is not None)
    rows = drawn_rows(samples * each, wanted)
    held = np.arange(len(rows)) % HELD_OUT_ROWS == HELD_OUT_ROWS - 1
    held &= wanted < samples * each

    def work(part: slice) -> None:
        for n in range(part.start, part.stop):
            of = slice(*np.searchsorted(rows, (n * each, (n + 1) * each)))
            meant = None if reference is None else [raster[n] for raster in reference]
            sums.add([raster[n] for raster in spikes], meant, rows[of] - n * each, held[of])

    fan_in = sum(p.connection.groups * p.connection.fan_in for p in afferents)
    maps = sum(math.prod(raster.shape[2:]) for raster in spikes)
    space.batches(work, samples, 16 * (fan_in * (len(rows) // samples + 1) + maps))
    used = averaged(afferents, sums.used, units, sums.rows["used"], samples * each)
    if not held.any():
        return used
    return replace(
        used,
        held=averaged(afferents, sums.held, units, sums.rows["held"], samples * each),
    )


@dataclass(frozen=True)
class _Grid:
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

    @classmethod
    def of(
        cls, afferents: Sequence[Projection], ones: FloatArray, rasters: Sequence[Raster]
    ) -> _Grid:
        """Return the finest grid whose sums stay exact."""
        area = _area(afferents)
        positions = max(
            _positions(p, s.shape[2:]) for p, s in zip(afferents, rasters, strict=False)
        )
        rows = positions * rasters[0].shape[0] * rasters[0].shape[1]
        bits = min(
            _BITS,
            (FLOAT_BITS - log2(positions)) // 2 - log2(area),
            (WHOLE_BITS - log2(rows)) // 2 - log2(area),
        )
        unit = _unit_of(ones, rasters, bits)
        top = area << bits
        return cls(unit, top, max(1, 2**FLOAT_BITS // (positions * top * top)))

    def round(self, traces: FloatArray) -> FloatArray:
        """Return traces in units."""
        return np.asarray(np.rint(traces / self.unit))


def _unit_of(ones: FloatArray, rasters: Sequence[Raster], bits: int) -> float:
    """Return the power of two of which the largest trace there can be has so many bits."""
    peaks = [peak_of_raster(raster) for raster in rasters]
    peak = max(peaks) if any(isinstance(p, float) for p in peaks) else max(1, *peaks)
    # All inputs active at every step make the largest.
    largest = float(np.abs(ones).max(initial=0.0)) * peak
    return math.ldexp(1.0, math.frexp(largest)[1] - bits) if largest > 0 else 1.0


def _area(afferents: Sequence[Projection]) -> int:
    return max(1 if p.pool is None else math.prod(p.pool.kernel) for p in afferents)


def batch_within(memory: int, steps: int, shapes: Sequence[Shape], most: int = 16) -> int:
    """Return how many samples to filter at a time, so that they take a quarter of the memory."""
    # Filtered spikes as float64, while they are and after; twice, for the float network's.
    each = sum(32 * steps * math.prod(shape) for shape in shapes)
    return max(1, min(most, memory // (4 * max(1, each))))


def rows_of(projection: Projection, raster_shape: Shape) -> int:
    """Return the rows that samples (n, T, *shape) make."""
    return math.prod(raster_shape[:2]) * _positions(projection, raster_shape[2:])


def _positions(projection: Projection, shape: Shape) -> int:
    """Return the rows of one time step: the places a kernel is applied at."""
    if projection.pool is not None:
        shape = projection.pool.output_shape(shape)
    return math.prod(projection.connection.output_shape(shape)[1:])


def groups_of(afferents: Sequence[Projection]) -> int:
    """Return the groups of outputs whose inputs are apart: those of a grouped convolution.

    Raises
    ------
    UnsupportedModelError
        When projections into one population share their weights differently.
    """
    found = {(p.connection.convolutional, p.connection.groups) for p in afferents}
    if len(found) > 1:
        raise UnsupportedModelError(
            f"{afferents[0].post}: convolutions of different groups, or a convolution and a dense "
            "map, end in one population",
            [p.name for p in afferents],
            "Give it projections of one kind.",
        )
    return found.pop()[1]


def _frame_batches(
    afferents: Sequence[Projection], traces: Sequence[FloatArray], memory: int, most: int
) -> Iterator[slice]:
    """Cut the time steps of a batch: `most` at once, their unfolded rows within memory."""
    frames = traces[0].shape[0] * traces[0].shape[1]
    wide = 0
    for projection, trace in zip(afferents, traces, strict=True):
        connection = projection.connection
        wide += 8 * connection.groups * connection.fan_in * _positions(projection, trace.shape[2:])
    # Two copies while stacking, and two sides of the cross term.
    step = max(1, min(most, memory // (4 * wide)))
    return (slice(start, min(start + step, frames)) for start in range(0, frames, step))


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
