"""What the C runtime does in a step, by operation, and the instructions it takes for that.

Operations are counted from what a network's populations did; a target says what each takes. Both
follow the loops of ``templates/runtime/runtime.c``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.chip.instructions import Costs
from osbc_deploy.firmware.tables import FirmwareTables, PopulationTables, ProjectionTables, lay_out
from osbc_deploy.fixedpoint.connections import FixedConnection
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork

__all__ = ["StepCost", "operations_of", "step_cost"]

_BATCH = 8
"""Samples that are run at a time: states of all populations are kept."""
_WORD = 4
"""Sources that are checked together."""
_KEPT = 4
"""Projections into a population whose neurons may take the short way."""

Counts = dict[str, FloatArray]
"""Operations of each step (n, T), by name."""


@dataclass(frozen=True)
class StepCost:
    """Modelled instructions of a step.

    Attributes
    ----------
    typical : float
        On average over the samples.
    worst : float
        The most of any step of the samples.
    bound : float
        If everything fired at once and every neuron took its longest way.
    samples, steps : int
        What they were counted on.
    """

    typical: float
    worst: float
    bound: float
    samples: int
    steps: int


def step_cost(network: FixedPointNetwork, spikes: IntArray, costs: Costs) -> StepCost:
    """Return what a step takes on the samples (n, T, *input_shape) of a network.

    Parameters
    ----------
    network : FixedPointNetwork
    spikes : ndarray
        What the chip is given.
    costs : Costs
    """
    tables = lay_out(network)
    totals = []
    for start in range(0, len(spikes), _BATCH):
        batch = spikes[start : start + _BATCH]
        counts = operations_of(network, tables, batch)
        total = sum(costs.each(name) * found for name, found in counts.items())
        totals.append(np.broadcast_to(total, batch.shape[:2]))
    found = np.concatenate(totals)
    most = costs.of(_most(network, tables, costs))
    worst = float(found.max())
    # A mean of equal numbers may be rounded up.
    return StepCost(min(float(found.mean()), worst), worst, most, *found.shape)


def operations_of(
    network: FixedPointNetwork, tables: FirmwareTables, spikes: IntArray
) -> Mapping[str, Any]:
    """Return the operations of every step (n, T) of samples, by their names in :class:`Costs`."""
    names = [p.name for p in network.populations]
    done = run(network, spikes, record=names, states=names)
    active = {INPUT: spikes.reshape(*spikes.shape[:2], -1) != 0}
    active |= {name: fired.astype(bool) for name, fired in done.spikes.items()}
    silent = np.zeros(spikes.shape[:2], np.int64)
    counts: Counter[str] = Counter(_fixed(network, tables))
    connections = {p.name: p.connection for p in network.projections}
    sources = [INPUT, *names]
    for part in tables.projections:
        name = sources[part.pre]
        _deliver(counts, part, connections[part.name], network.shape_of(name), active.get(name))
    for q, into in _with_inputs(tables):
        name = q.population.name
        _update(counts, q, into, network, done.v[name], done.u[name], active.get(name))
    return {name: silent + found for name, found in counts.items()}


def _fixed(network: FixedPointNetwork, tables: FirmwareTables) -> dict[str, int]:
    """Return what every step takes, whatever fires."""
    counts = Counter(step=1, population=len(tables.populations), output=network.output.size)
    for part in tables.projections:
        counts["projection"] += 1
        counts["kernel"] += bool(part.geometry)
        name = [INPUT, *(p.name for p in network.populations)][part.pre]
        size = int(np.prod(network.shape_of(name)))
        bytes_each = part.pre > 0 or not (part.graded or network.input.bits > 8)
        counts["word" if bytes_each else "number"] += size // _WORD if bytes_each else size
    for q, into in _with_inputs(tables):
        size, apart = q.population.size, sum(not part.direct for part in into)
        blocks = size // (_block(q) or size)
        # Where sums lie apart, one loop does what all others do not, and none has more than these.
        several = _varied(q) or len(into) > 1 or any(part.right for part in into)
        counts["block"] += blocks
        counts["summed"] += blocks * apart
        counts["more"] += (len(into) - 1) * size
        counts["held"] += size * q.keeps_u
        counts["direct"] += size * (not apart)
        counts["varied"] += size * (_varied(q) and not apart)
        counts["gathered"] += size * (several and 0 < apart <= _KEPT)
    return dict(counts)


def _with_inputs(
    tables: FirmwareTables,
) -> Iterator[tuple[PopulationTables, list[ProjectionTables]]]:
    """Yield every population and the projections into it."""
    for number, q in enumerate(tables.populations):
        yield q, [part for part in tables.projections if part.post == number]


def _deliver(
    counts: Counter[str],
    part: ProjectionTables,
    connection: FixedConnection,
    shape: tuple[int, ...],
    fired: Any,
) -> None:
    """Add what the spikes of a source take on their way through a projection."""
    if fired is None:
        return
    each = _fan_out(part, connection, shape)
    padded = np.zeros((*fired.shape[:-1], -(-fired.shape[-1] // _WORD) * _WORD), bool)
    padded[..., : fired.shape[-1]] = fired
    busy = padded.reshape(*fired.shape[:-1], -1, _WORD).any(axis=-1)
    counts["busy_word"] = counts["busy_word"] + busy.sum(axis=-1)
    for name, number in each.items():
        counts[name] = counts[name] + fired @ number


def _fan_out(
    part: ProjectionTables, connection: FixedConnection, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return what a spike of each neuron of the source takes."""
    size = int(np.prod(shape))
    once = np.ones(size, np.int64)
    if part.geometry:
        every = np.ones_like(connection.weight, dtype=bool)
        synapses = np.asarray(connection.fan_out(every, shape)).ravel()
        share = part.geometry["c_out"] // part.geometry["groups"]
        each = {"kernel_spike": once, "tap": synapses // share, "apart": synapses}
    elif part.kind == "dense":
        synapses = once * (part.synapses // size)
        each = {"row_spike": once, "in_a_row": synapses}
    else:
        synapses = np.asarray(np.diff(np.asarray(part.start.data, np.int64)))
        if part.delay.width or part.target.width == 4:
            return {"listed_spike": once, "late": synapses}
        each = {"listed_spike": once, "listed": synapses}
    # Codes of 2 and 4 bits share a turn of a loop, those of a byte.
    return each | {"turn": synapses * min(part.code_bits, 8) / 8}


def _update(
    counts: Counter[str],
    q: PopulationTables,
    into: list[ProjectionTables],
    network: FixedPointNetwork,
    v: IntArray,
    u: IntArray,
    fired: Any,
) -> None:
    """Add what the neurons of a population take, from their states after each step."""
    size, limit = q.population.size, network.formats.state_limit
    direct = all(part.direct for part in into)
    # What sums are added to: where they are at once, it decays before the first of them comes.
    kept = _before(u, q.population.u_init) if q.keeps_u else _before(v, q.population.v_init)
    still = (v == 0) & (q.population.decoded(network.formats).bias == 0)
    if q.keeps_u:
        still &= (u == 0) & ~_before(v, q.population.v_init)
    if not direct:
        still &= ~kept & (len(into) <= _KEPT)
    if fired is not None:
        still &= ~fired
        counts["spike"] = counts["spike"] + fired.sum(axis=-1)
    # A potential at its end was cut off there, which only the long way does.
    settled = ~still & ((np.abs(v) >= limit - 1) | (len(into) > _KEPT))
    idle, long = still.sum(axis=-1), settled.sum(axis=-1)
    found = {"idle": idle, "settled": long, "neuron": size - idle - long}
    if direct:
        found["faded"] = kept.sum(axis=-1)
    else:
        found["collected"] = found["neuron"]
    if q.keeps_u:
        found["current"] = found["neuron"]
    for name, number in found.items():
        counts[name] = counts[name] + number


def _before(state: IntArray, init: IntArray) -> Any:
    """Return whether a state (n, T, size) is not 0 before each step."""
    start = np.broadcast_to(init != 0, (len(state), 1, len(init)))
    return np.concatenate([start, state[:, :-1] != 0], axis=1)


def _most(network: FixedPointNetwork, tables: FirmwareTables, costs: Costs) -> dict[str, float]:
    """Return operations that take more than those of any step can."""
    counts: Counter[str] = Counter(_fixed(network, tables))
    connections = {p.name: p.connection for p in network.projections}
    sources = [INPUT, *(p.name for p in network.populations)]
    for part in tables.projections:
        shape = network.shape_of(sources[part.pre])
        fired = np.ones((1, 1, int(np.prod(shape))), bool)
        _deliver(counts, part, connections[part.name], shape, fired)
    for q, into in _with_inputs(tables):
        size, direct = q.population.size, all(part.direct for part in into)
        short = {"neuron": size, "current": size * q.keeps_u, "collected": size * (not direct)}
        counts.update(max(short, {"settled": size}, key=costs.of))
        counts["faded"] += size * direct
        counts["spike"] += size
    return {name: float(np.max(n)) for name, n in counts.items()}


def _block(q: PopulationTables) -> int:
    """Return how many neurons share their registers, 0 for all of them."""
    names = ["kept_u", "kept_v", "drop"]
    alike = _shared(q, names)
    block = _shared(q, [*names, "bias", "threshold"])
    return alike if block == 1 and alike != 1 else block


def _varied(q: PopulationTables) -> bool:
    names = ["kept_u", "kept_v", "drop"]
    return _shared(q, [*names, "bias", "threshold"]) == 1 and _shared(q, names) != 1


def _shared(q: PopulationTables, names: list[str]) -> int:
    block = 0
    for name in names:
        table = q.tables[name]
        if table.width and table.repeat != block:
            block = table.repeat if block == 0 else 1
    return block
