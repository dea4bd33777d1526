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
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.compress.exact import FLOAT_BITS, WHOLE_BITS, log2
from osbc_deploy.compress.moments import Moments, averaged
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import BITS, HELD_OUT_ROWS, ROW_COST, drawn_rows
from osbc_deploy.compress.shards import AllRows, DrawnRows, Grid, places_of, summed
from osbc_deploy.compress.traces import membrane_trace
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.model.raster import Raster, peak_of_raster
from osbc_deploy.model.windows import Shape

__all__ = [
    "batch_within",
    "groups_of",
    "membrane_moments",
    "rows_of",
]

_BITS = 20
"""Of a trace, where there are few enough rows; half a unit is half a millionth of the largest trace
there can be. A billion rows leave 16."""


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
    steps = spikes[0].shape[1]
    # A constant input at every step, seen through the membrane.
    ones = membrane_trace(dynamics, np.ones((1, steps)))[0]
    space = space or Workspace()
    if wanted is not None and afferents[0].connection.convolutional:
        places = places_of(afferents[0], spikes[0].shape[2:])
        return _sampled(afferents, dynamics, spikes, reference, ones, places, wanted, space)
    rows = max(rows_of(p, s.shape) for p, s in zip(afferents, spikes, strict=True))
    rasters = spikes if reference is None else [*spikes, *reference]
    grid = _grid_of(afferents, ones, rasters)
    size = batch_within(space.memory, steps, [s.shape[2:] for s in spikes], batch_size)
    job = AllRows(tuple(afferents), dynamics, ones, grid, size)
    found = summed(job, spikes, reference, space, _cost(afferents, rows))
    return averaged(afferents, found.used, (grid.unit, grid.unit), found.rows, found.rows)


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
    every = samples * steps * places
    rasters = spikes if reference is None else [*spikes, *reference]
    # Poolings are summed before they are filtered and rounded.
    unit = _unit_of(ones * _area(afferents), rasters, BITS)
    of_constant = _unit_of(ones, rasters, _BITS)
    weight, units = np.rint(ones / of_constant), (unit, of_constant)
    rows = drawn_rows(every, wanted)
    held = np.arange(len(rows)) % HELD_OUT_ROWS == HELD_OUT_ROWS - 1
    held &= wanted < every
    job = DrawnRows(
        tuple(afferents), dynamics, unit, places, weight, rows, held, len(rows) // samples + 1
    )
    found = summed(job, spikes, reference, space, _cost(afferents, len(rows)))
    used = averaged(afferents, found.used, units, found.rows, every)
    if not held.any():
        return used
    return replace(used, held=averaged(afferents, found.held, units, found.rows_held, every))


def _cost(afferents: Sequence[Projection], rows: int) -> float:
    """Return the multiplications of rows: to unfold and filter them, and with each other."""
    fan_in = sum(p.connection.fan_in for p in afferents)
    return float(rows) * groups_of(afferents) * fan_in * (fan_in + ROW_COST)


def _grid_of(afferents: Sequence[Projection], ones: FloatArray, rasters: Sequence[Raster]) -> Grid:
    """Return the finest grid whose sums stay exact."""
    area = _area(afferents)
    positions = max(places_of(p, s.shape[2:]) for p, s in zip(afferents, rasters, strict=False))
    rows = positions * rasters[0].shape[0] * rasters[0].shape[1]
    bits = min(
        _BITS,
        (FLOAT_BITS - log2(positions)) // 2 - log2(area),
        (WHOLE_BITS - log2(rows)) // 2 - log2(area),
    )
    top = area << bits
    frames = max(1, 2**FLOAT_BITS // (positions * top * top))
    return Grid(_unit_of(ones, rasters, bits), top, frames)


def _unit_of(ones: FloatArray, rasters: Sequence[Raster], bits: int) -> float:
    """Return the power of two of which the largest trace there can be has this many bits."""
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
    return math.prod(raster_shape[:2]) * places_of(projection, raster_shape[2:])


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
