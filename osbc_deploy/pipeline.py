"""The whole pipeline, from a trained module to a report, as one function.

``import -> calibrate and compress -> lower -> map -> run -> report``; each stage takes frozen data
and returns the next. The command line is a thin shell around :func:`deploy`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.accuracy import doubts, evaluate
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import place
from osbc_deploy.chip.traffic import operations, traffic
from osbc_deploy.compress.network import CompressedNetwork, CompressionOptions, compress
from osbc_deploy.compress.rows import DEFAULT_MEMORY
from osbc_deploy.deployment import Deployment
from osbc_deploy.fidelity import Fidelity, compare
from osbc_deploy.formats.netx.limits import FORMAT as NETX
from osbc_deploy.formats.netx.limits import check_writable
from osbc_deploy.job import Job, prepare
from osbc_deploy.lower.lowering import lower
from osbc_deploy.model.graph import INPUT
from osbc_deploy.model.readout import Readout, classes_of
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.provenance import Call, provenance, request

__all__ = ["deploy", "finish"]


def deploy(
    module: Any,
    calibration: Any,
    *,
    target: str = "loihi2-sim",
    test: Any = None,
    weights: str | Path | None = None,
    dt: float | None = None,
    reset: str | None = None,
    sparsity: float = 0.9,
    bits: int = 4,
    method: str = "osbc",
    budget: str = "lamps",
    pattern: str = "weights",
    mixed: bool = False,
    tune: bool = True,
    solver_memory: int = DEFAULT_MEMORY,
    resume: str | Path | None = None,
    readout: Readout = "sum",
    classes: int | None = None,
    backend: str | None = None,
    backend_samples: int = 16,
    time_limit: float = 600.0,
    progress: Progress = SILENT,
    call: Call | None = None,
) -> Deployment:
    """Compress a trained network and deploy it on a chip.

    Parameters
    ----------
    module : torch.nn.Module, nir.NIRGraph or str
        A network of norse, snnTorch or SpikingJelly, ``package.module:factory``, a NIR graph, or
        the path of a NIR (``.nir``) or NetX file (``.net``).
    calibration : Samples, path, str, array or Dataset
        Typical input, spikes (n, T, ...); a hundred samples do.
    target : str
        Name of a target, or the path of its TOML file.
    test : like `calibration`, optional
        Labelled samples to evaluate; the calibration samples by default.
    weights : path, optional
        A safetensors state dict to load into `module`.
    dt : float, optional
        Time step of a NIR graph, which does not hold one, in the unit of its time constants.
    reset : {"zero", "subtract"}, optional
        What a spike does in a NIR graph, which does not say: set the potential to ``v_reset``, or
        take the threshold away.
    sparsity, bits, method, budget, pattern, mixed, tune
        See :class:`CompressionOptions`.
    solver_memory : int
        Bytes that the solver's working memory may take.
    resume : path, optional
        A folder for finished layers; a run that was killed goes on from there.
    readout : {"sum", "last", "max", "vote:N"}
        How the output over time becomes a class; with votes, of N outputs in a row for each class.
    classes : int, optional
        Classes that the network tells apart, an output each, where the labels hold only the first
        of them; one more than the highest label by default.
    backend : str, optional
        Another backend than the target's.
    backend_samples : int
        Samples run on the backend and compared with the engine, spike by spike; 0 for none. The
        engine itself is compared with its NumPy specification, on fewer where that takes long.
    time_limit : float
        Seconds the backend may take.
    progress : Progress
    call : Call, optional
        Command line and seed, for the provenance; the call from Python by default.

    Returns
    -------
    Deployment

    Raises
    ------
    OsbcError
        With the branch's meaning; see :mod:`osbc_deploy.errors`.
    """
    asked = request(deploy, locals(), call)
    options = CompressionOptions(
        sparsity=sparsity,
        bits=bits,
        method=method,
        budget=budget,
        pattern=pattern,
        mixed=mixed,
        tune=tune,
        memory=solver_memory,
    )
    job = prepare(
        module,
        calibration,
        target=target,
        test=test,
        weights=weights,
        dt=dt,
        reset=reset,
        readout=readout,
        classes=classes,
        backend=backend,
        backend_samples=backend_samples,
        time_limit=time_limit,
        asked=asked,
    )
    options = replace(options, scale_groups=job.scale_groups)
    compressed = compress(job.network, job.typical.spikes, options, state=resume, progress=progress)
    return finish(job, compressed, progress=progress)


def finish(job: Job, compressed: CompressedNetwork, *, progress: Progress = SILENT) -> Deployment:
    """Lower, map, evaluate and compare a compressed network."""
    lowered = lower(
        compressed,
        job.typical.spikes,
        job.chip.number_formats,
        readout=job.readout,
        progress=progress,
    )
    if job.chip.exchange == NETX:
        check_writable(lowered.network)
    layers = layers_of(lowered.network)
    mapping = map_layers(layers, job.chip)
    spikes = {
        INPUT: np.count_nonzero(job.typical.spikes, axis=(0, 1)).ravel() / len(job.typical),
        **{name: seen.counts / len(job.typical) for name, seen in lowered.activity.items()},
    }
    placement = place(traffic(mapping, layers, spikes), job.chip)
    accuracy, engine = evaluate(compressed, lowered, job.evaluated, job.readout, progress)
    fidelity = Fidelity(None)
    if job.runner is not None:
        fidelity = compare(
            job.runner,
            lowered.network,
            job.evaluated,
            job.backend_samples,
            time_limit=job.time_limit,
            progress=progress,
        )
    return Deployment(
        target=job.chip,
        network=job.network,
        compressed=compressed,
        lowered=lowered,
        mapping=mapping,
        placement=placement,
        operations=operations(mapping, layers, spikes),
        accuracy=accuracy,
        fidelity=fidelity,
        activity=engine.activity,
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
        ),
    )
