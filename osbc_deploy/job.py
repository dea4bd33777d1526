"""What a verb is asked to do: options checked, target, data, backend and network loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from osbc_deploy.accuracy import check_classes
from osbc_deploy.backends import Backend, load_backend
from osbc_deploy.chip.target import Target, load_target
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import BackendError, UsageError
from osbc_deploy.formats.netx.limits import FORMAT as NETX
from osbc_deploy.formats.netx.limits import check_network
from osbc_deploy.lower.features import check_features
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import Readout, check_readout, classes_of
from osbc_deploy.provenance import Request
from osbc_deploy.references import as_samples

__all__ = ["Job", "prepare"]


@dataclass(frozen=True, eq=False)
class Job:
    """Everything checked and loaded, before any work is done.

    Attributes
    ----------
    chip : Target
    network : Network
    typical, evaluated : Samples
        For calibration and for evaluation.
    readout : {"sum", "last", "max", "vote:N"}
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
    of :func:`osbc_deploy.deploy`.
    """
    asked = asked or Request()
    check_readout(readout)
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
    from osbc_deploy.importing import import_network

    network = import_network(module, weights, typical, dt=dt, reset=reset)
    check_features(network)
    if chip.exchange == NETX:
        check_network(network)
    check_readout(readout, network.output.size)
    check_classes((typical, evaluated), classes_of(readout, network.output.size), classes)
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
