"""Records held against a baseline: what moved, since when, and whether the device is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import ArtefactError
from osbc_deploy.monitor.baseline import Baseline
from osbc_deploy.monitor.channels import Stream, stream_of
from osbc_deploy.monitor.charts import run_charts
from osbc_deploy.monitor.intake import Intake, put_in_order
from osbc_deploy.monitor.thresholds import strange
from osbc_deploy.plain_text import many
from osbc_deploy.telemetry.record import Window

__all__ = ["EXIT_CODES", "SCHEMA", "NoRecordsError", "judge"]

SCHEMA = "osbc-deploy/judgement/1"
EXIT_CODES = {"ok": 0, "drift": 7, "unhealthy": 8}
_TOGETHER = 3
"""Records in a row that a fault is looked for in."""
_BOOTS_WITHIN = 10
_POINTS = 240
"""Points of a curve that a judgement keeps, for its pictures."""


class NoRecordsError(ArtefactError):
    """There is no record that can be judged."""


def judge(windows: Sequence[Window], baseline: Baseline, torn: int = 0) -> dict[str, Any]:
    """Return a judgement as plain data.

    Parameters
    ----------
    windows : sequence of Window
        As they arrived, in any order.
    baseline : Baseline
    torn : int
        Broken places between them.

    Raises
    ------
    NoRecordsError
        When none of them can be judged.
    ArtefactError
        When the baseline is of another version of this program.
    """
    intake = put_in_order(
        windows, identity=bytes.fromhex(baseline.identity), layers=len(baseline.layers),
        classes=baseline.classes, samples=baseline.samples, torn=torn,
    )  # fmt: skip
    if not intake.windows:
        why = "; ".join(f"{n:,} {reason}" for reason, n in intake.left_out.items()) or "none given"
        raise NoRecordsError(
            f"records: none can be judged ({why}); the baseline is of image {baseline.identity}. "
            "Give records of that image, or the baseline of theirs."
        )
    stream = stream_of(intake.windows, baseline.layers)
    known = [(c.what, c.layer) for c in baseline.channels]
    known += [(h.what, h.layer) for h in baseline.histograms]
    watched = (*stream.channels, *stream.histogram_channels)
    if [(c.what, c.layer) for c in watched] != known:
        raise ArtefactError(
            "baseline: has other channels than this version of osbc-deploy watches. Make it again."
        )
    channels = _charts(stream, baseline, intake.windows)
    histograms = _histograms(stream, baseline, intake.windows)
    health = _health(intake, baseline)
    # Of those that began together, what the network computes first.
    moved = sorted(
        (c for c in [*channels, *histograms] if c["alarm"]), key=lambda c: c["since"]["record"]
    )
    verdict = "unhealthy" if health else "drift" if moved else "ok"
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "identity": baseline.identity,
        "records": len(intake.windows),
        "first": _at(intake.windows, 0),
        "last": _at(intake.windows, len(intake.windows) - 1),
        "moved": list(dict.fromkeys(c["layer"] or c["what"] for c in moved)),
        "since": min((c["since"] for c in moved), key=lambda s: s["record"], default=None),
        "health": health,
        "channels": channels,
        "histograms": histograms,
        "left_out": intake.left_out,
        "remarks": [*intake.remarks, *_remarks(baseline, intake)],
        "promise": {
            "days": baseline.promise.days,
            "per_day": baseline.promise.per_day,
            "kept": baseline.kept,
        },
    }


def _at(windows: Sequence[Window], record: int) -> dict[str, int]:
    """Return a place in the stream, by its number and by the device's own."""
    found = windows[record]
    return {"record": record, "boots": found.boots, "sequence": found.sequence}


def _remarks(baseline: Baseline, intake: Intake) -> list[str]:
    found = []
    if not baseline.kept:
        found.append(
            f"the baseline has {many(baseline.records, 'record')} and its promise needs "
            f"{baseline.needed:,}: false alarms may come more often"
        )
    if baseline.histograms and len(intake.windows) < baseline.period:
        found.append(
            f"histograms are judged every {baseline.period:,} records, {len(intake.windows):,} are "
            "there"
        )
    return found


def _thinned(values: FloatArray) -> list[float]:
    """Return a curve with few points: of each stretch its value farthest from 0."""
    if len(values) <= _POINTS:
        return [round(float(v), 6) for v in values]
    parts = np.array_split(values, _POINTS)
    return [round(float(part[np.argmax(np.abs(part))]), 6) for part in parts]


