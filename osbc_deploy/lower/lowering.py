"""From codes to registers, in the arithmetic that the chip's formats name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from osbc_deploy.arrays import InputArray, IntArray
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.arithmetics import arithmetic_of
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import Activity
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.lower.scaling import LoweredLayer
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.options.notation import Readout
from osbc_deploy.progress import SILENT, Progress

__all__ = ["HEADROOM", "Lowered", "lower", "unmeasured"]

HEADROOM = 1.5
"""Registers must hold this many times the largest value that calibration reaches."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """The result of lowering.

    Attributes
    ----------
    network : FixedPointNetwork
    deviations : tuple of Deviation
        Everything that was clipped, saturated or stored wider than asked.
    activity : dict of Activity
        Of every population on the calibration samples.
    before : FixedPointNetwork or None
        With all neurons in, where some were left out; see :mod:`.unheard`.
    kept : dict of ndarray of int
        The neurons of a population that stayed, by their places in the whole one; populations that
        lost none are left out.
    """

    network: FixedPointNetwork
    deviations: tuple[Deviation, ...]
    activity: dict[str, Activity]
    before: FixedPointNetwork | None = None
    kept: Mapping[str, IntArray] = field(default_factory=dict)

    @property
    def whole(self) -> FixedPointNetwork:
        """The network with all neurons in, of which those that stayed fire what they fire here."""
        return self.before or self.network

    @property
    def left_out(self) -> dict[str, int]:
        """How many neurons a population lost; those that lost none are left out."""
        return {
            p.name: p.size - len(self.kept[p.name])
            for p in self.whole.populations
            if p.name in self.kept
        }

    def of_kept(self, activity: Mapping[str, Activity]) -> dict[str, Activity]:
        """Return what the neurons that stayed went through, given that of all.

        Peaks and overflows stay those of all.
        """
        return {
            name: _restricted(seen, self.kept[name]) if name in self.kept else seen
            for name, seen in activity.items()
        }


def _restricted(seen: Activity, kept: IntArray) -> Activity:
    if not len(seen.counts):
        return seen
    steps = seen.neuron_steps // len(seen.counts) * len(kept)
    counts = seen.counts[kept]
    return replace(seen, spikes=int(counts.sum()), neuron_steps=steps, counts=counts)


def lower(
    compressed: CompressedNetwork,
    calibration: InputArray,
    formats: NumberFormats,
    *,
    input: InputFormat | None = None,  # noqa: A002 - as a network calls it
    counted: Collection[str] = (),
    readout: Readout = "sum",
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> Lowered:
    """Turn a compressed network into integers.

    Parameters
    ----------
    compressed : CompressedNetwork
    calibration : ndarray (n, T, *input_shape)
        Samples whose peaks must fit the registers with headroom.
    formats : NumberFormats
        The chip's registers, whose arithmetic decides how.
    input : InputFormat, optional
        What the input carries, of which the scale of real values is searched; what the calibration
        samples need by default.
    counted : collection of str
        Projections whose poolings gates count, beside those that cannot be merged; see
        :func:`osbc_deploy.chip.pooling.counted_poolings`.
    readout : {"sum", "last", "max", "vote:N"}
        How the output's activity over time becomes a class.

    Raises
    ------
    ChipLimitError
        When neurons need a feature the chip lacks, or projections cannot deliver in time, all of
        them listed.
    """
    done: Lowered = arithmetic_of(formats).lowering.lower(
        compressed,
        calibration,
        formats,
        input=input,
        counted=counted,
        readout=readout,
        batch_size=batch_size,
        progress=progress,
    )
    return done


def unmeasured(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    times: Timing,
    formats: NumberFormats,
) -> LoweredLayer:
    """Return the integers of a layer as they are before calibration looks for headroom.

    Its memory is that of the lowered layer.
    """
    made = arithmetic_of(formats).lowering.unmeasured
    layer: LoweredLayer = made(network, population, weights, times, formats)
    return layer
