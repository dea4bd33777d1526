"""Compress every projection of a network against what it saw in calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.augmentation import Copies, copies
from osbc_deploy.compress.calibration import Statistics, float_run, oddities, scene_of
from osbc_deploy.compress.effort import effort_of
from osbc_deploy.compress.guard import enough_rows, held_out_loss, held_out_note, more_rows
from osbc_deploy.compress.last_word import better
from osbc_deploy.compress.layer import Solver
from osbc_deploy.compress.magnitude import compress_by_magnitude, enough_samples
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.pace import measured_pace
from osbc_deploy.compress.plan import Cost, pattern_of, plan
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection, adapted
from osbc_deploy.compress.scene import HELD_OUT, MIN_HELD_OUT, Scene
from osbc_deploy.compress.shared import Shared
from osbc_deploy.compress.solver_memory import check_solver_memory
from osbc_deploy.compress.state import FinishedLayer, SolverState, state_belongs_to
from osbc_deploy.compress.tuning import tune, tune_threshold
from osbc_deploy.compress.work import Spent
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import UsageError
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.model.raster import Raster, part_of
from osbc_deploy.options import StrPath
from osbc_deploy.plain_text import many
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Settle", "assemble", "check_room", "compress", "helpers", "silent_outputs"]

Settle: TypeAlias = Callable[[str, tuple[CompressedProjection, ...]], FinishedLayer]
"""From a population and its compressed weights to those it gets, and the deviations to report."""


def compress(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions | None = None,
    *,
    state: StrPath | None = None,
    cost: Cost | None = None,
    shared: Shared | None = None,
    settle: Settle | None = None,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> CompressedNetwork:
    """Prune and quantize a network in one shot.

    Parameters
    ----------
    network : Network
    calibration : ndarray of uint8 (n, T, *input_shape)
        Input spikes the network is typical for; labels are not used.
    options : CompressionOptions, optional
    state : path, optional
        A folder for finished layers. A run that was killed goes on from there and ends with the
        same result.
    cost : callable, optional
        What compressed weights take on the chip, for widths of least loss in the same memory.
    shared : Shared, optional
        What other compressions of the network on the same samples found.
    settle : callable, optional
        Has the last word on each population's weights, before the next one's are compressed.
    batch_size : int
        Samples simulated side by side.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all, or the state is broken.
    UsageError
        When the state belongs to another network, other samples or other options, the Hessians of
        a layer do not fit into the solver's memory, or the allocation is "auto".
    """
    options = options or CompressionOptions()
    if options.allocation == "auto":
        raise UsageError(
            "allocation: only compress_model tries auto. Give lamps, uniform or global here."
        )
    given = calibration
    added = copies(network, given, options)
    tuned = check_room(network, given, options, added)
    calibration = added.add(given)
    if options.method == "magnitude" and not (tuned or options.joint):
        calibration = enough_samples(network, given)
    effort = effort_of(network, len(calibration), calibration.shape[1], options, tuned=tuned)
    pace = measured_pace(options.threads)
    expected = effort.work.seconds(pace)
    progress.plan("\n".join(effort.lines(pace)), expected)
    began = time.perf_counter()
    store = None
    if state is not None:
        store = SolverState(Path(state), state_belongs_to(network.fingerprint(), given, options))
    shared = shared or Shared()
    run = shared.take(
        ("float run", len(calibration)),
        lambda: float_run(network, calibration, batch_size, progress, space=options.space()),
    )
    deviations = [
        *added.deviations,
        *oddities(network, run),
        *_of_samples(calibration, given, options, tuned=tuned),
    ]
    keep, bits = plan(network, calibration, run, options, store, progress, cost, shared)
    arriving: dict[str, Raster] = {INPUT: calibration}
    results: dict[str, CompressedProjection] = {}
    for population in network.populations:
        afferents = network.afferents(population.name)
        found = store.load(population.name, afferents) if store else None
        if population not in network.trained:
            found = (), ()
        elif found is None:
            scene = scene_of(
                network, population, calibration, run, arriving, options, progress, shared
            )
            found = _compress_population(scene, keep, bits, options, progress, tuned=tuned)
            if store:
                store.save(population.name, *found)
        layer, notes = found
        if settle is not None and layer:
            layer, more = settle(population.name, layer)
            notes = (*notes, *more)
        deviations.extend(notes)
        results |= {p.name: p for p in layer}
        if tuned and population is not network.output:
            after = active(
                adapted(network, results),
                calibration,
                options.space(),
                pack={population.name},
                given=arriving,
                until=population.name,
                output=False,
                batch_size=batch_size,
                memory=options.solver_memory // ACTIVITY,
            )
            arriving |= after.packed
    deviations.extend(helpers(options))
    alone = replace(options, crew=None)
    done = assemble(network, results, alone, Statistics((), run.rates, tuple(deviations)))
    # Who settles each population's weights has plain ones to compare with.
    if settle is None and any(p.chosen != "plain" for p in results.values()):
        without = partial(
            compress, network, given, replace(options, tune=False),
            state=None if state is None else Path(state) / "plain", cost=cost, shared=shared,
            batch_size=batch_size, progress=progress,
        )  # fmt: skip
        # Copies are no other samples: what one of them shows would be counted many times.
        own = slice(len(given))
        heard = {name: part_of(raster, own) for name, raster in arriving.items()}
        done = better(done, without, given, run.output[own], heard, options.space())
    return replace(done, spent=Spent(effort, expected, time.perf_counter() - began))


def _of_samples(
    used: SpikeArray, given: SpikeArray, options: CompressionOptions, *, tuned: bool
) -> Iterator[Deviation]:
    """Say what the number of calibration samples has led to."""
    if len(used) < len(given):
        text = f"firing rates and dead inputs from {len(used)} of {many(len(given), 'sample')}"
        yield Deviation("compress", "calibration", text)
    if options.tries and not tuned:
        text = (
            f"{many(len(given), 'calibration sample')} {'is' if len(given) == 1 else 'are'} too "
            "few to hold some out "
            f"({HELD_OUT * MIN_HELD_OUT} are needed), so no variant was tried"
        )
        yield Deviation("compress", "calibration", text)


def assemble(
    network: Network,
    results: Mapping[str, CompressedProjection],
    options: CompressionOptions,
    statistics: Statistics,
) -> CompressedNetwork:
    """Return the network with these compressed projections, and what is to be said of them."""
    silent = tuple(silent_outputs(results))
    return CompressedNetwork(
        network, results, options, statistics.deviations + silent, statistics.rates
    )


def helpers(options: CompressionOptions) -> Iterator[Deviation]:
    """Say how many other processes took part; the result does not depend on them."""
    if options.crew is not None:
        count = options.crew.worked
        text = f"worked on by {many(count, 'worker')}" if count else "too small to be spread"
        yield Deviation("compress", "workers", text)


def _compress_population(
    scene: Scene,
    keep: Mapping[str, int],
    bits: Mapping[str, int],
    options: CompressionOptions,
    progress: Progress,
    *,
    tuned: bool,
) -> tuple[tuple[CompressedProjection, ...], tuple[Deviation, ...]]:
    name = scene.population.name
    space = options.space()
    pattern = pattern_of(scene.network, scene.population, options)
    solve = Solver(keep.get(name), bits[name], options.scale_groups, pattern, space)

    with task(progress, f"compress {name}", len(scene.calibration)):
        if options.method == "magnitude":
            layer = compress_by_magnitude(
                scene.network,
                scene.population,
                scene.before,
                keep.get(name),
                bits[name],
                options.scale_groups,
            )
            return tune_threshold(scene, layer) if tuned else layer, ()
        while True:
            if tuned and all(p.compressible for p in scene.afferents):
                layer, problem = tune(scene, solve)
            else:
                moments = scene.moments(cross=False, part=slice(None))
                problem = scene.problem(moments, free_bias=False)
                layer = solve(problem)
            held = held_out_loss(problem, layer)
            if enough_rows(held, layer):
                notes = problem.deviations + held_out_note(held, problem.moments, layer)
                return layer, notes + tuple(_shared_scales(layer, options))
            scene = replace(scene, rows_per_input=more_rows(problem, scene.rows_per_input))


def check_room(
    network: Network, calibration: SpikeArray, options: CompressionOptions, added: Copies
) -> bool:
    """Return whether variants of each layer are tried, for which there must be room.

    Parameters
    ----------
    network : Network
    calibration : ndarray (n, T, *input_shape)
    options : CompressionOptions
    added : Copies
        Which are calibrated on as well.

    Raises
    ------
    UsageError
        When the Hessians of a layer do not fit into the solver's memory.
    """
    samples, steps = calibration.shape[:2]
    tuned = options.tries and samples >= HELD_OUT * MIN_HELD_OUT
    check_solver_memory(
        network, (added.count(samples), steps), options, tuned=tuned, together=options.joint
    )
    return tuned


def _shared_scales(
    layer: Sequence[CompressedProjection], options: CompressionOptions
) -> Iterator[Deviation]:
    """Say where the chip has fewer scales than the published recipe."""
    scale = layer[0].scale
    count = len(np.unique(scale))
    if options.method == "paper" and count < len(scale):
        text = (
            f"{len(scale)} outputs share {count} scales on this chip; the published recipe has "
            "one for each"
        )
        yield Deviation("compress", layer[0].name, text)


def silent_outputs(results: Mapping[str, CompressedProjection]) -> Iterator[Deviation]:
    """Say which layers have outputs without any weight."""
    for name, result in results.items():
        rows = result.codes.reshape(len(result.codes), -1)
        count = int((~rows.any(axis=1)).sum())
        if count:
            yield Deviation(
                "compress",
                name,
                f"{count} of {many(len(rows), 'output')} {'has' if count == 1 else 'have'} no "
                "weight left",
            )
