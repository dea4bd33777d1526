"""Moments from some of the rows a convolution's weights are applied to, where all are too many.

A convolution is applied at thousands of places in every step of every sample, and what it sees
there is much alike. A least-squares solution of n numbers from R rows loses n / R more than the one
from all of them, so a few hundred rows for every input say what there is to say.

Rows come in the order of samples, steps and places. They are cut into runs of equal length, and one
row is drawn from each, so every sample, step and part of the map has its share; the draw is seeded.
Every fifth row drawn is held out: no solution sees it, and it tells what a solution loses on rows
that it was not made for.

Only the rows drawn are unfolded. They are rounded to few enough digits that their products are
exact in single precision; those are added up in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, SpikeArray
from osbc_deploy.compress.exact import WholeSum
from osbc_deploy.jit import compiled
from osbc_deploy.model.graph import Projection
from osbc_deploy.model.neurons import LinearDynamics

__all__ = [
    "BITS",
    "CHUNK",
    "HELD_OUT_ROWS",
    "ROWS_PER_INPUT",
    "ROW_COST",
    "SampledRows",
    "advance",
    "constants",
    "drawn_rows",
    "rows_wanted",
]

ROWS_PER_INPUT = 250
"""Rows for each input of a neuron; their solutions lose 0.4 % more than those of all rows."""

_FEW = 3e10
"""Multiplications of layers small enough for more digits than :data:`BITS`: some seconds."""

_EASY = 1e11
"""Multiplications that are done whatever they are for: some seconds. Rows of few inputs are mostly
silent: of 576,000 rows with 144 inputs, 300,000 lost 0.6 to 1.1 % more than all (N-MNIST)."""

ROW_COST = 400
"""Multiplications that it takes to unfold one number of a row."""

HELD_OUT_ROWS = 5
"""One row of this many is held out."""

BITS = 9
"""Of a trace. What rounding adds to the diagonal is a hundredth of a hundredth of it or less, where
damping adds 3 %."""

_EXACT = 2.0**24
"""Whole numbers up to here are exact in single precision."""

CHUNK = 1024
"""Rows multiplied at once, where their squares do not add up to more than that."""

_SEED = 20260101


def rows_wanted(groups: int, fan_in: int, rows: int, per_input: int) -> int | None:
    """Return how many of a layer's rows to draw, those held out among them.

    None where all are multiplied so soon that they need not be rounded to fewer digits either.
    """
    each = groups * fan_in * (fan_in + ROW_COST)
    if rows * each <= _FEW:
        return None
    least = per_input * fan_in * HELD_OUT_ROWS // (HELD_OUT_ROWS - 1)
    return min(rows, max(least, int(_EASY / each)))


def drawn_rows(rows: int, wanted: int) -> IntArray:
    """Return which of `rows` rows are looked at: one of each of `wanted` runs of equal length.

    A run may end within a row, which two runs can draw then: so every row is as likely as any
    other. Runs of whole rows would be of two lengths in turn, and maps as wide as that turn would
    have columns that are seen more often.
    """
    if wanted >= rows:
        return np.arange(rows)
    share = np.random.Generator(np.random.PCG64(_SEED)).random(wanted)
    found = ((np.arange(wanted) + share) * (rows / wanted)).astype(np.int64)
    return np.minimum(found, rows - 1)


def constants(dynamics: LinearDynamics | None) -> tuple[float, float, float]:
    """Return decays of current and potential, and gain, of all neurons; means where they differ."""
    if dynamics is None:
        return 0.0, 0.0, 1.0
    decay_u = 0.0 if dynamics.decay_u is None else float(np.mean(dynamics.decay_u))
    return decay_u, float(np.mean(dynamics.decay_v)), float(np.mean(dynamics.gain))


@compiled
def advance(u: Any, v: Any, spikes: Any, decay_u: float, decay_v: float, gain: float) -> None:
    """Take currents and potentials (n,) one step on."""
    for i in range(len(u)):
        u[i] = decay_u * u[i] + spikes[i]
        v[i] = decay_v * v[i] + gain * u[i]


Drawn: TypeAlias = tuple[Sequence[SpikeArray], "Sequence[SpikeArray] | None", IntArray, BoolArray]
"""Of a sample: what arrives at each afferent (T, *pre shape), and in the float network if that is
other; which rows to look at, ascending, ``step * places + place``; which of them are held out."""

_Rows: TypeAlias = tuple[FloatArray, "FloatArray | None", FloatArray]
"""Rows (groups, m, fan_in), those of the float network, and the answer to a constant (m,)."""


class SampledRows:
    """Sums over the rows of some samples, of those drawn and of those held out.

    Parameters
    ----------
    afferents : sequence of Projection
    dynamics : LinearDynamics or None
    unit : float
        What traces are rounded to: a power of two.
    places : int
        Rows of one time step.
    weight : ndarray (T,)
        The filter's answer to a constant 1, as whole numbers of a unit of its own.
    cross : bool
        Whether there are two kinds of spikes.
    """

    def __init__(
        self,
        afferents: Sequence[Projection],
        dynamics: LinearDynamics | None,
        unit: float,
        places: int,
        weight: FloatArray,
        *,
        cross: bool,
    ) -> None:
        self._afferents = afferents
        self._constants = constants(dynamics)
        self._unit, self._places, self._weight = unit, places, weight
        groups = afferents[0].connection.groups
        fan_in = sum(p.connection.fan_in for p in afferents)
        square, vector = (groups, fan_in, fan_in), (groups, fan_in)
        plain = [square, vector, (1,)]
        self.used = [WholeSum(s) for s in plain + ([square, vector] if cross else [])]
        self.held = [WholeSum(s) for s in plain]
        self.rows = {"used": 0, "held": 0}
        self._lock = Lock()

    def add(self, samples: Iterable[Drawn]) -> None:
        """Add rows of some samples, many at once: a product is as large as the Hessian."""
        waiting: dict[str, list[_Rows]] = {"used": [], "held": []}
        for seen, meant, rows, held in samples:
            steps, places = np.divmod(rows, self._places)
            x = self._unfolded(seen, steps, places)
            y = None if meant is None else self._unfolded(meant, steps, places)
            for name, part in (("used", ~held), ("held", held)):
                other = None if y is None or name == "held" else y[:, part]
                waiting[name].append((x[:, part], other, self._weight[steps[part]]))
                if sum(len(m) for _, _, m in waiting[name]) >= CHUNK:
                    self._sum(name, waiting.pop(name))
                    waiting[name] = []
        for name, left in waiting.items():
            self._sum(name, left)

    def _sum(self, name: str, parts: Sequence[_Rows]) -> None:
        """Add rows to the sums of a name."""
        if not parts:
            return
        sums = self.used if name == "used" else self.held
        x = _beside([x for x, _, _ in parts])
        y = None if parts[0][1] is None else _beside([y for _, y, _ in parts if y is not None])
        m = np.concatenate([m for _, _, m in parts])
        for start in range(0, len(m), CHUNK):
            few = slice(start, start + CHUNK)
            self._multiply(sums, x[:, few], None if y is None else y[:, few], m[few])
        with self._lock:
            self.rows[name] += len(m)

    def _unfolded(
        self, spikes: Sequence[SpikeArray], steps: IntArray, places: IntArray
    ) -> FloatArray:
        """Return rows (groups, m, fan_in) in units, as whole numbers in single precision."""
        parts = []
        for projection, raster in zip(self._afferents, spikes, strict=True):
            connection = projection.connection
            first = _pooled(projection, raster[0])
            u, v = np.zeros(first.size), np.zeros(first.size)
            found = np.empty((connection.groups, len(steps), connection.fan_in), np.float32)
            ends = np.searchsorted(steps, np.arange(len(raster) + 1))
            for t, frame in enumerate(raster):
                advance(u, v, _pooled(projection, frame).reshape(-1), *self._constants)
                part = slice(ends[t], ends[t + 1])
                if part.stop > part.start:
                    trace = connection.unfolded_at(v.reshape(first.shape), places[part])
                    trace *= 1.0 / self._unit
                    found[:, part] = np.rint(trace, out=trace)
            parts.append(found)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _multiply(
        self, sums: Sequence[WholeSum], x: FloatArray, y: FloatArray | None, m: FloatArray
    ) -> None:
        """Add products of rows. No partial sum is larger than the largest sum of squares."""
        squares = max(
            float(np.einsum("gmi,gmi->gi", rows, rows, dtype=np.float64).max(initial=0.0))
            for rows in (x, y)
            if rows is not None
        )
        if squares > _EXACT and x.shape[1] > 1:
            half = x.shape[1] // 2
            for part in (slice(0, half), slice(half, None)):
                self._multiply(sums, x[:, part], None if y is None else y[:, part], m[part])
            return
        found = [x.swapaxes(1, 2) @ x, m @ x, m @ m]
        if y is not None:
            found += [x.swapaxes(1, 2) @ y, m @ y]
        with self._lock:
            for total, value in zip(sums, found, strict=True):
                total.add(value, int(max(squares, float(m @ m))))


def _beside(parts: Sequence[FloatArray]) -> FloatArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _pooled(projection: Projection, frame: SpikeArray) -> Any:
    """Return a frame of spikes with poolings summed."""
    if projection.pool is None:
        return frame
    small = frame.dtype == np.uint8
    small = small and int(frame.max(initial=0)) * math.prod(projection.pool.kernel) < 256
    return projection.pool.sums(frame if small else frame.astype(np.float64))
