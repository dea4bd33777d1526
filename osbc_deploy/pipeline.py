"""The whole pipeline, from a trained module to a report, as one function.

``import -> calibrate and compress -> lower -> map -> run -> report``; each stage takes frozen data
and returns the next. The command line is a thin shell around :func:`deploy`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.accuracy import doubts, evaluate
from osbc_deploy.chip.alone import map_alone
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import place
from osbc_deploy.chip.pooling import counted_poolings
from osbc_deploy.chip.step import step_load
from osbc_deploy.chip.traffic import operations, traffic
from osbc_deploy.chip.unpruned import unpruned
from osbc_deploy.cluster import Crew, crew_of
from osbc_deploy.compress.augmentation import missed
from osbc_deploy.compress.calibration import collect
from osbc_deploy.compress.cutting import Thinned
from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.compress.shared import Shared
from osbc_deploy.compress.thinning import irremovable, thinned, worths
from osbc_deploy.deployment import Deployment
from osbc_deploy.fidelity import Fidelity, compare
from osbc_deploy.fixedpoint.coding import InputSeen
from osbc_deploy.formats.format import check_integers
from osbc_deploy.job import Job, VerbCall, prepare, verb
from osbc_deploy.lower.counting import kept_apart
from osbc_deploy.lower.lowering import Lowered, lower
from osbc_deploy.lower.repeated import broken_patterns
from osbc_deploy.lower.timing import timing
from osbc_deploy.lower.unheard import without_idle
from osbc_deploy.model.graph import INPUT
from osbc_deploy.model.readout import classes_of
from osbc_deploy.options import DeployOptions
from osbc_deploy.options.notation import removed_by
from osbc_deploy.plain_text import many
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.provenance import provenance, request

__all__ = ["compressed_for", "deploy", "finish", "lowered_for"]


@dataclass(frozen=True, kw_only=True)
class DeployCall(DeployOptions, VerbCall):
    """The arguments of :func:`deploy`."""

    options: DeployOptions | None = None


@verb(DeployCall, DeployOptions)
def deploy(call: DeployCall) -> Deployment:
    """Compress a trained network and deploy it on a chip.

    Takes `module` and `calibration`, then by keyword `test`, `progress` and `call` (see
    :class:`osbc_deploy.job.VerbCall`), and every option of :class:`osbc_deploy.DeployOptions`,
    together as `options` or each by its own keyword, which overrides.

    Returns
    -------
    Deployment

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    job = prepare(call, request(deploy, DeployOptions, call), device=call.device)
    return finish(job, compressed_for(job, call, call.progress), progress=call.progress)


def compressed_for(
    job: Job,
    asked: DeployOptions,
    progress: Progress = SILENT,
    *,
    shared: Shared | None = None,
    threads: int = 0,
) -> CompressedNetwork:
    """Compress the network of a job as its verb was asked to.

    Parameters
    ----------
    job : Job
    asked : DeployOptions
    progress : Progress
    shared : Shared, optional
        What other jobs of the same network and samples found.
    threads : int
        0 for one per core.
    """
    with crew_of(asked) as crew:
        return _compressed(job, asked, crew, progress, shared, threads)


def _compressed(
    job: Job,
    asked: DeployOptions,
    crew: Crew | None,
    progress: Progress,
    shared: Shared | None,
    threads: int,
) -> CompressedNetwork:
    options = CompressionOptions.of(
        asked, scale_groups=job.scale_groups, dynamics=job.dynamics, readout=job.readout,
        augment=asked.augment,
    )  # fmt: skip
    options = replace(options, threads=threads, device=asked.device, crew=crew)
    if asked.remove_neurons:
        less = without_neurons(job, options, asked.remove_neurons, progress)
        smaller = replace(job, network=less.network)
        rest = replace(asked, remove_neurons=0.0)
        if removed_by(asked.pattern) is None:
            # What is removed with neurons counts: as many weights stay as without.
            stay = min(1.0, (1.0 - asked.sparsity) * job.network.weights / less.network.weights)
            rest = replace(rest, sparsity=1.0 - stay)
        done = less.whole(_compressed(smaller, rest, crew, progress, None, threads))
        return replace(done, options=replace(options, crew=None))
    apart = kept_apart(job.network, counted_poolings(job.network, job.chip, options))
    populations = {p.name: p for p in apart.network.populations}
    times = timing(apart.network)

    def words(name: str, layer: Sequence[CompressedProjection]) -> int:
        return map_alone(apart, populations[name], layer, job.chip, times).words

    return compress(
        job.network,
        job.typical.spikes,
        options,
        state=asked.resume,
        cost=words,
        shared=shared,
        progress=progress,
    )


