"""The float network's activity in exact sums, its samples spread over workers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from osbc_deploy.arrays import InputArray
from osbc_deploy.cluster import Part
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.model.raster import PackedSpikes, Raster, part_of, peak_of_raster
from osbc_deploy.model.simulate import FloatRun, simulate
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["ACTIVITY", "active"]

ACTIVITY = 4
"""A quarter of the solver's memory is for the activity of samples simulated side by side."""


@dataclass(frozen=True, eq=False)
class _Samples:
    """Some samples, and what is known of them."""

    part: Part
    spikes: InputArray
    given: Mapping[str, Raster]

    def __str__(self) -> str:
        return str(self.part)


def active(
    network: Network,
    spikes: InputArray,
    space: Workspace,
    *,
    memory: int,
    pack: Collection[str] = (),
    given: Mapping[str, Raster] | None = None,
    until: str | None = None,
    output: bool = True,
    batch_size: int = 64,
    progress: Progress = SILENT,
    title: str = "float network",
) -> FloatRun:
    """Run samples through a network in exact sums; see :func:`.simulate` for what is asked."""
    asked: dict[str, Any] = {
        "pack": pack, "until": until, "output": output, "exact": True,
        "batch_size": batch_size, "memory": memory, "device": space.device,
    }  # fmt: skip
    given = given or {}
    crew = space.crew_for(_cost(network, spikes.shape[:2], given, until), len(spikes))
    if crew is None:
        return simulate(network, spikes, given=given, progress=progress, title=title, **asked)
    asked["peaks"] = {name: peak_of_raster(r) for name, r in {INPUT: spikes, **given}.items()}
    shares = [
        _Samples(
            part,
            spikes[part.slice],
            {name: part_of(raster, part.slice) for name, raster in given.items()},
        )
        for part in Part.cut(len(spikes), crew.hands, "samples")
    ]
    runs: dict[int, FloatRun] = {}
    with task(progress, title, len(spikes)):
        for number, run in crew.run(_elsewhere, (network, asked), shares):
            runs[number] = run
            progress.advance(len(shares[number].spikes))
    return _joined(network, [runs[number] for number in range(len(shares))], shares)


def _elsewhere(common: tuple[Network, dict[str, Any]], share: _Samples, threads: int) -> FloatRun:
    network, asked = common
    return simulate(network, share.spikes, given=share.given, **asked)


def _joined(network: Network, runs: Sequence[FloatRun], shares: Sequence[_Samples]) -> FloatRun:
    """Return the run of all samples from those of parts of them."""
    first, counts = runs[0], [len(share.spikes) for share in shares]
    packed = {}
    for name, raster in first.packed.items():
        bits = np.concatenate([run.packed[name].bits for run in runs])
        packed[name] = PackedSpikes((sum(counts), *raster.shape[1:]), bits)
    steps, rates = shares[0].spikes.shape[1], {}
    for population in network.populations:
        if (name := population.name) in first.rates:
            each = steps * population.size
            # A rate is a whole number of spikes, divided once.
            fired = sum(round(r.rates[name] * n * each) for r, n in zip(runs, counts, strict=True))
            rates[name] = fired / (sum(counts) * each)
    return replace(
        first, output=np.concatenate([run.output for run in runs]), rates=rates, packed=packed
    )


def _cost(
    network: Network, shape: tuple[int, ...], given: Mapping[str, Raster], until: str | None
) -> float:
    """Return the multiplications of what is simulated, each weight's as two exact parts."""
    total = 0.0
    for population in network.populations:
        if population.name not in given:
            for p in network.afferents(population.name):
                total += 2.0 * network.multiplications(p)
        if population.name == until:
            break
    return total * shape[0] * shape[1]
