"""The baseline: how records of a healthy device vary, and the limits that follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.monitor.channels import Channel, stream_of
from osbc_deploy.monitor.charts import REFERENCE
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.monitor.thresholds import (
    ChartLimits,
    HistogramLimits,
    block_length,
    chart_limits,
    histogram_limits,
)
from osbc_deploy.monitor.whitening import Autoregression
from osbc_deploy.plain_text import many
from osbc_deploy.writing import write_whole

__all__ = ["Baseline", "Promise", "make_baseline", "read_baseline", "save_baseline"]

SCHEMA = "osbc-deploy/baseline/1"
_LEAST = 50
"""Records without which nothing can be estimated at all."""
_MOST_BETWEEN = 10**6
_PERIODS = 720
"""Periods between two false alarms: an hour each for a month. More would need tails that no
baseline shows, fewer would notice later."""
_LEAST_PERIOD = 25
_CORRELATED = 10
"""Blocks of histograms, in times of correlation."""


_LARGEST = 1e15
"""What a number is at most: far beyond any count, and what is computed of it stays finite."""

Whole = Annotated[int, Field(ge=1, le=_LARGEST)]
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Positive = Annotated[float, Field(ge=1 / _LARGEST, le=_LARGEST)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Promise(_Part):
    """One false alarm in `days` days, at `per_day` records a day."""

    days: float = Field(gt=0)
    per_day: float = Field(gt=0)

    @property
    def records(self) -> float:
        """Records between two false alarms."""
        return self.days * self.per_day


class Limits(_Part):
    """Beyond which a record is no drift but a fault.

    Shares of silent and faulty samples, clipped values by sample of each layer, and starts of the
    device within ten records.
    """

    silent: float = Field(ge=0, le=1)
    faults: float = Field(ge=0, le=1)
    clipped: list[Annotated[float, Field(ge=0)]]
    boots: int = Field(ge=1)


class _Channel(_Part):
    what: str
    layer: str
    mean: Number
    coefficients: list[Number]
    deviation: Positive


class _Histogram(_Part):
    what: str
    layer: str
    shares: list[Share]
    usual: Positive


class Baseline(_Part):
    """What records are held against.

    Attributes
    ----------
    identity : str
        Of the image, as records have it, in hexadecimal.
    layers : list of str
        Names, in the order of the network's populations.
    classes, records, needed : int
        Of the network; of the baseline; that it must have for the promise.
    samples : float
        Of a record.
    source : str
        ``engine`` or ``device``.
    """

    schema_: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    identity: str = Field(pattern="^[0-9a-f]{16}$")
    layers: list[str] = Field(min_length=1)
    classes: Whole
    source: str
    records: Whole
    needed: Whole
    samples: Positive
    promise: Promise
    reference: Number
    threshold: Positive
    channels: list[_Channel]
    period: Whole
    histogram_threshold: Positive
    histograms: list[_Histogram]
    limits: Limits

    @model_validator(mode="after")
    def _agrees(self) -> Baseline:
        if len(self.limits.clipped) != len(self.layers):
            raise ValueError("its parts contradict each other")
        return self

    @property
    def kept(self) -> bool:
        """Whether the baseline is long enough for its promise."""
        return self.records >= self.needed

    def chart_limits(self) -> ChartLimits:
        """Return the charts' part."""
        channels = tuple(
            Autoregression(c.mean, tuple(c.coefficients), c.deviation) for c in self.channels
        )
        return ChartLimits(channels, self.threshold, self.needed)