def without_neurons(
    job: Job, options: CompressionOptions, share: float, progress: Progress
) -> Thinned:
    """Remove a share of the hidden neurons of a job's network."""
    shared = Shared(options.solver_memory)
    spikes = job.typical.spikes
    found = collect(job.network, spikes, options, shared=shared, progress=progress)
    values = worths(job.network, found.problems)
    less = thinned(job.network, spikes, options, values, share, shared=shared, progress=progress)
    return replace(less, notes=tuple(irremovable(job.network, values)))


def lowered_for(
    job: Job,
    compressed: CompressedNetwork,
    progress: Progress = SILENT,
    *,
    counted: Collection[str] | None = None,
) -> Lowered:
    """Lower the compressed network of a job to the chip's integers, without idle neurons.

    Parameters
    ----------
    job : Job
    compressed : CompressedNetwork
    progress : Progress
    counted : collection of str, optional
        What :func:`.counted_poolings` gives, where it is known.
    """
    if counted is None:
        counted = counted_poolings(job.network, job.chip, compressed.options)
    done = lower(
        compressed,
        job.typical.spikes,
        job.chip.number_formats,
        input=job.input,
        counted=counted,
        readout=job.readout,
        progress=progress,
    )
    pattern = Pattern.parse(compressed.options.pattern)
    if pattern.kind != "n:m":
        return without_idle(done, 1, compressed.removed)
    broken = broken_patterns(compressed.network.projections, done.network, pattern.n, pattern.m)
    done = replace(done, deviations=(*done.deviations, *broken))
    # What is left out must not shift the groups of an N:M pattern.
    return without_idle(done, pattern.m, compressed.removed)


_FEW = 20
"""Samples of calibration; below 40, none are held out."""


def finish(job: Job, compressed: CompressedNetwork, *, progress: Progress = SILENT) -> Deployment:
    """Lower, map, evaluate and compare a compressed network."""
    counted = counted_poolings(job.network, job.chip, compressed.options)
    lowered = lowered_for(job, compressed, progress, counted=counted)
    check_integers(job.chip.exchange, lowered.network)
    layers = layers_of(lowered.network)
    mapping = map_layers(layers, job.chip)
    sent = lowered.network.input.codes(job.typical.spikes)
    spikes = {
        INPUT: np.count_nonzero(sent, axis=(0, 1)).ravel() / len(job.typical),
        **{name: seen.counts / len(job.typical) for name, seen in lowered.activity.items()},
    }
    placement = place(traffic(mapping, layers, spikes), job.chip)
    steps = job.typical.spikes.shape[1]
    mean_step = {name: counts / steps for name, counts in spikes.items()}
    keep = 0 if job.runner is None else job.backend_samples
    accuracy, engine = evaluate(
        compressed, lowered, job.evaluated, job.readout, progress, keep=keep
    )
    fidelity = Fidelity(None)
    if job.runner is not None:
        fidelity = compare(
            job.runner,
            lowered.network,
            job.evaluated,
            job.backend_samples,
            ours=engine,
            time_limit=job.time_limit,
            progress=progress,
        )
    apart = kept_apart(compressed.network, counted)
    before = unpruned(compressed, apart, lowered.whole, job.chip)
    return Deployment(
        target=job.chip,
        network=job.network,
        compressed=compressed,
        lowered=lowered,
        mapping=mapping,
        unpruned=before,
        placement=placement,
        operations=operations(mapping, layers, spikes),
        load=step_load(mapping, layers, mean_step, placement, job.chip),
        accuracy=accuracy,
        fidelity=fidelity,
        activity=engine.activity,
        input=InputSeen.of(lowered.network.input, job.evaluated.spikes),
        provenance=provenance(
            job.asked,
            model=job.network,
            network=lowered.network,
            target=job.chip,
            calibration=job.typical,
            test=job.evaluated,
            run=engine,
        ),
        warnings=(
            *job.network.warnings,
            *doubts(
                accuracy,
                job.evaluated.labels,
                classes_of(job.readout, job.network.output.size),
                job.classes,
            ),
            *_few(job, compressed),
        ),
        steps=job.steps(lowered.network),
    )


def _few(job: Job, compressed: CompressedNetwork) -> Iterator[str]:
    """Say where compression had little to go by."""
    count = len(job.typical)
    if count < _FEW:
        yield (
            f"calibration: {job.typical.name} holds {many(count, 'sample')}, few to fit "
            "weights to, and none are held out to see what that loses; a hundred are usual"
        )
    if text := missed(job.network, job.typical.spikes, compressed.options):
        yield f"calibration: {text}"
