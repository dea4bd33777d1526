r"""One time step of Speck's neurons in integers, and its specification in NumPy.

The arithmetic is that of sinabs' simulation of DYNAP-CNN cores (synsense/sinabs 3.1.3:
``layers/functional/lif.py``, ``activation/spike_generation.py`` (MultiSpike),
``activation/reset_mechanism.py`` (MembraneSubtract, MembraneReset)), stated in our own terms and
compared with it:

.. math::

    V &\leftarrow V + \left(\sum_j n_j w_j + bias\right) \\
    n &= \max(0, \mathrm{floor}(V / vth)), \qquad V \leftarrow V - n\, vth \\
    V &\leftarrow \max(V, -2^{15})

A neuron fires as often as its threshold fits into the potential, so the potential ends below it and
only its lower end is bounded. In a layer that returns to zero, V is 0 after spikes instead. All
layers take part in a step, one after the other. The cores add up the spikes of a pooling's window
before they send them, which repeated weights do as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from osbc_deploy.arrays import IntArray, peak_of
from osbc_deploy.errors import FidelityError
from osbc_deploy.fixedpoint.arithmetics import Arithmetic, Plan
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.loihi import shift
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults as register_faults
from osbc_deploy.fixedpoint.record import Activity, Traces

__all__ = ["ARITHMETIC", "LARGEST_SUM", "MOST_SPIKES", "SPECK", "check_spikes", "faults"]

SPECK = "speck"
MOST_SPIKES = 255
"""Spikes of a neuron in one step, which a byte holds here; sinabs sets no limit."""
LARGEST_SUM = 2**30
"""What arrives at a neuron in one step; sums are kept in 32 bits."""


def run_plain(
    network: FixedPointNetwork, signal: IntArray, traces: Traces, *, strict: bool
) -> dict[str, Activity]:
    """Run samples (n, T, input size), one population after the other.

    Raises
    ------
    FidelityError
        For more spikes in a step than are kept; where not `strict`, as many are.
    """
    n, steps = signal.shape[:2]
    fired: dict[str, IntArray] = {INPUT: signal}
    seen = {}
    for p in network.populations:
        if p.name in traces.given:
            fired[p.name] = traces.spikes[p.name]
            continue
        (way,) = network.afferents(p.name)
        shape = network.shape_of(way.pre)
        # Sums of 32 bits are exact in double precision.
        weight = way.connection.weight.astype(np.float64)
        cells = _Cells(network, p, n)
        raster = traces.spikes.get(p.name)
        fired[p.name] = np.empty((n, steps, p.size), np.uint8) if raster is None else raster
        for t in range(steps):
            sent = fired[way.pre][:, t].astype(np.float64)
            total = way.connection.total(sent, weight, shape).astype(np.int64)
            spikes, arrived = cells.step(shift(total, way.weight_exp))
            if strict:
                check_spikes(p.name, int(spikes.max(initial=0)))
            fired[p.name][:, t] = np.minimum(spikes, MOST_SPIKES)
            traces.note(p.name, t, arrived, cells.v)
        seen[p.name] = cells.activity(steps)
    return seen


def check_spikes(name: str, most: int) -> None:
    """Raise the FidelityError for a neuron that fires more often in a step than is kept."""
    if most > MOST_SPIKES:
        raise FidelityError(
            f"{name}: a neuron fires {most:,} times in one step, {MOST_SPIKES} are kept. The input "
            "drives the layer far beyond its threshold; calibrate on samples like it, or train "
            "with larger thresholds."
        )


class _Cells:
    """The neurons of one population in n samples."""

    def __init__(self, network: FixedPointNetwork, population: FixedPopulation, n: int) -> None:
        self.floor = -network.formats.state_limit
        registers = population.decoded(network.formats)
        self.bias, self.vth = registers.bias, registers.threshold
        self.subtract = population.reset == "subtract"
        self.v: IntArray = np.zeros((n, population.size), np.int64)
        self.counts = np.zeros(population.size, np.int64)
        self.u_peak = self.v_peak = self.saturations = 0

    def step(self, total: IntArray) -> tuple[IntArray, IntArray]:
        """Take sums (n, size); return spikes, and what arrived with the bias."""
        arrived = total + self.bias
        v = self.v + arrived
        spikes = np.maximum(v // self.vth, 0)
        v = v - spikes * self.vth if self.subtract else np.where(spikes > 0, 0, v)
        self.v = np.maximum(v, self.floor)
        self.u_peak = max(self.u_peak, peak_of(arrived))
        self.v_peak = max(self.v_peak, peak_of(v))
        self.saturations += int(np.count_nonzero(v < self.floor))
        self.counts += spikes.sum(axis=0)
        return spikes, arrived

    def activity(self, steps: int) -> Activity:
        """Return what the neurons went through."""
        return Activity(
            int(self.counts.sum()),
            self.v.size * steps,
            self.u_peak,
            self.v_peak,
            0,
            self.saturations,
            self.counts,
        )


def faults(network: FixedPointNetwork) -> list[str]:
    """Return one line for everything that Speck's cores cannot hold; see :func:`.ranges.faults`."""
    lines = register_faults(network)
    order = [INPUT, *(p.name for p in network.populations)]
    for p in network.populations:
        lines += [f"{p.name}: {text}" for text in _population(p, network)]
    for q in network.projections:
        lines += [f"{q.name}: {text}" for text in _projection(q, network, order)]
    return lines


def _population(p: FixedPopulation, network: FixedPointNetwork) -> Iterator[str]:
    formats = network.formats
    odd = {
        "does not spike; all neurons of these cores do": not p.spiking,
        "reset amount; a spike takes the threshold away": p.drop is not None,
        "initial states; all start at 0": bool(p.u_init.any() or p.v_init.any()),
        "timed resets; there are none": p.reset_interval != 0,
        "threshold of 0; at least 1 is needed": bool((p.vth < 1).any()),
        "a potential that leaks; there is no leak": bool(p.dv.any()),
        "a synaptic current; there is none": bool(
            (p.du != formats.decay_unity - formats.decay_u_offset).any()
        ),
    }
    yield from (text for text, wrong in odd.items() if wrong)
    count = len(network.afferents(p.name))
    if count != 1:
        yield f"{count} projections into one layer; a core has one kernel"


def _projection(q: FixedProjection, network: FixedPointNetwork, order: list[str]) -> Iterator[str]:
    if order.index(q.pre) >= order.index(q.post):
        yield "feedback; a step goes through the layers once"
    if q.connection.longest_delay:
        yield "synaptic delays; there are none"
    if q.sign != "mixed":
        yield "signs of one kind; weights are two's complement"
    most = MOST_SPIKES if q.pre != INPUT else network.input.peak
    if network.input.signed or network.input.peak > MOST_SPIKES:
        yield f"an input of {network.input.low} to {network.input.high}; 0 to {MOST_SPIKES} go"
    largest = widest_sum(q.connection.weight) * most
    if largest > LARGEST_SUM:
        yield f"sums of up to {largest:,}, allowed {LARGEST_SUM:,}"


def _plan(network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool) -> Plan:
    # Imported here: numba takes half a second, which reading a network need not.
    from osbc_deploy.fixedpoint.speck_compiled import SpeckPlan

    return SpeckPlan(network, peak, given, strict=strict)


ARITHMETIC = Arithmetic(
    name=SPECK,
    most_spikes=MOST_SPIKES,
    run_plain=run_plain,
    plan=_plan,
    faults=faults,
    lowering_in="osbc_deploy.lower.speck",
)
