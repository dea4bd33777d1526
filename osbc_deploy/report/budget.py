"""Budgets: limits in a TOML file that a report must keep, for continuous integration."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osbc_deploy.errors import UsageError
from osbc_deploy.limits import HAND_WRITTEN, read_text
from osbc_deploy.report.measures import layer_measures, totals

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Budget", "Finding", "check_report", "read_budget"]

Kind = Literal["resource", "quality"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Strict):
    """Limits of the whole network.

    Attributes
    ----------
    cores, memory_bytes : int
        The most the network may use.
    accuracy_floor : float
        The least accuracy in fixed point, 0 to 1.
    accuracy_drop : float
        The most accuracy lost from float to fixed point.
    mismatched_spikes : int
        The most spikes in which backend and engine may differ.
    """

    cores: Count | None = None
    memory_bytes: Count | None = None
    accuracy_floor: Share | None = None
    accuracy_drop: Share | None = None
    mismatched_spikes: Count | None = None


class LayerLimits(_Strict):
    """Limits of one layer."""

    cores: Count | None = None
    memory_bytes: Count | None = None


class Growth(_Strict):
    """How much more than the baseline is allowed, as a share (0.05 is 5 %) or a difference.

    Attributes
    ----------
    cores : int
        Cores more than the baseline.
    memory : float
        Share of the baseline's bytes.
    accuracy_drop : float
        Fixed-point accuracy lost since the baseline.
    """

    cores: Count | None = None
    memory: Annotated[float, Field(ge=0.0)] | None = None
    accuracy_drop: Share | None = None


class Budget(_Strict):
    """A budget file.

    Attributes
    ----------
    budget : Limits
    resources : dict of float
        By resource, the largest share of its capacity that any core may use, such as
        ``synapses = 0.8``.
    layers : dict of LayerLimits
    growth : Growth
    """

    schema_: Literal[1] = Field(alias="schema")
    budget: Limits = Limits()
    resources: dict[str, Share] = {}
    layers: dict[str, LayerLimits] = {}
    growth: Growth = Growth()


@dataclass(frozen=True)
class Finding:
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


def read_budget(path: Path) -> Budget:
    """Read a budget file.

    Raises
    ------
    UsageError
        When it is missing, no TOML, or holds unknown keys or values out of range.
    """
    try:
        tables = tomllib.loads(read_text(path, most=HAND_WRITTEN, error=UsageError))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not valid TOML ({error}). Correct the file.") from error
    try:
        return Budget.model_validate(tables)
    except ValidationError as error:
        faults = "\n".join(
            f"  - {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()
        )
        raise UsageError(
            f"{path}: is no budget:\n{faults}\nTables are [budget], [resources], "
            "[layers.NAME] and [growth]; start with 'schema = 1'."
        ) from error


def check_report(
    report: Mapping[str, Any], budget: Budget, baseline: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Compare a report with a budget, and with a baseline if there is one.

    Raises
    ------
    UsageError
        When the budget names a layer or resource the report does not have, asks for accuracy of
        unlabelled data, or the baseline is of another target.
    """
    findings = list(_fit(report))
    findings += _network(report, budget.budget)
    findings += _resources(report, budget.resources)
    findings += _layers(report, budget.layers)
    if baseline is not None:
        findings += _growth(report, baseline, budget.growth)
    elif budget.growth != Growth():
        raise UsageError(
            "[growth]: needs a baseline. Give --baseline REPORT, or create it with "
            "--update-baseline."
        )
    return findings


def _at_most(
    name: str, actual: float, limit: float, unit: str = "", kind: Kind = "resource"
) -> Finding:
    over = actual - limit
    text = f"{_number(actual)}{unit} of {_number(limit)}{unit}"
    if over > 0:
        text += f", {_number(over)}{unit} over"
    return Finding(name, kind, actual, limit, over <= 0, text)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _fit(report: Mapping[str, Any]) -> Iterator[Finding]:
    for excess in report["excesses"]:
        yield Finding(excess.split(":")[0], "resource", 1, 0, False, excess)
    if report["fits"]:
        yield Finding("fits", "resource", 0, 0, True, f"fits {report['target']['name']}")


