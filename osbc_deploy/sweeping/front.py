"""Points of one configuration put together, and the configurations that no other beats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from osbc_deploy.sweeping.grid import Configuration, Point

__all__ = ["Summary", "score_of", "summaries"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """A configuration over the draws of its data.

    Attributes
    ----------
    configuration : Configuration
    draws : int
        Points with a deployment.
    failed : int
        Points without.
    fits : bool
        Whether every draw fits.
    score : float or None
        Mean accuracy in fixed point; without labels, mean agreement with the float network. None
        where no sample was answered.
    error : float or None
        Standard error of that mean; None for a single draw.
    memory_bytes, cores : float
        Means.
    loss : float or None
        Mean of the layers' relative membrane losses, summed; None where none were measured.
    best : bool
        Whether no configuration of the same target that fits has as high a score in as little
        memory on as few cores, and more of one of them.
    """

    configuration: Configuration
    draws: int
    failed: int
    fits: bool
    score: float | None
    error: float | None
    memory_bytes: float
    cores: float
    loss: float | None
    best: bool = False


def score_of(record: Record) -> float | None:
    """Return the accuracy in fixed point; without labels, the agreement with the float network."""
    accuracy = record["accuracy"]
    found = accuracy["fixed_point"]
    return accuracy["agreement"] if found is None else found  # type: ignore[no-any-return]


def summaries(points: Iterable[tuple[Point, Record | None]]) -> list[Summary]:
    """Return the configurations in the order of their first points, the unbeaten ones marked."""
    drawn: dict[Configuration, list[Record | None]] = {}
    for point, record in points:
        drawn.setdefault(point.configuration, []).append(record)
    found = [_summary(name, records) for name, records in drawn.items()]
    return [replace(one, best=_unbeaten(one, found)) for one in found]


def _summary(configuration: Configuration, records: Sequence[Record | None]) -> Summary:
    done = [record for record in records if record is not None]
    scores = [score for record in done if (score := score_of(record)) is not None]
    losses = [record["loss"] for record in done if record["loss"] is not None]
    return Summary(
        configuration,
        draws=len(done),
        failed=len(records) - len(done),
        fits=bool(done) and all(record["fits"] for record in done),
        score=fmean(scores) if scores else None,
        error=stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        memory_bytes=fmean(r["memory_bytes"] for r in done) if done else 0.0,
        cores=fmean(r["cores"] for r in done) if done else 0.0,
        loss=fmean(losses) if losses else None,
    )


def _unbeaten(one: Summary, among: Sequence[Summary]) -> bool:
    if not one.fits or one.score is None:
        return False
    mine = (-one.score, one.memory_bytes, one.cores)
    for other in among:
        if other.configuration.target != one.configuration.target:
            continue
        if not other.fits or other.score is None:
            continue
        theirs = (-other.score, other.memory_bytes, other.cores)
        if theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)):
            return False
    return True
