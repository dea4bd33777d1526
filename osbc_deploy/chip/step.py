"""What a step asks of every core and link, and the time and energy by the target's figures.

A core works off the synapses that spikes meet and updates its neurons; a spike travels along its
row first, then along its column, once to every core that holds a synapse of its neuron. The step
ends when the slowest core and the fullest link are done and all cores have agreed on that (the
barrier). Loads are those of a mean step, so the time is a bound from below of the mean time of
steps whose spikes are not alike.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.chip.layers import Layer
from osbc_deploy.chip.mapping import Mapping
from osbc_deploy.chip.place import Placement
from osbc_deploy.chip.target import Target
from osbc_deploy.chip.traffic import operations_on_cores, traffic

__all__ = ["Link", "StepEnergy", "StepLoad", "StepTime", "step_load"]

Place = tuple[int, int]


class Link(NamedTuple):
    """The link between two neighbouring routers of the mesh, in one direction, and its spikes."""

    source: Place
    sink: Place
    spikes: float


class StepTime(NamedTuple):
    """Seconds of a step.

    Attributes
    ----------
    total : float
    parts : dict of float
        ``core`` and ``link`` are the slowest, of which the step waits for the longer; then the
        ``barrier``.
    bottleneck : str
        The part that takes longest.
    """

    total: float
    parts: MappingOf[str, float]
    bottleneck: str


class StepEnergy(NamedTuple):
    """Picojoules of a step.

    Attributes
    ----------
    parts : dict of float
        Of synaptic operations, neuron updates, spikes and hops, where the target states them.
    idle_saves : float
        What less it were if no neuron had anything to do in its update.
    """

    parts: MappingOf[str, float]
    idle_saves: float

    @property
    def total(self) -> float:
        """The sum."""
        return sum(self.parts.values())


@dataclass(frozen=True, eq=False)
class StepLoad:
    """What a mean step asks of cores and links.

    Attributes
    ----------
    synaptic, updates, received : ndarray (cores,)
        Synaptic operations, neuron updates, and spikes from other neurons of the chip.
    columns, rows : float
        Hops of all spikes along rows of the mesh (from column to column) and along columns.
    links : tuple of Link
        Those that spikes travel, the fullest first; empty where cores have no place.
    placed : bool
        Whether cores have places.
    """

    synaptic: FloatArray
    updates: FloatArray
    received: FloatArray
    columns: float
    rows: float
    links: tuple[Link, ...]
    placed: bool

    def seconds_of_cores(self, target: Target) -> FloatArray:
        """Return the time of each core; its operations where the target states no time."""
        if target.time is None:
            return self.synaptic + self.updates
        each = target.time
        work = self.synaptic * each.synaptic_operation.value
        return np.asarray(work + self.updates * each.neuron_update.value) * 1e-9

    def busiest(self, target: Target) -> int:
        """Return the number of the core that takes longest."""
        return int(np.argmax(self.seconds_of_cores(target)))

    def time(self, target: Target) -> StepTime | None:
        """Return the time of the step, or None where the target states none."""
        if target.time is None:
            return None
        parts = {"core": float(self.seconds_of_cores(target).max(initial=0.0))}
        if target.time.link_rate is not None and self.placed:
            most = max((link.spikes for link in self.links), default=0.0)
            parts["link"] = most / target.time.link_rate.value
        parts["barrier"] = target.time.barrier.value * 1e-9
        waited = max(parts["core"], parts.get("link", 0.0))
        return StepTime(waited + parts["barrier"], parts, max(parts, key=lambda name: parts[name]))

    def energy(self, target: Target) -> StepEnergy | None:
        """Return the energy of the step, or None where the target states none of its events."""
        each = target.energy
        if each is None:
            return None
        events = {
            "synaptic_operations": (each.synaptic_operation, self.synaptic.sum()),
            "neuron_updates": (each.neuron_update, self.updates.sum()),
            "spikes": (each.spike, self.received.sum()),
        }
        if self.placed:
            events["column_hops"] = (each.column_hop, self.columns)
            events["row_hops"] = (each.row_hop, self.rows)
        parts = {
            name: float(fact.value * count)
            for name, (fact, count) in events.items()
            if fact is not None
        }
        saved = 0.0
        if each.neuron_update is not None and each.idle_update is not None:
            saved = each.neuron_update.value - each.idle_update.value
        return StepEnergy(parts, saved * float(self.updates.sum())) if parts else None


def step_load(
    mapping: Mapping,
    layers: tuple[Layer, ...],
    spikes: MappingOf[str, FloatArray],
    placement: Placement | None,
    target: Target,
) -> StepLoad:
    """Return what a step asks of cores and links.

    Parameters
    ----------
    mapping : Mapping
    layers : tuple of Layer
    spikes : dict of ndarray (n,)
        Of every neuron in the step, by population; the input's under ``"input"``.
    placement : Placement or None
    target : Target
    """
    sent = traffic(mapping, layers, spikes)
    size = sent.shape[0]
    updates = np.zeros(size)
    for core in mapping.cores:
        updates[core.index] += core.neurons
    links: list[Link] = []
    columns = rows = 0.0
    if placement is not None:
        links, columns, rows = _routed(sent, *placement.routers(target))
    return StepLoad(
        operations_on_cores(mapping, layers, spikes),
        updates,
        np.asarray(sent.sum(axis=0)).ravel(),
        columns,
        rows,
        tuple(sorted(links, key=lambda link: (-link.spikes, link.source, link.sink))),
        placement is not None,
    )


def _routed(sent: csr_array, x: IntArray, y: IntArray) -> tuple[list[Link], float, float]:
    """Return the spikes of every link, and hops from column to column and from row to row."""
    pairs = sent.tocoo()
    source, sink = pairs.coords
    along = _carried(y[source], x[source], x[sink], pairs.data)
    down = _carried(x[sink], y[source], y[sink], pairs.data)
    links = [Link((a, row), (b, row), spikes) for (row, a, b), spikes in along.items()]
    links += [Link((column, a), (column, b), spikes) for (column, a, b), spikes in down.items()]
    return links, sum(along.values()), sum(down.values())


def _carried(
    lane: IntArray, start: IntArray, stop: IntArray, spikes: FloatArray
) -> dict[tuple[int, int, int], float]:
    """Return the spikes between neighbours (lane, from, to) that travel along parallel lanes."""
    if not len(lane):
        return {}
    total = np.zeros((2, int(lane.max()) + 1, int(max(start.max(), stop.max())) + 1))
    for number, first, last, sent in zip(lane, start, stop, spikes, strict=True):
        total[int(first > last), number, min(first, last) : max(first, last)] += sent
    found = {}
    for back, number, low in zip(*(axis.tolist() for axis in np.nonzero(total)), strict=True):
        ends = (low + 1, low) if back else (low, low + 1)
        found[number, ends[0], ends[1]] = float(total[back, number, low])
    return found
