"""What calibration finds in the float network: spikes, and the problem of every population."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from osbc_deploy.arrays import SpikeArray
from osbc_deploy.compress.activity import ACTIVITY, active
from osbc_deploy.compress.augmentation import copies
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.problem import LayerProblem
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.sampling import ROWS_PER_INPUT
from osbc_deploy.compress.scene import Scene
from osbc_deploy.compress.shared import Shared, SharedScene
from osbc_deploy.compress.solver_memory import check_solver_memory
from osbc_deploy.compress.traces import shares_kernel
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import DataError
from osbc_deploy.model.graph import INPUT, Network, Population
from osbc_deploy.model.raster import Raster
from osbc_deploy.model.simulate import FloatRun
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["Statistics", "collect", "float_run", "oddities", "scene_of"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What calibration found: the problem of every population's weights.

    Attributes
    ----------
    problems : tuple of LayerProblem
        In network order; gates have none.
    rates : dict of float
        Mean spikes per neuron and step, by population.
    deviations : tuple of Deviation
    """

    problems: tuple[LayerProblem, ...]
    rates: Mapping[str, float]
    deviations: tuple[Deviation, ...]


def collect(
    network: Network,
    calibration: SpikeArray,
    options: CompressionOptions,
    *,
    shared: Shared | None = None,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> Statistics:
    """Run the calibration samples through the float network and build every layer's Hessian.

    The samples are joined by copies where :func:`.copies` says so.

    Raises
    ------
    ArtefactError
        When the calibration set holds no spike at all.
    """
    added = copies(network, calibration, options)
    calibration = added.add(calibration)
    check_solver_memory(
        network, (len(calibration), calibration.shape[1]), options, tuned=False, together=True
    )
    shared = shared or Shared()
    run = shared.take(
        ("float run", len(calibration)),
        lambda: float_run(network, calibration, batch_size, progress, space=options.space()),
    )
    deviations = [*added.deviations, *oddities(network, run)]
    problems = []
    with task(progress, "Hessians", len(network.trained) * len(calibration)):
        for population in network.trained:
            scene = scene_of(network, population, calibration, run, {}, options, progress, shared)
            problem = scene.problem(scene.moments(cross=False, part=slice(None)), free_bias=False)
            deviations.extend(problem.deviations)
            problems.append(problem)
    return Statistics(tuple(problems), run.rates, tuple(deviations))


def float_run(
    network: Network,
    calibration: SpikeArray,
    batch_size: int,
    progress: Progress,
    *,
    space: Workspace,
) -> FloatRun:
    """Run the calibration samples, keeping the answers and the spikes that projections carry.

    Raises
    ------
    DataError
        When the samples hold no spike.
    """
    if not calibration.any():
        raise DataError(
            "calibration: all spikes are 0, at least one active input is needed. "
            "Check how the events were binned."
        )
    return active(
        network,
        calibration,
        space,
        pack={p.pre for p in network.projections},
        batch_size=batch_size,
        memory=space.memory // ACTIVITY,
        progress=progress,
        title="calibrate",
    )


def oddities(network: Network, run: FloatRun) -> Iterator[Deviation]:
    """Tell what about the float network the compression cannot do justice to."""
    for name, rate in run.rates.items():
        if rate == 0.0:
            text = "no neuron of this population fired in calibration"
            yield Deviation("compress", name, text)
    for population in network.populations:
        if not shares_kernel(population.neuron.dynamics()):
            text = "neurons differ in their decays; the Hessian uses the mean"
            yield Deviation("compress", population.name, text)


def scene_of(
    network: Network,
    population: Population,
    calibration: SpikeArray,
    run: FloatRun,
    arriving: Mapping[str, Raster],
    options: CompressionOptions,
    progress: Progress,
    shared: Shared,
) -> Scene:
    """Return a population between what arrives from compressed layers and the float network."""
    before: dict[str, Raster] = {**run.packed, INPUT: calibration}
    names = [p.name for p in network.populations]
    upstream = [INPUT, *names[: names.index(population.name)]]
    return SharedScene(
        network=network,
        population=population,
        calibration=calibration,
        before=before,
        arriving={name: arriving.get(name, before[name]) for name in upstream if name in before},
        rate=run.rates.get(population.name, 0.0),
        wanted=run.output.sum(axis=1, dtype=np.float64).reshape(len(calibration), -1),
        method=options.method,
        damping=options.added,
        space=options.space(progress.advance),
        rows_per_input=ROWS_PER_INPUT,
        dynamics=None
        if options.method == "obc"
        else options.dynamics.get(population.name) or population.neuron.dynamics(),
        shared=shared,
    )
