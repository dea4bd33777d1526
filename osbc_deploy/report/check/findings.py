"""A report held against a budget: each limit, how it was kept, and in which words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.report.check.budget import Budget, Growth, LayerLimits, Limits
from osbc_deploy.report.measures import layer_measures, on_processor, totals

__all__ = ["LimitResult", "check_report"]

Kind = Literal["resource", "quality"]


@dataclass(frozen=True)
class LimitResult:
    """One limit and how it was kept.

    Attributes
    ----------
    name : str
        What is limited, such as ``cores`` or ``core 3 synapses``.
    kind : {"resource", "quality"}
        Decides the exit code: 4 or 5.
    actual : float or None
        None where there is nothing to measure, which does not keep a limit.
    limit : float
    ok : bool
    message : str
    """

    name: str
    kind: Kind
    actual: float | None
    limit: float
    ok: bool
    message: str


def check_report(
    report: Mapping[str, Any], budget: Budget, baseline: Mapping[str, Any] | None = None
) -> list[LimitResult]:
    """Compare a report with a budget, and with a baseline if there is one.

    Raises
    ------
    UsageError
        When the budget names a layer or resource the report does not have, asks for accuracy of
        unlabelled data, or for growth without a baseline.
    ArtefactError
        When the baseline cannot be compared: of another target, model or test data.
    """
    findings = list(_fit(report))
    findings += _network(report, budget.budget)
    findings += _fidelity(report, budget.budget)
    findings += _resources(report, budget.resources)
    findings += _layers(report, budget.layers)
    if baseline is not None:
        _check_comparable(report, baseline, budget.growth)
        findings += _growth(report, baseline, budget.growth)
    elif budget.growth.limited:
        raise UsageError(
            "[growth]: needs a baseline. Give --baseline REPORT, or create it with "
            "--update-baseline."
        )
    return findings


def _at_most(
    name: str, actual: float, limit: float, unit: str = "", kind: Kind = "resource"
) -> LimitResult:
    over = actual - limit
    text = f"{_number(actual)}{unit} of {_number(limit)}{unit}"
    if over > 0:
        text += f", {_number(over)}{unit} over"
    return LimitResult(name, kind, actual, limit, over <= 0, text)


def _part(whole: int, share: float) -> int:
    """Return a share in whole numbers: 0.29 of 100 is 28.999999999999996, a part of one is none."""
    return math.floor(round(whole * share, 6))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _fit(report: Mapping[str, Any]) -> Iterator[LimitResult]:
    for excess in report["excesses"]:
        yield LimitResult(excess.split(": ")[0], "resource", 1, 0, False, excess)
    if report["fits"]:
        yield LimitResult("fits", "resource", 0, 0, True, f"fits {report['target']['name']}")


def _network(report: Mapping[str, Any], limits: Limits) -> Iterator[LimitResult]:
    whole = totals(report)
    if limits.cores is not None:
        yield _at_most("cores", whole["cores"], limits.cores)
    if limits.memory_bytes is not None:
        yield _at_most("memory", whole["memory_bytes"], limits.memory_bytes, " B")
    for name, unit in (("flash", " B"), ("ram", " B"), ("instructions", " a step")):
        limit = getattr(limits, name)
        if limit is not None:
            yield _at_most(name, _on_processor(report, name), limit, unit)
    if limits.samples is not None:
        count = int(report["provenance"]["test"]["samples"])
        text = f"{count:,} evaluated, at least {limits.samples:,}"
        ok = count >= limits.samples
        yield LimitResult("samples", "quality", count, limits.samples, ok, text)
    if limits.accuracy_floor is not None:
        actual = _accuracy(report, "fixed_point")
        missing = limits.accuracy_floor - actual
        text = f"{actual:.2%} {_judged_on(report)}, at least {limits.accuracy_floor:.2%}"
        text += f", {missing:.2%} short" if missing > 0 else ""
        yield LimitResult(
            "accuracy", "quality", actual, limits.accuracy_floor, missing <= 0,
            text + _doubts(report),
        )  # fmt: skip
    if limits.accuracy_drop is not None:
        drop = _accuracy(report, "float") - _accuracy(report, "fixed_point")
        yield _drop("accuracy drop", drop, limits.accuracy_drop, report)


def _on_processor(report: Mapping[str, Any], name: str) -> int:
    """Return the bytes or instructions of a step that a microcontroller needs."""
    counted = on_processor(report)
    if name not in counted:
        raise UsageError(
            f"[budget] {name}: target {report['target']['name']!r} is no microcontroller, so the "
            "report counts none. Deploy with --target cortex-m4 or another of them."
        )
    return counted[name]


def _fidelity(report: Mapping[str, Any], limits: Limits) -> Iterator[LimitResult]:
    """Hold mismatches against a limit; where nothing was compared, none is no good sign."""
    fidelity, allowed = report["fidelity"], limits.mismatched_spikes
    name = "mismatched spikes and potentials"
    sides = fidelity["backend"], fidelity["reference"]
    compared = fidelity["compared_spikes"] + fidelity["compared_potentials"]
    if None not in sides and sides[0] != sides[1] and fidelity["samples"] and compared:
        different = fidelity["mismatched_spikes"] + fidelity["mismatched_potentials"]
        yield _at_most(name, different, allowed or 0, kind="quality")
    elif allowed is not None:
        text = "nothing was compared; deploy with --backend-samples of at least 1"
        yield LimitResult(name, "quality", None, allowed, False, text)


def _judged_on(report: Mapping[str, Any]) -> str:
    count = report["provenance"]["test"]["samples"]
    return f"on {count:,} sample{'s' if count != 1 else ''}"


def _doubts(report: Mapping[str, Any]) -> str:
    """Return what the report says against its own accuracies, such as classes without samples."""
    found = (w for w in report["warnings"] if w.startswith(("labels: ", "accuracy: ")))
    return "".join(f"; {warning}" for warning in found)


def _drop(name: str, drop: float, limit: float, report: Mapping[str, Any]) -> LimitResult:
    # A drop is a difference of shares of whole samples; rounding must not decide.
    over = drop - limit
    ok = over <= 1e-9
    text = f"{drop:.2%} lost {_judged_on(report)}, at most {limit:.2%}"
    text += "" if ok else f", {over:.2%} over"
    return LimitResult(name, "quality", drop, limit, ok, text + _doubts(report))


def _accuracy(report: Mapping[str, Any], which: str) -> float:
    value = report["accuracy"][which]
    if value is None:
        raise UsageError(
            "[budget] accuracy: the report has none, its data had no labels. Deploy "
            "with labelled --test data."
        )
    return float(value)


def _resources(report: Mapping[str, Any], shares: Mapping[str, float]) -> Iterator[LimitResult]:
    known = sorted({name for core in report["cores"] for name in core["resources"]})
    for name, share in shares.items():
        if name not in known:
            raise UsageError(f"[resources] {name}: no such resource; known: {', '.join(known)}.")
        for core in report["cores"]:
            resource = core["resources"][name]
            used = resource["used"] / resource["max"]
            limit = _part(resource["max"], share)
            over = resource["used"] - limit
            text = f"{resource['used']:,} of {limit:,} ({used:.0%} of capacity)"
            yield LimitResult(
                f"core {core['core']} {name}",
                "resource",
                used,
                share,
                over <= 0,
                text + (f", {over:,} over" if over > 0 else ""),
            )


def _layers(report: Mapping[str, Any], limits: Mapping[str, LayerLimits]) -> Iterator[LimitResult]:
    measures = layer_measures(report)
    for name, limit in limits.items():
        if name not in measures:
            raise UsageError(f"[layers.{name}]: no such layer; known: {', '.join(measures)}.")
        if limit.cores is not None:
            yield _at_most(f"layer {name} cores", measures[name]["cores"], limit.cores)
        if limit.memory_bytes is not None:
            yield _at_most(
                f"layer {name} memory", measures[name]["memory_bytes"], limit.memory_bytes, " B"
            )


def _check_comparable(
    report: Mapping[str, Any], baseline: Mapping[str, Any], growth: Growth
) -> None:
    """Refuse a baseline whose numbers say nothing about the report's."""
    ours, theirs = report["provenance"], baseline["provenance"]
    kinds = {
        "target": [(p["target"]["name"], p["target"]["sha256"]) for p in (ours, theirs)],
        "test data": [(p["test"]["name"], p["test"]["sha256"]) for p in (ours, theirs)],
        "model": [(p["model"], p["model_sha256"]) for p in (ours, theirs)],
    }
    if growth.retrained:
        del kinds["model"]
    other = [
        f"{what} {theirs} ({their_digest[:12]}), the report of {ours} ({digest[:12]})"
        for what, ((ours, digest), (theirs, their_digest)) in kinds.items()
        if digest != their_digest
    ]
    if other:
        retrained = " [growth] retrained = true allows another model." if kinds.get("model") else ""
        raise ArtefactError(
            f"baseline: is of {'; of '.join(other)}. Compare reports of one kind, or delete the "
            f"baseline and make a new one with --update-baseline.{retrained}"
        )


def _growth(
    report: Mapping[str, Any], baseline: Mapping[str, Any], growth: Growth
) -> Iterator[LimitResult]:
    now, before = totals(report), totals(baseline)
    if growth.cores is not None:
        yield _at_most("cores since baseline", now["cores"], before["cores"] + growth.cores)
    if growth.memory is not None:
        limit = _part(before["memory_bytes"], 1.0 + growth.memory)
        yield _at_most("memory since baseline", now["memory_bytes"], limit, " B")
    if growth.accuracy_drop is not None:
        drop = _accuracy(baseline, "fixed_point") - _accuracy(report, "fixed_point")
        yield _drop("accuracy since baseline", drop, growth.accuracy_drop, report)
