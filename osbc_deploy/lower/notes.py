"""What becomes otherwise on chips whose neurons fire several times a step, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, SpikeArray
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.record import Activity
from osbc_deploy.model.graph import Population

__all__ = ["said_of_firing", "said_of_resets", "said_of_rounding", "said_of_widths"]

_COARSE = 0.05
"""Relative rounding of a register from which it is reported."""


def said_of_firing(fired: SpikeArray, seen: Activity) -> Iterator[str]:
    """Say of spikes (n, T, size) on the calibration samples what no float neuron does."""
    several = int(np.count_nonzero(fired > 1))
    if several:
        firing = int(np.count_nonzero(fired))
        yield (
            f"fires up to {int(fired.max())} times in one step: in {several:,} of the {firing:,} "
            "steps of calibration in which a neuron fires; the float neurons fire once"
        )
    if not seen.spikes:
        yield "no neuron fires in fixed point on the calibration samples"


def said_of_resets(population: Population) -> Iterator[str]:
    """Say where a float neuron's reset takes something else away than the threshold at once."""
    rule = population.neuron.reset_rule()
    threshold = population.neuron.parameters["v_threshold"].astype(np.float64)
    if rule.amount is not None and rule.kind == "subtract":
        share = rule.amount / threshold
        if (np.abs(share - 1.0) > 1e-6).any():
            low, high = float(share.min()), float(share.max())
            range_ = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
            yield (
                f"a spike takes the threshold away at once; the float network takes {range_} times "
                "the threshold, counted at that time (snnTorch's reset_delay)"
            )
    if rule.differs:
        yield rule.differs


def said_of_rounding(
    registers: Sequence[tuple[str, FloatArray, IntArray]],
) -> Iterator[str]:
    """Say which registers, each wanted and held, lost much to rounding."""
    for what, wanted, held in registers:
        lost, size = (math.sqrt(float(np.mean(x**2))) for x in (wanted - held, wanted))
        if lost > _COARSE * size:
            yield (
                f"{what} is coarse: {wanted.min():.3g} to {wanted.max():.3g} is wanted, whole "
                f"numbers to {held.max()} are held; {min(1.0, lost / size):.0%} is lost to rounding"
            )


def said_of_widths(layer: Sequence[CompressedProjection], stored: int) -> Iterator[Deviation]:
    """Say which weights take more bits than they were given."""
    for p in layer:
        if p.bits != stored:
            text = f"{p.bits}-bit weights are stored in {stored} bits on this chip"
            yield Deviation("lower", p.name, text)
