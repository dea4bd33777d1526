"""What became otherwise than in the float network, in sentences for the report."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.engine import EngineRun
from osbc_deploy.fixedpoint.network import FixedPopulation
from osbc_deploy.lower.lowering import HEADROOM
from osbc_deploy.lower.xylo.neurons import Neurons
from osbc_deploy.model.graph import Population

__all__ = ["notes_of"]

_COARSE = 0.05
"""Relative rounding of a register from which it is said."""


def notes_of(
    neurons: Neurons, lowered: FixedPopulation, m: int, over: float, done: EngineRun
) -> Iterator[Deviation]:
    """Yield what became otherwise than in the float network."""
    name = neurons.population.name
    seen, fired = done.activity[name], done.spikes[name]
    for text in (
        *_said_of_decays(neurons),
        *_said_of_resets(neurons.population),
        *_said_of_rounding(neurons, lowered, m),
    ):
        yield Deviation("lower", name, text)
    several = int(np.count_nonzero(fired > 1))
    if several:
        firing = int(np.count_nonzero(fired))
        yield Deviation(
            "lower",
            name,
            f"fires up to {int(fired.max())} times in one step: in {several:,} of the {firing:,} "
            "steps of calibration in which a neuron fires; the float neurons fire once",
        )
    if m < 0:
        text = f"weights lose {-m} of their bits, so that potentials and thresholds fit into 16"
        yield Deviation("lower", name, text)
    if over > 1.0:
        yield Deviation(
            "lower",
            name,
            f"the registers hold {HEADROOM / over:.2f} times the peak of calibration, "
            f"{HEADROOM:g} times is wanted; unusual input may saturate",
        )
    if seen.saturations:
        yield Deviation("lower", name, f"states saturated {seen.saturations} times in calibration")
    if not seen.spikes:
        text = "no neuron fires in fixed point on the calibration samples"
        yield Deviation("lower", name, text)
    for p in neurons.layer:
        stored = neurons.formats.weight_bits[-1]
        if p.bits != stored:
            text = f"{p.bits}-bit weights are stored in {stored} bits on this chip"
            yield Deviation("lower", p.name, text)


def _said_of_decays(neurons: Neurons) -> Iterator[str]:
    found, size = neurons.shifts, neurons.population.size
    pairs, counts = np.unique(np.stack([found.current, found.membrane]), axis=1, return_counts=True)
    few = ", ".join(
        f"{k} and {v}" + (f" in {count}" if count < size else "")
        for (k, v), count in zip(pairs.T[:4], counts[:4], strict=True)
    )
    more = f" and {len(counts) - 4} other pairs" if len(counts) > 4 else ""
    worst = " at worst" if len(counts) > 1 else ""
    yield (
        f"current and membrane lose 2^-k of themselves a step, k of {few}{more}: the answer to a "
        f"spike is {found.error.max():.1%}{worst} off the float neuron's, that to a reset "
        f"{found.reset_error.max():.1%}{worst} (root mean square)"
    )
    if neurons.population.neuron.dynamics().decay_u is None:
        yield (
            "has no synaptic current; the chip's cannot be left out, so its shortest delays and "
            "smooths the input"
        )


def _said_of_resets(population: Population) -> Iterator[str]:
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


def _said_of_rounding(neurons: Neurons, lowered: FixedPopulation, m: int) -> Iterator[str]:
    factor = 2.0**m
    for what, wanted, held in (
        ("threshold", neurons.vth * factor, lowered.vth),
        ("bias", neurons.bias * factor, lowered.bias_mant),
    ):
        lost, size = (math.sqrt(float(np.mean(x**2))) for x in (wanted - held, wanted))
        if lost > _COARSE * size:
            yield (
                f"{what} is coarse: {wanted.min():.3g} to {wanted.max():.3g} is wanted, whole "
                f"numbers to {held.max()} are held; {min(1.0, lost / size):.0%} is lost to rounding"
            )
