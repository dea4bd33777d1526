"""What the points of a sweep share, and the deployment of one of them, wherever that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from osbc_deploy.chip.target import Target
from osbc_deploy.compress.shared import Shared
from osbc_deploy.errors import OsbcError
from osbc_deploy.job import Job, Source, prepare
from osbc_deploy.options import DeployOptions, SweepOptions
from osbc_deploy.pipeline import DeployCall, compressed_for, finish
from osbc_deploy.sweeping.grid import Point, options_of
from osbc_deploy.sweeping.record import record_of

__all__ = ["Failure", "Study", "job_of", "measured"]


@dataclass(frozen=True, eq=False)
class Study:
    """A sweep as its workers get it.

    Attributes
    ----------
    key : str
        Of everything below.
    options : SweepOptions
    sources : dict of Source
        By seed.
    chips : dict of Target
        By the name that was asked for.
    """

    key: str
    options: SweepOptions
    sources: Mapping[int | None, Source]
    chips: Mapping[str, Target]


@dataclass(frozen=True)
class Failure:
    """Why there is no deployment of a point.

    Attributes
    ----------
    message : str
    exit_code : int
        See :mod:`osbc_deploy.errors`.
    """

    message: str
    exit_code: int


class _Kept:
    """What the points of the last study found in this process."""

    key = ""
    shared: Mapping[int | None, Shared] = {}
    lock = Lock()


def _shared(study: Study, seed: int | None) -> Shared:
    with _Kept.lock:
        if _Kept.key != study.key:
            room = study.options.solver_memory // len(study.sources)
            _Kept.key, _Kept.shared = study.key, {seed: Shared(room) for seed in study.sources}
        return _Kept.shared[seed]


def job_of(study: Study, point: Point) -> tuple[Job, DeployOptions]:
    """Check that a point can be deployed, and return the job, and what it is asked.

    Raises
    ------
    OsbcError
        As :func:`osbc_deploy.deploy`.
    """
    source = study.sources[point.seed]
    asked = options_of(study.options, point.configuration)
    values = {name: getattr(asked, name) for name in DeployOptions.__dataclass_fields__}
    call = DeployCall(source.network, source.typical, test=source.evaluated, **values)
    return prepare(call, chip=study.chips[point.configuration.target], source=source), asked


def measured(study: Study, point: Point, threads: int) -> dict[str, Any] | Failure:
    """Deploy a point and return what is kept of it: plain data, the same wherever it is made.

    Parameters
    ----------
    study : Study
    point : Point
    threads : int
        0 for one per core.
    """
    try:
        job, asked = job_of(study, point)
        shared = _shared(study, point.seed)
        compressed = compressed_for(job, asked, shared=shared, threads=threads)
        return record_of(finish(job, compressed))
    except OsbcError as error:
        return Failure(str(error), error.exit_code)
