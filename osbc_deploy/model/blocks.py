"""Populations stepped together, in torch: currents in, spikes and potentials out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.currents import WHOLE, Current, exact_current, framework_current
from osbc_deploy.model.delivery import arriving, lateness
from osbc_deploy.model.graph import Network, Population
from osbc_deploy.model.threads import batches_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "TOGETHER",
    "blocks_up_to",
    "channels_together",
    "currents_of",
    "first_states",
    "heard_by",
    "numbers_of",
    "run_block",
]

TOGETHER = 2**17
"""Neurons, of all samples, whose currents and states are computed together: half a megabyte each in
single precision."""

_OPERATIONS = 12
"""Of a neuron's step."""

_MULTIPLIED = 4
"""Multiplications of exact sums that take as long as another number."""


def blocks_up_to(network: Network, last: str, known: Collection[str]) -> list[list[Population]]:
    """Return the blocks to simulate, without what is known, in the order activity flows."""
    found = []
    for block in network.blocks():
        left = [p for p in block if p.name not in known]
        if left:
            found.append(left)
        if any(p.name == last for p in block):
            break
    return found


def heard_by(network: Network, block: Sequence[Population]) -> set[str]:
    """Return the names of the sources of a block's populations."""
    return {p.pre for population in block for p in network.afferents(population.name)}


def channels_together(network: Network, population: Population, batch: int) -> tuple[slice, ...]:
    """Return the channels of a population that are simulated together, so that a cache holds them.

    Only where sums are exact do these not depend on it.
    """
    connections = [p.connection for p in network.afferents(population.name)]
    if not all(c.convolutional for c in connections):
        return WHOLE
    channels = population.shape[0]
    least = math.lcm(*(channels // c.groups for c in connections if c.groups > 1))
    together = least * max(1, TOGETHER * channels // (batch * population.size * least))
    return tuple(batches_of(channels, together))


def numbers_of(network: Network, populations: Sequence[Population]) -> float:
    """Return how many numbers an operation computes on average, for one sample."""
    total, operations = 0.0, 0
    for population in populations:
        total += _OPERATIONS * population.size
        operations += _OPERATIONS
        for projection in network.afferents(population.name):
            total += network.multiplications(projection) / _MULTIPLIED
            operations += 1
    return total / max(1, operations)


def currents_of(
    network: Network,
    cuts: Mapping[str, Sequence[slice]],
    peaks: Mapping[str, int | float],
    dtype: torch.dtype,
    device: torch.device,
    *,
    exact: bool,
) -> dict[str, Current]:
    """Return the current of every projection into the populations that `cuts` has channels of."""
    found = [p for name in cuts for p in network.afferents(name)]
    if not exact:
        return {p.name: framework_current(p, dtype, device) for p in found}
    # Spikes of others are 0 or 1.
    return {
        p.name: exact_current(p, dtype, peaks.get(p.pre, 1) or 1, device, cuts[p.post])
        for p in found
    }


def run_block(
    network: Network,
    block: Sequence[Population],
    activity: Mapping[str, torch.Tensor],
    potentials: Mapping[str, torch.Tensor],
    currents: Mapping[str, Current],
    cuts: Mapping[str, Sequence[slice]],
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Return the activity (T, n, *shape) of populations that are stepped together.

    `potentials` (T, n, *shape) of populations that are kept are filled in.
    """
    import torch

    own = {p.name for p in block}
    heard = heard_by(network, block)
    first = next(activity[name] for name in heard - own)
    (steps, batch), device = first.shape[:2], first.device
    result = {
        p.name: torch.empty((steps, batch, *p.shape), dtype=dtype, device=device) for p in block
    }
    cells = []
    for population in block:
        maps = []
        for projection in network.afferents(population.name):
            source = result[projection.pre] if projection.pre in own else activity[projection.pre]
            feedback = network.is_feedback(projection)
            late = lateness(network, projection)
            maps.append((source, late, currents[projection.name], feedback))
        states = [
            first_states(population, channels, batch, dtype, device)
            for channels in cuts[population.name]
        ]
        cells.append((population, maps, states))
    for t in range(steps):
        for population, maps, states in cells:
            neuron, name = population.neuron, population.name
            arrived = [
                current.ready(arriving(source, t, late)) for source, late, current, _ in maps
            ]
            for number, channels in enumerate(cuts[name]):
                sums: list[Any] = [None, None]
                for found, (_, _, current, feedback) in zip(arrived, maps, strict=True):
                    x = current.parts[number](found)
                    which = int(neuron.feedback_apart and feedback)
                    sums[which] = x if sums[which] is None else sums[which] + x
                total = tuple(sums) if neuron.feedback_apart else sums[0]
                parameters, state = states[number]
                answer, after = neuron.step(parameters, state, total, torch.where)
                states[number] = parameters, after
                result[name][t][:, channels] = answer
                if name in potentials:
                    potentials[name][t][:, channels] = after["v"]
    return result


def first_states(
    population: Population, channels: slice, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and first states (n, channels, ..) of some channels."""
    import torch

    neuron, shape = population.neuron, population.shape
    count = len(range(*channels.indices(shape[0])))

    def tensor(array: FloatArray) -> torch.Tensor:
        here = array[channels] if array.ndim == len(shape) and len(array) > 1 else array
        return torch.tensor(np.array(here), dtype=dtype, device=device)

    zeros = torch.zeros((batch, count, *shape[1:]), dtype=dtype, device=device)
    state: dict[str, Any] = dict.fromkeys(neuron.states, zeros)
    state["v"] = tensor(neuron.v_init).expand(zeros.shape).clone()
    return {name: tensor(value) for name, value in neuron.parameters.items()}, state
