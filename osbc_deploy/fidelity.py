"""Whether two simulations of the integers give the same bits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from osbc_deploy.backends import Backend, BackendRun, run_backend
from osbc_deploy.data.samples import Samples
from osbc_deploy.fixedpoint.engine import EngineRun
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.plain import work_of
from osbc_deploy.progress import SILENT, Progress

__all__ = ["ENGINE", "SPECIFICATION", "Fidelity", "compare", "reference_of", "run_first"]

ENGINE = "engine"
"""Backend of the core: the engine's specification, so that the engine is not its own witness."""

SPECIFICATION = "specification"

_MOST_WORK = 30_000_000_000
"""Multiply-adds that the specification may take, some ten seconds' worth; never less than a sample.
"""


@dataclass(frozen=True)
class Fidelity:
    """How two simulations of the integers compare.

    Attributes
    ----------
    backend : str or None
        None when no comparison was asked for.
    reference : str or None
        What the backend is held against: "engine", or for the engine itself "specification".
    samples : int
    left_out : int
        Samples that were asked for and would have taken the specification too long.
    compared_spikes : int
        Spike-or-no-spike decisions compared, of every spiking population.
    mismatched_spikes : int
    compared_potentials, mismatched_potentials : int
        The same for the potentials of a readout.
    restarts : int
        Times the backend hung and was started again.
    """

    backend: str | None
    reference: str | None = None
    samples: int = 0
    left_out: int = 0
    compared_spikes: int = 0
    mismatched_spikes: int = 0
    compared_potentials: int = 0
    mismatched_potentials: int = 0
    restarts: int = 0

    @property
    def exact(self) -> bool:
        """Whether every bit compared was the same."""
        return self.mismatched_spikes == 0 and self.mismatched_potentials == 0


def reference_of(backend: Backend) -> str:
    """Return what a backend is held against; see :class:`Fidelity`."""
    return SPECIFICATION if backend.name == ENGINE else "engine"


def run_first(
    backend: Backend,
    network: FixedPointNetwork,
    samples: Samples,
    count: int,
    *,
    states: Collection[str] = (),
    time_limit: float,
    progress: Progress = SILENT,
) -> tuple[BackendRun, Samples, int]:
    """Run the first samples on a backend.

    Parameters
    ----------
    backend : Backend
    network : FixedPointNetwork
    samples : Samples
    count : int
        Samples to run, at most.
    states : collection of str
        Populations whose u and v are wanted.
    time_limit : float
        Seconds the backend may take.
    progress : Progress

    Returns
    -------
    theirs : BackendRun
    few : Samples
        Those that were run.
    left_out : int
        Samples that were asked for but not run: the specification takes its time, so there is a
        limit to its work, which does not depend on the machine.

    Raises
    ------
    BackendError
        When the backend fails, or answers what no backend may.
    """
    few = samples.take(count)
    asked = len(few)
    if reference_of(backend) == SPECIFICATION:
        few = few.take(max(1, _MOST_WORK // (few.steps * work_of(network))))
    payloads = network.input.codes(few.spikes)
    if network.input.graded:
        payloads = payloads.astype(np.int32)
    theirs = run_backend(
        backend, network, payloads, states=states, time_limit=time_limit, progress=progress
    )
    return theirs, few, asked - len(few)


def compare(
    backend: Backend,
    network: FixedPointNetwork,
    samples: Samples,
    count: int,
    *,
    ours: EngineRun,
    time_limit: float,
    progress: Progress = SILENT,
) -> Fidelity:
    """Run samples on a backend and count every bit that differs from the engine's.

    Parameters
    ----------
    ours : EngineRun
        Of `samples`, with all spikes of the first `count` at least.
    backend, network, samples, count, time_limit, progress
        And errors: those of :func:`run_first`.
    """
    theirs, few, left_out = run_first(
        backend, network, samples, count, time_limit=time_limit, progress=progress
    )
    spiking = [p.name for p in network.populations if p.spiking]
    spikes = {name: ours.spikes[name][: len(few)] for name in spiking}
    output = ours.output[: len(few)]
    readout = not network.output.spiking
    return Fidelity(
        backend=backend.name,
        reference=reference_of(backend),
        samples=len(few),
        left_out=left_out,
        compared_spikes=sum(raster.size for raster in spikes.values()),
        mismatched_spikes=sum(
            int(np.count_nonzero(raster != theirs.spikes[name])) for name, raster in spikes.items()
        ),
        compared_potentials=output.size if readout else 0,
        mismatched_potentials=int(np.count_nonzero(output != theirs.output)) if readout else 0,
        restarts=theirs.restarts,
    )