def make_baseline(
    intake: Intake,
    layers: Sequence[str],
    promise: Promise,
    *,
    source: str,
    silent: float = 0.5,
    clipped: float | None = None,
    short: bool = False,
) -> Baseline:
    """Return the baseline of a stream of records in control.

    Parameters
    ----------
    intake : Intake
    layers : sequence of str
        Names, in the order of the network's populations.
    promise : Promise
    source : str
        ``engine`` or ``device``.
    silent : float
        Share of silent samples that is a fault.
    clipped : float, optional
        Clipped values by sample of a layer that are a fault; by default ten times what the worst
        record of the baseline has, and one more.
    short : bool
        Take a baseline that is too short for its promise, and say so in every judgement.

    Raises
    ------
    ArtefactError
        When it is too short; the message says how long it must be.
    UsageError
        For a promise beyond what is simulated.
    """
    windows, between = intake.windows, promise.records
    if not 1 <= between <= _MOST_BETWEEN:
        shown = f"{between:,.0f}" if between < _LARGEST else f"{between:g}"
        raise UsageError(
            f"promise: one false alarm in {shown} records, 1 to {_MOST_BETWEEN:,} are possible. "
            "Change --days or --per-day."
        )
    if len(windows) < _LEAST:
        without = "".join(f"; left out: {n:,} {reason}" for reason, n in intake.left_out.items())
        raise ArtefactError(
            f"baseline: has {many(len(windows), 'record')}, {_LEAST} are the least{without}. "
            "Give more data, or fewer samples to a record."
        )
    stream = stream_of(windows, layers)
    # Charts and histograms share the promise, half of the alarms each.
    charts = chart_limits(stream.values, stream.grains, 2 * between)
    if len(windows) < charts.needed and not short:
        raise ArtefactError(
            f"baseline: has {many(len(windows), 'record')}, one false alarm in {promise.days:g} "
            "days at "
            f"{promise.per_day:g} a day needs {charts.needed:,}. Give more data, promise less with "
            "--days or --per-day, or take it with --short, which every judgement then says."
        )
    period = max(round(between / _PERIODS), min(_LEAST_PERIOD, round(between / 20)), 1)
    histograms = histogram_limits(
        stream.histograms, period, 2 * between, _histogram_block(charts, len(windows))
    )
    worst = [
        max((w.layers[i].clipped_currents + w.layers[i].clipped_potentials) / w.samples
            for w in windows)
        for i in range(len(layers))
    ]  # fmt: skip
    return Baseline(
        schema=SCHEMA,
        identity=windows[0].identity.hex(),
        layers=list(layers),
        classes=len(windows[0].answers),
        source=source,
        records=len(windows),
        needed=charts.needed,
        samples=float(np.median([w.samples for w in windows])),
        promise=promise,
        reference=REFERENCE,
        threshold=charts.threshold,
        channels=[
            _Channel(what=c.what, layer=c.layer, mean=a.mean, coefficients=list(a.coefficients),
                     deviation=a.deviation)
            for c, a in zip(stream.channels, charts.channels, strict=True)
        ],
        period=period,
        histogram_threshold=histograms.threshold,
        histograms=_histograms(stream.histogram_channels, histograms),
        limits=Limits(
            silent=silent, faults=0.01, boots=3,
            clipped=[10 * w + 1 if clipped is None else clipped for w in worst],
        ),
    )  # fmt: skip


def _histograms(channels: Sequence[Channel], limits: HistogramLimits) -> list[_Histogram]:
    return [
        _Histogram(what=c.what, layer=c.layer, shares=list(s), usual=u)
        for c, s, u in zip(channels, limits.shares, limits.usual, strict=True)
    ]


def _histogram_block(charts: ChartLimits, records: int) -> int:
    """Return a block that holds ten times the time over which records are correlated."""
    longest = 1.0
    for channel in charts.channels:
        longest = max(longest, 1 / max(1 - sum(channel.coefficients), 0.05) ** 2)
    least = block_length(records)
    return min(max(math.ceil(_CORRELATED * longest), least), max(records // 10, least))


def save_baseline(baseline: Baseline, path: Path) -> None:
    """Write a baseline whole or not at all.

    Raises
    ------
    UsageError
    """
    data = baseline.model_dump(by_alias=True)
    write_whole(path, json.dumps(data, indent=1) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises
    ------
    UsageError
        When it cannot be read.
    ArtefactError
        When it is none, or damaged.
    """
    try:
        return Baseline.model_validate_json(read_text(path, each=PARSED))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}). 'osbc-deploy monitor baseline' makes one."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise ArtefactError(
            f"{path}: is not a baseline ({place}: {first['msg']}). Make it again with "
            "'osbc-deploy monitor baseline'."
        ) from error
    except ValueError as error:
        raise ArtefactError(
            f"{path}: is not a baseline ({error}). Make one with 'osbc-deploy monitor baseline'."
        ) from error
