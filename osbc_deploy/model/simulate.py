"""Simulate a float network with torch, in the model's own precision.

Each time step runs the same torch operations in the same order, on the same batch, as the
framework the network came from, so the spikes are the framework's spikes and not merely close.

That holds on one machine: on another, the framework adds up a neuron's input in another order, and
a spike may hang on the last bit. `exact` sums are the same on every machine; decisions are made
on those.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.model.currents import Current, exact_current, framework_current, in_full_precision
from osbc_deploy.model.delivery import arriving, lateness
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.raster import PackedSpikes, Raster, peak_of_raster
from osbc_deploy.progress import SILENT, Progress, task

if TYPE_CHECKING:
    import torch

__all__ = ["FloatRun", "activity_bytes", "simulate"]


@dataclass(frozen=True, eq=False)
class FloatRun:
    """What a float simulation recorded.

    Attributes
    ----------
    spikes : dict of ndarray of uint8, each (n, T, *population shape)
        Spikes of the recorded populations.
    output : ndarray (n, T, *output shape)
        The output population's spikes (0 or 1) or membrane potentials.
    rates : dict of float
        Mean spikes per neuron and step of every spiking population.
    v : dict of ndarray of the network's dtype, each (n, T, *population shape)
        Membrane potential after each step, of the populations whose states are kept.
    packed : dict of PackedSpikes (n, T, *population shape)
        Spikes of the populations whose spikes are kept a bit each.
    """

    spikes: Mapping[str, InputArray]
    output: FloatArray
    rates: Mapping[str, float]
    v: Mapping[str, FloatArray] = field(default_factory=dict)
    packed: Mapping[str, PackedSpikes] = field(default_factory=dict)


def simulate(
    network: Network,
    spikes: InputArray,
    *,
    record: Collection[str] = (),
    states: Collection[str] = (),
    pack: Collection[str] = (),
    given: Mapping[str, Raster] | None = None,
    until: str | None = None,
    exact: bool = False,
    output: bool = True,
    batch_size: int = 64,
    memory: int | None = None,
    peaks: Mapping[str, int | float] | None = None,
    device: str | None = None,
    progress: Progress = SILENT,
    title: str = "float network",
) -> FloatRun:
    """Run samples through a float network.

    Parameters
    ----------
    network : Network
    spikes : ndarray (n, T, *input_shape)
        Input: spikes, 0 or 1, whole numbers or real values.
    record : collection of str
        Populations whose spikes are kept; ``"input"`` is allowed.
    states : collection of str
        Populations whose membrane potentials are kept.
    pack : collection of str
        Populations whose spikes are kept a bit each.
    given : dict of ndarray of uint8 or PackedSpikes, each (n, T, *population shape), optional
        Spikes of populations that are taken as they are and not simulated.
    until : str, optional
        The last population to simulate, whose activity is the run's output; the network's own by
        default.
    exact : bool
        Whether currents are exact sums, rounded once (:func:`.exact_current`), and not the
        framework's.
    output : bool
        Whether to keep the output.
    batch_size : int
        Samples simulated side by side.
    memory : int, optional
        Bytes that the activity of those may take; fewer are simulated then. Only `exact` sums do
        not depend on it.
    peaks : dict, optional
        The largest size of what is known, by population, where these samples are some of many:
        `exact` sums hang on it.
    device : str, optional
        Where torch computes, such as ``"cuda"``; the CPU by default.

    Returns
    -------
    FloatRun
    """
    import torch

    dtype = getattr(torch, network.dtype)
    known: dict[str, Raster] = {INPUT: spikes, **(given or {})}
    last = until or network.output.name
    blocks = _up_to(network, last, known)
    populations = [p for block in blocks for p in block]
    n, steps = spikes.shape[:2]
    kept: dict[str, InputArray] = {
        p.name: np.empty((n, steps, *p.shape), np.uint8)
        for p in populations
        if p.name in record and p.neuron.spiking
    }
    packed = {
        p.name: PackedSpikes((n, steps, *p.shape))
        for p in populations
        if p.name in pack and p.neuron.spiking
    }
    if memory is not None:
        heard = {name for block in blocks for name in _heard(network, block)}
        sizes = [math.prod(network.shape_of(name)) for name in heard & known.keys()]
        each = activity_bytes(steps, [*sizes, *(p.size for p in populations)])
        batch_size = max(1, min(batch_size, memory // each))
    answers = np.empty((n if output else 0, steps, *network.shape_of(last)), network.dtype)
    v: dict[str, FloatArray] = {
        p.name: np.empty((n, steps, *p.shape), network.dtype)
        for p in populations
        if p.name in states
    }
    fired = {p.name: 0 for p in populations if p.neuron.spiking}
    peaks = peaks or {name: peak_of_raster(raster) for name, raster in known.items()}
    place = torch.device(device or "cpu")
    currents = _currents(network, populations, peaks, dtype, place, exact=exact)
    with torch.no_grad(), in_full_precision(place), task(progress, title, n):
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            activity: dict[str, torch.Tensor] = {}
            potentials = {
                name: torch.empty((steps, rows.stop - start, *array.shape[2:]), dtype=dtype)
                for name, array in v.items()
            }
            for block in blocks:
                for name in _heard(network, block) & known.keys() - activity.keys():
                    raster = np.moveaxis(known[name][rows], 1, 0).astype(network.dtype)
                    activity[name] = torch.from_numpy(raster).to(place)
                activity |= _block(network, block, activity, potentials, currents, dtype)
            for name, answer in activity.items():
                if name in fired:
                    fired[name] += int(torch.count_nonzero(answer))
                if name in kept:
                    kept[name][rows] = np.moveaxis(answer.to(torch.uint8).cpu().numpy(), 0, 1)
                if name in packed:
                    packed[name][rows] = np.moveaxis(answer.to(torch.uint8).cpu().numpy(), 0, 1)
            for name, potential in potentials.items():
                v[name][rows] = np.moveaxis(potential.numpy(), 0, 1)
            if output:
                answers[rows] = np.moveaxis(activity[last].cpu().numpy(), 0, 1)
            progress.advance(rows.stop - rows.start)
    rates = {p.name: fired[p.name] / (n * steps * p.size) for p in populations if p.name in fired}
    if INPUT in record:
        kept[INPUT] = spikes
    return FloatRun(spikes=kept, output=answers, rates=rates, v=v, packed=packed)


def activity_bytes(steps: int, sizes: Sequence[int]) -> int:
    """Return what the activity of populations of these sizes takes for one sample."""
    # In single precision, and once more while it is written.
    return max(1, 4 * steps * (sum(sizes) + max(sizes)))


def _up_to(network: Network, last: str, known: Collection[str]) -> list[list[Population]]:
    """Return the blocks to simulate, without what is known, in the order activity flows."""
    found = []
    for block in network.blocks():
        left = [p for p in block if p.name not in known]
        if left:
            found.append(left)
        if any(p.name == last for p in block):
            break
    return found


def _heard(network: Network, block: Sequence[Population]) -> set[str]:
    return {p.pre for population in block for p in network.afferents(population.name)}


def _currents(
    network: Network,
    populations: Sequence[Population],
    peaks: Mapping[str, int | float],
    dtype: torch.dtype,
    device: torch.device,
    *,
    exact: bool,
) -> dict[str, Current]:
    found = [p for population in populations for p in network.afferents(population.name)]
    if not exact:
        return {p.name: framework_current(p, dtype, device) for p in found}
    # Spikes of others are 0 or 1.
    return {p.name: exact_current(p, dtype, peaks.get(p.pre, 1) or 1, device) for p in found}


def _block(
    network: Network,
    block: Sequence[Population],
    activity: Mapping[str, torch.Tensor],
    potentials: Mapping[str, torch.Tensor],
    currents: Mapping[str, Current],
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Return the activity (T, n, *shape) of populations that are stepped together.

    `potentials` (T, n, *shape) of populations that are kept are filled in.
    """
    import torch

    own = {p.name for p in block}
    heard = _heard(network, block)
    first = next(activity[name] for name in heard - own)
    (steps, batch), device = first.shape[:2], first.device

    def tensor(array: FloatArray) -> torch.Tensor:
        return torch.tensor(np.array(array), dtype=dtype, device=device)

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
        neuron = population.neuron
        zeros = torch.zeros((batch, *population.shape), dtype=dtype, device=device)
        state: dict[str, Any] = dict.fromkeys(neuron.states, zeros)
        state["v"] = tensor(neuron.v_init).expand(batch, *population.shape).clone()
        parameters = {name: tensor(v) for name, v in neuron.parameters.items()}
        cells.append((population, maps, parameters, state))
    for t in range(steps):
        for number, (population, maps, parameters, state) in enumerate(cells):
            apart = population.neuron.feedback_apart
            sums: list[Any] = [None, None]
            for source, late, current, feedback in maps:
                x = current(arriving(source, t, late))
                which = int(apart and feedback)
                sums[which] = x if sums[which] is None else sums[which] + x
            total = tuple(sums) if apart else sums[0]
            answer, after = population.neuron.step(parameters, state, total, torch.where)
            cells[number] = (population, maps, parameters, after)
            result[population.name][t] = answer
            if population.name in potentials:
                potentials[population.name][t] = after["v"]
    return result
