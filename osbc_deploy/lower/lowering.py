"""From codes to registers, in the arithmetic that the chip's formats name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from osbc_deploy.arrays import InputArray
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.arithmetics import arithmetic_of
from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.fixedpoint.engine import Activity
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.lower.scaling import Layer
from osbc_deploy.lower.timing import Timing
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.notation import Readout
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
    """

    network: FixedPointNetwork
    deviations: tuple[Deviation, ...]
    activity: dict[str, Activity]


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
) -> Layer:
    """Return the integers of a layer as they are before calibration looks for headroom.

    Its memory is that of the lowered layer.
    """
    made = arithmetic_of(formats).lowering.unmeasured
    layer: Layer = made(network, population, weights, times, formats)
    return layer