def _charts(stream: Stream, baseline: Baseline, windows: Sequence[Window]) -> list[dict[str, Any]]:
    scores = baseline.chart_limits().scores(stream.values)
    sums, begins = run_charts(scores, baseline.reference)
    found = []
    for c, (channel, usual) in enumerate(zip(stream.channels, baseline.channels, strict=True)):
        both = sums[:, :, c]
        over = np.argwhere((both > baseline.threshold).any(axis=0)).ravel()
        alarm = len(over) > 0
        at = int(over[0]) if alarm else int(both.max(axis=0).argmax())
        side = int(both[:, at].argmax())
        since = min(int(begins[side, at, c]), at)
        found.append(
            {
                "what": channel.what,
                "layer": channel.layer,
                "alarm": alarm,
                "direction": ("up", "down")[side],
                "peak": float(both.max()) / baseline.threshold,
                "since": _at(windows, since) if alarm else None,
                "noticed": _at(windows, at) if alarm else None,
                "usual": usual.mean,
                "seen": float(stream.values[since:, c].mean() if alarm
                              else stream.values[:, c].mean()),
                "values": _thinned(stream.values[:, c] - usual.mean),
                "sums": _thinned(both.max(axis=0) / baseline.threshold),
            }
        )  # fmt: skip
    return found


def _histograms(
    stream: Stream, baseline: Baseline, windows: Sequence[Window]
) -> list[dict[str, Any]]:
    period = baseline.period
    whole = len(windows) // period
    found = []
    for channel, counts, usual in zip(
        stream.histogram_channels, stream.histograms, baseline.histograms, strict=True
    ):
        expected = np.array(usual.shares)
        if counts.shape[1] != len(expected):
            raise ArtefactError("baseline: a histogram has another size. Make it again.")
        sums = counts[: whole * period].reshape(whole, period, counts.shape[1]).sum(axis=1)
        ratios = strange(sums, expected) / usual.usual
        over = np.argwhere(ratios > baseline.histogram_threshold).ravel()
        alarm = len(over) > 0
        first = int(over[0]) if alarm else 0
        total = counts[first * period :].sum(axis=0)
        found.append(
            {
                "what": channel.what,
                "layer": channel.layer,
                "alarm": alarm,
                "peak": float(ratios.max() / baseline.histogram_threshold) if whole else 0.0,
                "since": _at(windows, first * period) if alarm else None,
                "noticed": _at(windows, (first + 1) * period - 1) if alarm else None,
                "usual": [round(float(s), 6) for s in expected],
                "seen": [round(float(s), 6) for s in total / max(total.sum(), 1)],
            }
        )
    return found


def _health(intake: Intake, baseline: Baseline) -> list[dict[str, Any]]:
    """Return the faults: what is beyond its limit in a few records in a row."""
    windows, limits = intake.windows, baseline.limits
    samples = _running([w.samples for w in windows])
    found = []

    def check(what: str, layer: str, counts: Sequence[int], limit: float) -> None:
        shares = _running(counts) / samples
        over = np.argwhere(shares > limit).ravel()
        if len(over):
            noticed = int(over[0]) + len(windows) - len(shares)
            found.append(
                {"what": what, "layer": layer, "since": _at(windows, noticed),
                 "seen": float(shares.max()), "limit": limit}
            )  # fmt: skip

    check("silent", "", [w.silent for w in windows], limits.silent)
    check("faults", "", [w.faults for w in windows], limits.faults)
    for i, (layer, limit) in enumerate(zip(baseline.layers, limits.clipped, strict=True)):
        counts = [w.layers[i].clipped_currents + w.layers[i].clipped_potentials for w in windows]
        check("clipped", layer, counts, limit)
    starts = np.array(intake.starts, float)
    recent = np.array([starts[max(0, i - _BOOTS_WITHIN + 1) : i + 1].sum()
                       for i in range(len(starts))])  # fmt: skip
    # The limit is the number of starts that is a fault; what is well is one less.
    well = float(limits.boots - 1)
    over = np.argwhere(recent > well).ravel()
    if len(over):
        found.append(
            {"what": "boots", "layer": "", "since": _at(windows, int(over[0])),
             "seen": float(recent.max()), "limit": well}
        )  # fmt: skip
    return found


def _running(counts: Sequence[int]) -> FloatArray:
    """Return sums over a few records in a row, or over all where there are fewer."""
    # Fewer are judged only while there are no more: the first record of a device that starts in the
    # dark would be a fault for good, which it is nowhere else.
    together = min(_TOGETHER, len(counts))
    total = np.concatenate([[0.0], np.cumsum(np.array(counts, float))])
    sums: FloatArray = total[together:] - total[:-together]
    return sums
