"""How the lowered network differs from the float network, in sentences for the report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from osbc_deploy.deviations import Deviation
from osbc_deploy.fixedpoint.engine import EngineRun
from osbc_deploy.fixedpoint.network import FixedPopulation
from osbc_deploy.lower.lowering import HEADROOM
from osbc_deploy.lower.notes import (
    said_of_firing,
    said_of_resets,
    said_of_rounding,
    said_of_widths,
)
from osbc_deploy.lower.xylo.neurons import Neurons
from osbc_deploy.plain_text import many

__all__ = ["notes_of"]


def notes_of(
    neurons: Neurons, lowered: FixedPopulation, m: int, over: float, done: EngineRun
) -> Iterator[Deviation]:
    """Yield how the lowered network differs from the float network."""
    name = neurons.population.name
    seen, fired = done.activity[name], done.spikes[name]
    for text in (
        *_said_of_decays(neurons),
        *said_of_resets(neurons.population),
        *said_of_rounding(
            [
                ("threshold", neurons.vth * 2.0**m, lowered.vth),
                ("bias", neurons.bias * 2.0**m, lowered.bias_mant),
            ]
        ),
        *said_of_firing(fired, seen),
    ):
        yield Deviation("lower", name, text)
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
        yield Deviation(
            "lower", name, f"states saturated {many(seen.saturations, 'time')} in calibration"
        )
    yield from said_of_widths(neurons.layer, neurons.formats.weight_bits[-1])


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
