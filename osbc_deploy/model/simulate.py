"""Simulate a float network with torch, in the model's own precision.

Each time step runs the same torch operations in the same order, on the same batch, as the
framework the network came from, so the spikes are the framework's spikes and not merely close.

That holds on one machine: on another, the framework adds up a neuron's input in another order, and
the last bit may decide a spike. `exact` sums are the same on every machine; decisions are made on
those.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from osbc_deploy.arrays import FloatArray, InputArray
from osbc_deploy.model.blocks import (
    blocks_up_to,
    channels_together,
    currents_of,
    heard_by,
    numbers_of,
    run_block,
)
from osbc_deploy.model.currents import WHOLE, in_full_precision
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.raster import PackedSpikes, Raster, peak_of_raster
from osbc_deploy.model.threads import batches_of, by_threads, hands_for
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
        framework's. Samples are spread over as many threads as torch has then.
    output : bool
        Whether to keep the output.
    batch_size : int
        Samples simulated side by side.
    memory : int, optional
        Bytes that the activity of those may take; fewer are simulated then. Only `exact` sums do
        not depend on it.
    peaks : dict, optional
        The largest size of what is known, by population, where these samples are some of many:
        `exact` sums depend on it.
    device : str, optional
        Where torch computes, such as ``"cuda"``; the CPU by default.

    Returns
    -------
    FloatRun
    """
    import torch

    dtype = getattr(torch, network.dtype)
    place = torch.device(device or "cpu")
    known: dict[str, Raster] = {INPUT: spikes, **(given or {})}
    last = until or network.output.name
    blocks = blocks_up_to(network, last, known)
    populations = [p for block in blocks for p in block]
    n, steps = spikes.shape[:2]
    # Exact sums come by threads of our own: each has samples of its own.
    ours = exact and place.type == "cpu"
    threads = hands_for(n * numbers_of(network, populations)) if ours else 0
    hands = max(1, threads)
    if memory is not None:
        heard = {name for block in blocks for name in heard_by(network, block)}
        sizes = [math.prod(network.shape_of(name)) for name in heard & known.keys()]
        each = activity_bytes(steps, [*sizes, *(p.size for p in populations)])
        hands = min(hands, max(1, memory // each))
        batch_size = max(1, min(batch_size, memory // (hands * each)))
    hands = max(1, min(hands, n))
    batch_size = max(1, min(batch_size, -(-n // hands)))
    peaks = peaks or {name: peak_of_raster(raster) for name, raster in known.items()}
    cuts = {p.name: WHOLE for p in populations}
    if ours:
        cuts = {p.name: channels_together(network, p, batch_size) for p in populations}
    currents = currents_of(network, cuts, peaks, dtype, place, exact=exact)
    kept = _Kept(network, populations, (n, steps), record, states, pack, last if output else None)

    def run(rows: slice) -> dict[str, int]:
        activity: dict[str, torch.Tensor] = {}
        potentials = kept.potentials(rows, dtype)
        # Each thread has this setting of its own.
        with torch.no_grad():
            for block in blocks:
                for name in heard_by(network, block) & known.keys() - activity.keys():
                    raster = np.moveaxis(known[name][rows], 1, 0).astype(network.dtype)
                    activity[name] = torch.from_numpy(raster).to(place)
                activity |= run_block(network, block, activity, potentials, currents, cuts, dtype)
        kept.write(rows, activity, potentials)
        return {name: int(torch.count_nonzero(activity[name])) for name in kept.spiking}

    fired = dict.fromkeys(kept.spiking, 0)
    batches = batches_of(n, batch_size)
    with in_full_precision(place), task(progress, title, n):
        done = by_threads(run, batches, hands, threads // hands)
        for rows, found in zip(batches, done, strict=True):
            for name, count in found.items():
                fired[name] += count
            progress.advance(rows.stop - rows.start)
    rates = {p.name: fired[p.name] / (n * steps * p.size) for p in populations if p.name in fired}
    recorded = {**kept.spikes, INPUT: spikes} if INPUT in record else kept.spikes
    return FloatRun(recorded, kept.answers, rates, kept.v, kept.packed)


class _Kept:
    """What is kept of a run, written by batches of samples."""

    def __init__(
        self,
        network: Network,
        populations: Sequence[Population],
        shape: tuple[int, int],
        record: Collection[str],
        states: Collection[str],
        pack: Collection[str],
        answer: str | None,
    ) -> None:
        spiking = [p for p in populations if p.neuron.spiking]
        self.spiking = [p.name for p in spiking]
        self.spikes: dict[str, InputArray] = {
            p.name: np.empty((*shape, *p.shape), np.uint8) for p in spiking if p.name in record
        }
        self.packed = {p.name: PackedSpikes((*shape, *p.shape)) for p in spiking if p.name in pack}
        self.v: dict[str, FloatArray] = {
            p.name: np.empty((*shape, *p.shape), network.dtype)
            for p in populations
            if p.name in states
        }
        last = network.output.name if answer is None else answer
        samples = shape[0] if answer is not None else 0
        self.answers = np.empty((samples, shape[1], *network.shape_of(last)), network.dtype)
        self._answer = answer

    def potentials(self, rows: slice, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return what potentials (T, n, *shape) of some samples are put into."""
        import torch

        count = rows.stop - rows.start
        return {
            name: torch.empty((array.shape[1], count, *array.shape[2:]), dtype=dtype)
            for name, array in self.v.items()
        }

    def write(
        self,
        rows: slice,
        activity: Mapping[str, torch.Tensor],
        potentials: Mapping[str, torch.Tensor],
    ) -> None:
        """Keep what is asked of the activity (T, n, *shape) of some samples."""
        import torch

        for name in self.spikes.keys() | self.packed.keys():
            spikes = np.moveaxis(activity[name].to(torch.uint8).cpu().numpy(), 0, 1)
            if name in self.spikes:
                self.spikes[name][rows] = spikes
            if name in self.packed:
                self.packed[name][rows] = spikes
        for name, potential in potentials.items():
            self.v[name][rows] = np.moveaxis(potential.numpy(), 0, 1)
        if self._answer is not None:
            self.answers[rows] = np.moveaxis(activity[self._answer].cpu().numpy(), 0, 1)


def activity_bytes(steps: int, sizes: Sequence[int]) -> int:
    """Return what the activity of populations of these sizes takes for one sample."""
    # In single precision, and once more while it is written.
    return max(1, 4 * steps * (sum(sizes) + max(sizes)))
