"""What a run of the engine keeps: rasters, states, and counts of what happened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from osbc_deploy.arrays import IntArray, SpikeArray
from osbc_deploy.errors import FidelityError
from osbc_deploy.fixedpoint.formats import NumberFormats

__all__ = ["Activity", "EngineRun", "Traces", "refuse_current"]


@dataclass(frozen=True, eq=False)
class Activity:
    """What the neurons of a population went through.

    Attributes
    ----------
    spikes, neuron_steps : int
    u_peak, v_peak : int
        Largest magnitudes, before wrapping and saturation.
    wraps, saturations : int
        Times a current wrapped or a potential was clipped.
    counts : ndarray of int (n,)
        Spikes of each neuron; empty before the first sample.
    """

    spikes: int = 0
    neuron_steps: int = 0
    u_peak: int = 0
    v_peak: int = 0
    wraps: int = 0
    saturations: int = 0
    counts: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.spikes + other.spikes,
            self.neuron_steps + other.neuron_steps,
            max(self.u_peak, other.u_peak),
            max(self.v_peak, other.v_peak),
            self.wraps + other.wraps,
            self.saturations + other.saturations,
            self.counts + other.counts if len(self.counts) else other.counts,
        )

    @property
    def rate(self) -> float:
        """Mean spikes per neuron and step."""
        return self.spikes / self.neuron_steps if self.neuron_steps else 0.0


@dataclass(frozen=True, eq=False)
class EngineRun:
    """What a run recorded.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of the populations asked for; a readout has none.
    u, v : dict of ndarray of int32 (n, T, size)
        Synaptic current and membrane potential after each step, of the populations asked for.
    output : ndarray of int32 (n, T, size)
        Spikes of the output population, or its potentials if it is a readout.
    activity : dict of Activity
        By population.
    """

    spikes: Mapping[str, SpikeArray]
    u: Mapping[str, IntArray]
    v: Mapping[str, IntArray]
    output: IntArray
    activity: Mapping[str, Activity]

    def fingerprint(self) -> str:
        """Return a SHA-256 of the output."""
        digest = hashlib.sha256(repr(self.output.shape).encode())
        digest.update(self.output.astype("<i4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Traces:
    """Arrays that some samples of a run are written to.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of the populations whose spikes are kept or given, and of an output that fires.
    u, v : dict of ndarray of int32 (n, T, size)
        Of the populations whose states are kept.
    given : frozenset of str
        Populations whose spikes are there already.
    """

    spikes: Mapping[str, SpikeArray]
    u: Mapping[str, IntArray]
    v: Mapping[str, IntArray]
    given: frozenset[str] = frozenset()

    def of(self, rows: slice) -> Traces:
        """Return the part for some of the samples."""
        spikes = {name: array[rows] for name, array in self.spikes.items()}
        u, v = ({name: array[rows] for name, array in kept.items()} for kept in (self.u, self.v))
        return Traces(spikes, u, v, self.given)

    def note(self, name: str, t: int, u: IntArray, v: IntArray) -> None:
        """Keep the states of one step where they are wanted."""
        if name in self.u:
            self.u[name][:, t] = u
        if name in self.v:
            self.v[name][:, t] = v


def refuse_current(name: str, peak: int, formats: NumberFormats) -> NoReturn:
    """Raise the FidelityError for a current that one wrap cannot bring back."""
    raise FidelityError(
        f"{name}: synaptic current reaches {peak}, one wrap of the {formats.state_bits}-bit "
        f"register brings back {2 * formats.state_limit}. The input drives the layer beyond the "
        "chip's range; calibrate on samples like it."
    )
