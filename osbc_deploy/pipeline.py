"""The whole pipeline, from a trained module to a report, as one function.

``import -> calibrate and compress -> lower -> map -> run -> report``; each stage takes frozen data
and returns the next. The command line is a thin shell around :func:`deploy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.accuracy import Accuracy, check_classes, doubts, evaluate
from osbc_deploy.artefact import write_network
from osbc_deploy.backends import Backend, load_backend
from osbc_deploy.chip.mapping import Mapping as ChipMapping
from osbc_deploy.chip.mapping import layers_of, map_layers
from osbc_deploy.chip.place import Placement, place
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.chip.traffic import Operations, operations, traffic
from osbc_deploy.compress.network import CompressedNetwork, CompressionOptions, compress
from osbc_deploy.compress.rows import DEFAULT_MEMORY
from osbc_deploy.data.samples import Samples
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import BackendError, UsageError
from osbc_deploy.fidelity import Fidelity, compare
from osbc_deploy.fixedpoint.lower import Lowered, check_features, lower
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.frontends.netx_limits import FORMAT as NETX
from osbc_deploy.frontends.netx_limits import check_network, check_writable
from osbc_deploy.frontends.references import as_samples
from osbc_deploy.network.graph import INPUT, Network, Readout
from osbc_deploy.progress import SILENT, Progress
from osbc_deploy.report.provenance import Call, Request, provenance, request
from osbc_deploy.writing import new_folder

__all__ = ["Accuracy", "Deployment", "Fidelity", "Job", "deploy", "finish", "prepare"]

READOUTS = ("sum", "last", "max")


@dataclass(frozen=True, eq=False)
class Deployment:
    """Everything a deployment produced.

    Attributes
    ----------
    target : Target
    network : Network
        The float network as imported.
    compressed : CompressedNetwork
    lowered : Lowered
        Holds the fixed-point network.
    mapping : ChipMapping
    placement : Placement or None
        None for a chip without a mesh, or when it does not fit.
    operations : dict of Operations
        Synaptic operations of a calibration sample, by population.
    accuracy : Accuracy
    fidelity : Fidelity
    activity : dict
        Of every population on the evaluated samples.
    provenance : dict
        What was asked for, when and where, and the fingerprints of model, network, target and data.
    warnings : tuple of str
        What puts the results in doubt, to be read before them.
    """

    target: Target
    network: Network
    compressed: CompressedNetwork
    lowered: Lowered
    mapping: ChipMapping
    placement: Placement | None
    operations: Mapping[str, Operations]
    accuracy: Accuracy
    fidelity: Fidelity
    activity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the network fits the chip."""
        return self.mapping.fits

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Everything that was done differently from the plain request."""
        imported = tuple(Deviation("import", self.network.source, n) for n in self.network.notes)
        said = (*self.target.remarks, *self.mapping.notes)
        remarks = tuple(Deviation("map", self.target.name, text) for text in said)
        made = imported + self.compressed.deviations + self.lowered.deviations
        return made + remarks + self._run_notes()

    def _run_notes(self) -> tuple[Deviation, ...]:
        hung = self.fidelity.restarts
        restarted = (
            Deviation("run", self.fidelity.backend or "", f"hung {hung} times and was restarted"),
        )
        return (restarted if hung else ()) + tuple(
            Deviation(
                "run",
                name,
                f"the current wrapped {seen.wraps} times and the potential "
                f"saturated {seen.saturations} times on the evaluated samples",
            )
            for name, seen in self.activity.items()
            if seen.wraps or seen.saturations
        )

    def report(self) -> dict[str, Any]:
        """Return the report as plain data; see ``osbc_deploy/report/schema.json``."""
        from osbc_deploy.report.build import build_report

        return build_report(self)

    def save(self, folder: str | Path, extra: Mapping[str, str] | None = None) -> None:
        """Write the fixed-point network and the report into a folder, whole or not at all.

        Parameters
        ----------
        folder : path
        extra : dict of str, optional
            Texts of further files, by file name.
        """
        import json

        with new_folder(Path(folder), DEPLOYMENT) as work:
            write_network(self.lowered.network, work)
            text = json.dumps(self.report(), indent=1) + "\n"
            (work / "report.json").write_text(text, encoding="utf-8")
            for name, content in (extra or {}).items():
                (work / name).write_text(content, encoding="utf-8")


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
    readout : {"sum", "last", "max"}
        How the output over time becomes a class.
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


@dataclass(frozen=True, eq=False)
class Job:
    """Everything checked and loaded, before any work is done.

    Attributes
    ----------
    chip : Target
    network : Network
    typical, evaluated : Samples
        For calibration and for evaluation.
    readout : {"sum", "last", "max"}
    runner : Backend or None
    backend_samples : int
    time_limit : float
    classes : int or None
        Classes the network tells apart, where the labels do not say.
    asked : Request
        For the provenance.
    """

    chip: Target
    network: Network
    typical: Samples
    evaluated: Samples
    readout: Readout
    runner: Backend | None
    backend_samples: int
    time_limit: float
    classes: int | None = None
    asked: Request = field(default_factory=Request)

    @property
    def scale_groups(self) -> int:
        """Different weight scales a layer may have: the neuron groups of a core."""
        return self.chip.memory.scale_groups


def prepare(
    module: Any,
    calibration: Any,
    *,
    target: str = "loihi2-sim",
    test: Any = None,
    weights: str | Path | None = None,
    dt: float | None = None,
    reset: str | None = None,
    readout: Readout = "sum",
    classes: int | None = None,
    backend: str | None = None,
    backend_samples: int = 16,
    time_limit: float = 600.0,
    asked: Request | None = None,
) -> Job:
    """Check all options, load target, backend and samples, and import the network.

    `asked` is what the provenance will say was asked for. All other parameters and errors are those
    of :func:`deploy`.
    """
    asked = asked or Request()
    if readout not in READOUTS:
        raise UsageError(f"readout: {readout!r} is none of {', '.join(READOUTS)}.")
    if backend_samples < 0:
        raise UsageError(f"backend samples: {backend_samples} is negative; 0 or more are allowed.")
    if not time_limit > 0:
        raise UsageError(f"time limit: {time_limit:g} s must be more than 0.")
    chip = load_target(target)
    _ = chip.number_formats  # without them nothing could be lowered; say so before any work
    runner = _ready_backend(backend or chip.backend) if backend_samples else None
    typical = as_samples(calibration, "calibration")
    evaluated = typical if test is None else as_samples(test, "test")
    if evaluated.input_shape != typical.input_shape:
        raise UsageError(
            f"test: samples have shape {evaluated.input_shape}, the calibration "
            f"samples {typical.input_shape}. Give both the same."
        )
    # norse and torch take seconds to import; bad options should fail before that.
    from osbc_deploy.frontends.importing import import_network

    network = import_network(module, weights, typical, dt=dt, reset=reset)
    check_features(network)
    if chip.exchange == NETX:
        check_network(network)
    check_classes((typical, evaluated), network.output.size, classes)
    asked = replace(
        asked, options={**asked.options, "backend": None if runner is None else runner.name}
    )
    return Job(
        chip,
        network,
        typical,
        evaluated,
        readout,
        runner,
        backend_samples,
        time_limit,
        classes,
        asked,
    )


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
            *doubts(accuracy, job.evaluated.labels, job.network.output.size, job.classes),
        ),
    )


def _ready_backend(name: str) -> Backend:
    """Load a backend and make sure it can run, before hours are spent on its input."""
    backend = load_backend(name)
    availability = backend.availability()
    if not availability.ok:
        raise BackendError(
            f"backend {name!r}: cannot run here ({availability.detail}). "
            f"{availability.remedy} Or skip the comparison with "
            "--backend-samples 0, or use --backend engine."
        )
    return backend
