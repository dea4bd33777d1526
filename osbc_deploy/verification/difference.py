"""How one population differs between two stages, summed over samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.verification.metrics import first_divergence, squared_error, van_rossum
from osbc_deploy.verification.stages import Record

__all__ = ["Difference", "Firing", "difference", "firing"]


@dataclass(frozen=True)
class Difference:
    """A population in a reference stage and in another; sums, so that parts can be added.

    Attributes
    ----------
    neuron_steps, mismatches : int
        Spike-or-not decisions, and those that differ; 0 for a readout.
    first : tuple of int
        For each sample the first step with a mismatch, -1 where there is none.
    distance, silence : float
        Squared van Rossum distances to the reference, and of the reference from silence.
    error, signal : float
        Squares of the difference of potentials, and of the reference's potential from rest, where
        neither of the two fires in the step: what a reset does to a potential is not an error.
    """

    neuron_steps: int = 0
    mismatches: int = 0
    first: tuple[int, ...] = ()
    distance: float = 0.0
    silence: float = 0.0
    error: float = 0.0
    signal: float = 0.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.neuron_steps + other.neuron_steps,
            self.mismatches + other.mismatches,
            self.first + other.first,
            self.distance + other.distance,
            self.silence + other.silence,
            self.error + other.error,
            self.signal + other.signal,
        )

    @property
    def mismatch(self) -> float | None:
        """Share of spike-or-not decisions that differ; None for a readout."""
        return self.mismatches / self.neuron_steps if self.neuron_steps else None

    @property
    def earliest(self) -> int | None:
        """First step with a mismatch in any sample; None where there is none."""
        found = [step for step in self.first if step >= 0]
        return min(found) if found else None

    @property
    def median(self) -> float | None:
        """Median over all samples of the first step with a mismatch; None: most have none."""
        ordered = sorted(math.inf if step < 0 else float(step) for step in self.first)
        if not ordered:
            return None
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        return None if math.isinf(middle) else middle

    @property
    def van_rossum(self) -> float | None:
        """Distance of all trains together over that of the reference from silence."""
        return math.sqrt(self.distance / self.silence) if self.silence > 0 else None

    @property
    def membrane(self) -> float | None:
        """Relative RMS error of the potential; None where the reference never leaves rest."""
        return math.sqrt(self.error / self.signal) if self.signal > 0 else None


def difference(
    reference: Record, other: Record, population: str, rest: FloatArray, tau: float
) -> Difference:
    """Compare a population in two records of the same samples.

    Parameters
    ----------
    reference, other : Record
    population : str
    rest : ndarray (size,)
        Potential that the error is relative to a distance from: where a reset leads.
    tau : float
        Time constant of the van Rossum distance, in steps.
    """
    v, v_other = reference.v[population], other.v[population]
    if population not in reference.spikes:
        error, signal = squared_error(v, v_other, rest)
        return Difference(error=error, signal=signal)
    a, b = reference.spikes[population], other.spikes[population]
    error, signal = squared_error(v, v_other, rest, (a | b) == 0)
    return Difference(
        neuron_steps=a.size,
        mismatches=int(np.count_nonzero(a != b)),
        first=tuple(int(step) for step in first_divergence(a, b)),
        distance=float(van_rossum(a, b, tau).sum()),
        silence=float(van_rossum(a, None, tau).sum()),
        error=error,
        signal=signal,
    )


@dataclass(frozen=True, eq=False)
class Firing:
    """How much the neurons of a population fire.

    Attributes
    ----------
    counts : ndarray of int (size,)
        Spikes of each neuron.
    steps : int
        Steps of all samples together.
    """

    counts: IntArray
    steps: int

    def __add__(self, other: Firing) -> Firing:
        return Firing(self.counts + other.counts, self.steps + other.steps)

    @property
    def rate(self) -> float:
        """Mean spikes per neuron and step."""
        return float(self.counts.mean() / self.steps)

    @property
    def silent(self) -> int:
        """Neurons that never fired."""
        return int(np.count_nonzero(self.counts == 0))

    @property
    def saturated(self) -> int:
        """Neurons that fired in every step."""
        return int(np.count_nonzero(self.counts == self.steps))


def firing(record: Record, population: str) -> Firing:
    """Count the spikes of a population's neurons."""
    raster = record.spikes[population]
    counts = raster.sum(axis=(0, 1), dtype=np.int64)
    return Firing(counts, raster.shape[0] * raster.shape[1])