def _network(report: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    whole = totals(report)
    if limits.cores is not None:
        yield _at_most("cores", whole["cores"], limits.cores)
    if limits.memory_bytes is not None:
        yield _at_most("memory", whole["memory_bytes"], limits.memory_bytes, " B")
    if limits.accuracy_floor is not None:
        actual = _accuracy(report, "fixed_point")
        missing = limits.accuracy_floor - actual
        text = f"{actual:.2%}, at least {limits.accuracy_floor:.2%}"
        yield Finding(
            "accuracy",
            "quality",
            actual,
            limits.accuracy_floor,
            missing <= 0,
            text + (f", {missing:.2%} short" if missing > 0 else ""),
        )
    if limits.accuracy_drop is not None:
        drop = _accuracy(report, "float") - _accuracy(report, "fixed_point")
        yield _drop("accuracy drop", drop, limits.accuracy_drop)
    if limits.mismatched_spikes is not None:
        yield _mismatches(report["fidelity"], limits.mismatched_spikes)


def _mismatches(fidelity: Mapping[str, Any], limit: int) -> Finding:
    """Hold mismatches against a limit; where nothing was compared, none is no good sign."""
    name = "mismatched spikes"
    sides = fidelity["backend"], fidelity["reference"]
    compared = fidelity["compared_spikes"] + fidelity["compared_potentials"]
    if None in sides or sides[0] == sides[1] or not (fidelity["samples"] and compared):
        text = "nothing was compared; deploy with --backend-samples of at least 1"
        return Finding(name, "quality", None, limit, False, text)
    return _at_most(name, fidelity["mismatched_spikes"], limit, kind="quality")


def _drop(name: str, drop: float, limit: float) -> Finding:
    # A drop is a difference of shares of whole samples; rounding must not decide.
    over = drop - limit
    ok = over <= 1e-9
    text = f"{drop:.2%} lost, at most {limit:.2%}" + ("" if ok else f", {over:.2%} over")
    return Finding(name, "quality", drop, limit, ok, text)


def _accuracy(report: Mapping[str, Any], which: str) -> float:
    value = report["accuracy"][which]
    if value is None:
        raise UsageError(
            "[budget] accuracy: the report has none, its data had no labels. Deploy "
            "with labelled --test data."
        )
    return float(value)


def _resources(report: Mapping[str, Any], shares: Mapping[str, float]) -> Iterator[Finding]:
    known = sorted({name for core in report["cores"] for name in core["resources"]})
    for name, share in shares.items():
        if name not in known:
            raise UsageError(f"[resources] {name}: no such resource; known: {', '.join(known)}.")
        for core in report["cores"]:
            resource = core["resources"][name]
            used = resource["used"] / resource["max"]
            limit = int(share * resource["max"])
            over = resource["used"] - limit
            text = f"{resource['used']:,} of {limit:,} ({used:.0%} of capacity)"
            yield Finding(
                f"core {core['core']} {name}",
                "resource",
                used,
                share,
                over <= 0,
                text + (f", {over:,} over" if over > 0 else ""),
            )


def _layers(report: Mapping[str, Any], limits: Mapping[str, LayerLimits]) -> Iterator[Finding]:
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


def _growth(
    report: Mapping[str, Any], baseline: Mapping[str, Any], growth: Growth
) -> Iterator[Finding]:
    ours, theirs = report["target"]["name"], baseline["target"]["name"]
    if ours != theirs:
        raise UsageError(
            f"baseline: is of target {theirs}, the report of {ours}. Compare reports "
            "of one target, or renew it with --update-baseline."
        )
    now, before = totals(report), totals(baseline)
    if growth.cores is not None:
        yield _at_most("cores since baseline", now["cores"], before["cores"] + growth.cores)
    if growth.memory is not None:
        limit = int(before["memory_bytes"] * (1.0 + growth.memory))
        yield _at_most("memory since baseline", now["memory_bytes"], limit, " B")
    if growth.accuracy_drop is not None:
        drop = _accuracy(baseline, "fixed_point") - _accuracy(report, "fixed_point")
        yield _drop("accuracy since baseline", drop, growth.accuracy_drop)
