"""Deploy a network at every point of a grid, and keep the result of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from osbc_deploy._version import __version__
from osbc_deploy.belonging import BelongsTo
from osbc_deploy.chip.target import load_target
from osbc_deploy.cluster import spread
from osbc_deploy.compress.augmentation import copies
from osbc_deploy.compress.network import check_room
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.errors import UsageError
from osbc_deploy.job import Job, Source, VerbInputs, load_source, seed_everything, verb
from osbc_deploy.options import SweepOptions
from osbc_deploy.options.option import rows
from osbc_deploy.options.search import GridOptions
from osbc_deploy.options.work import ClusterOptions
from osbc_deploy.pipeline import DeployCall
from osbc_deploy.progress import task
from osbc_deploy.provenance import origin, request
from osbc_deploy.sweeping.grid import Point, options_of, points_of
from osbc_deploy.sweeping.ledger import Ledger, open_ledger
from osbc_deploy.sweeping.result import SweepResult
from osbc_deploy.sweeping.study import Failure, Study, job_of, measured

__all__ = ["SweepCall", "sweep", "swept"]

_NOT_ASKED = {row.name for table in (GridOptions, ClusterOptions) for row in rows(table)}
"""Options that say which points there are and where they are computed, not what comes of them."""


@dataclass(frozen=True, kw_only=True)
class SweepCall(SweepOptions, VerbInputs):
    """The arguments of :func:`sweep`."""

    options: SweepOptions | None = None


@verb(SweepCall, SweepOptions)
def sweep(call: SweepCall) -> SweepResult:
    """Deploy a trained network at every combination of target, method, bits and sparsity.

    Takes `module` and `calibration`, then by keyword `test`, `progress` and `call` (see
    :class:`osbc_deploy.job.VerbInputs`), and every option of :class:`osbc_deploy.SweepOptions`,
    together as `options` or each by its own keyword, which overrides.

    Each point is what :func:`osbc_deploy.deploy` makes with the same options, to the byte. With
    `seeds`, NumPy and torch are seeded with each of them before model and data are made anew, so
    `calibration` has to be drawn: a callable, or the name of one. A script that spreads points over
    processes keeps its call under ``if __name__ == "__main__"``.

    Returns
    -------
    SweepResult

    Raises
    ------
    OsbcError
        As :func:`osbc_deploy.deploy`, before any point is computed. What only one point runs into
        is kept as its failure.
    """
    return swept(call, lambda seed: {})


def swept(call: SweepCall, draw: Callable[[int | None], Mapping[str, Any]]) -> SweepResult:
    """Sweep with what is drawn for each seed in place of the call's own fields."""
    options = SweepOptions(**{row.name: getattr(call, row.name) for row in rows(SweepOptions)})
    asked = request(sweep, SweepOptions, call)
    points = points_of(options)
    chips = {name: load_target(name) for name in dict.fromkeys(options.targets)}
    sources = {seed: _source(call, options, seed, draw) for seed in options.seeds or (None,)}
    first = next(iter(sources.values()))
    _check_draws(sources)
    belongs_to = _belongs_to(options, first)
    draws = {seed: _samples(source) for seed, source in sources.items()}
    digests = {name: chip.digest for name, chip in chips.items()}
    key = hashlib.sha256(repr((belongs_to, draws, digests)).encode()).hexdigest()
    study = Study(key, replace(options, ledger=None), sources, chips)
    _check_points(study, points)
    with _ledger(options, belongs_to, draws, digests) as ledger:
        done = {p: known for p in points if ledger and (known := ledger.load(p)) is not None}
        left = [point for point in points if point not in done]
        failures: dict[Point, Failure] = {}
        with task(call.progress, "points", len(points)):
            call.progress.advance(len(done))
            for number, found in spread(measured, study, left, options):
                if isinstance(found, Failure):
                    failures[left[number]] = found
                else:
                    if ledger:
                        ledger.save(left[number], found)
                    done[left[number]] = found
                call.progress.advance()
    return SweepResult(
        options,
        {point: done[point] for point in points if point in done},
        {point: failures[point] for point in points if point in failures},
        len(left),
        origin(
            asked,
            model=first.network.source,
            model_sha256=first.network.fingerprint(),
            calibration=first.typical,
            test=first.evaluated,
        ),
    )


def _source(
    call: SweepCall,
    options: SweepOptions,
    seed: int | None,
    draw: Callable[[int | None], Mapping[str, Any]],
) -> Source:
    if seed is not None:
        seed_everything(seed)
    inputs = {field.name: getattr(call, field.name) for field in fields(VerbInputs)}
    point = next(iter(points_of(options))).configuration
    asked = options_of(options, point)
    values = {row.name: getattr(asked, row.name) for row in rows(type(asked))}
    inputs.pop("_", None)
    return load_source(DeployCall(**{**inputs, **values, **draw(seed)}))


def _check_draws(sources: Mapping[int | None, Source]) -> None:
    """Refuse seeds that draw the same, or more than data."""
    seen: dict[str, int | None] = {}
    models = {source.network.fingerprint() for source in sources.values()}
    if len(models) > 1:
        raise UsageError(
            "seeds: each of them makes another model. Give --weights, so that all points are of "
            "the same trained network."
        )
    for seed, source in sources.items():
        drawn = source.typical.fingerprint()
        if drawn in seen:
            raise UsageError(
                f"seeds: {seen[drawn]} and {seed} draw the same calibration samples. Leave --seeds "
                "out, or name a function that draws them, as package.module:factory."
            )
        seen[drawn] = seed


def _check_points(study: Study, points: tuple[Point, ...]) -> None:
    """Refuse what no point of a target could do, before any work."""
    together: dict[tuple[int | None, str], list[Point]] = {}
    for point in points:
        together.setdefault((point.seed, point.configuration.target), []).append(point)
    for alike in together.values():
        job, _ = job_of(study, alike[0])
        # What the solver needs, sparsity and method decide, too.
        faults = [_room_fault(study, job, point) for point in alike]
        if (fault := faults[0]) is not None and None not in faults:
            raise fault


def _room_fault(study: Study, job: Job, point: Point) -> UsageError | None:
    asked = options_of(study.options, point.configuration)
    options = CompressionOptions.of(asked, scale_groups=job.scale_groups, augment=asked.augment)
    try:
        spikes = job.typical.spikes
        check_room(job.network, spikes, options, copies(job.network, spikes, options))
    except UsageError as error:
        return error
    return None


def _belongs_to(options: SweepOptions, source: Source) -> BelongsTo:
    # How a model is read shows in its fingerprint; how long a backend may take, in nothing.
    other = _NOT_ASKED | {"methods", "time_limit", "weights"}
    names = sorted(row.name for row in rows(SweepOptions) if row.name not in other)
    return {
        "model": source.network.fingerprint(),
        "options": {name: repr(getattr(options, name)) for name in names},
        "version of osbc-deploy": __version__,
    }


def _samples(source: Source) -> dict[str, str]:
    return {
        "calibration": source.typical.fingerprint(),
        "test samples": source.evaluated.fingerprint(),
    }


@contextmanager
def _ledger(
    options: SweepOptions,
    belongs_to: BelongsTo,
    draws: Mapping[int | None, Mapping[str, str]],
    digests: Mapping[str, str],
) -> Iterator[Ledger | None]:
    if options.ledger is None:
        yield None
        return
    with open_ledger(Path(options.ledger), belongs_to, draws, digests) as ledger:
        yield ledger
