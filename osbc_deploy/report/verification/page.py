"""The verification report as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.plain_text import html_page
from osbc_deploy.report.deployment.terminal import sides
from osbc_deploy.report.verification.terminal import (
    TITLES,
    backend_text,
    difference_cells,
    layer_cells,
    register_rows,
    stage_cells,
    test_cells,
)

__all__ = ["verify_page"]

Report = Mapping[str, Any]

_PANEL = 440
"""Width of a raster or trace, in pixels."""
_ROW = 9
"""Height of a neuron's row in a raster."""
_TRACE = 150
"""Height of a trace."""
_SPIKES = 9
"""Height of a row of spikes over a trace."""
_DRAWN = ("float", "compressed", "fixed point")
"""Stages of a trace, in the order they are drawn: the last lies on top."""


def verify_page(report: Report) -> str:
    """Return the page. Everything from the report is escaped."""
    return html_page(
        "verification/page.html.j2",
        report=report,
        stages={stage["name"]: stage for stage in report["stages"]},
        titles=TITLES,
        accuracy=_accuracy_rows(report),
        steps=_steps(report["steps"], report["names"]),
        registers=register_rows(report),
        layers=_layers(report),
        backend=""
        if report["backend"] is None
        else backend_text(report["backend"], report["names"]),
        sides=None
        if report["backend"] is None
        else sides(report["backend"]["name"], report["backend"]["reference"]),
        steps_shown=report["provenance"]["steps"],
        shown=[
            {"layer": report["names"][p["name"]], **_population(p, report["provenance"]["steps"])}
            for p in report["shown"]["populations"]
        ],
    )


def _accuracy_rows(report: Report) -> list[list[str]]:
    arriving = {step["after"]: step for step in report["steps"] if step["name"] != "total"}
    rows = [
        [s["name"], *stage_cells(s), *test_cells(arriving.get(s["name"]))] for s in report["stages"]
    ]
    whole = report["steps"][-1]
    rows.append([f"{whole['before']} to {whole['after']}", *stage_cells(None), *test_cells(whole)])
    return rows


def _steps(steps: Sequence[Mapping[str, Any]], layers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of every step, with bars for the mismatch that arrives and their own.

    All bars have one scale, so that the steps can be compared.
    """
    found = []
    for step in steps:
        rows = [
            {
                "name": layers[p["name"]],
                "cells": difference_cells(p),
                "bar": p["propagated"]["mismatch"],
                "own_bar": None if p["isolated"] is None else p["isolated"]["mismatch"],
            }
            for p in step["populations"]
        ]
        found.append({**step, "rows": rows})
    bars = [row[key] or 0.0 for step in found for row in step["rows"] for key in ("bar", "own_bar")]
    most = max(bars, default=0.0) or 1.0
    for step in found:
        for row in step["rows"]:
            for key in ("bar", "own_bar"):
                row[key] = None if row[key] is None else 100.0 * row[key] / most
    return found


def _layers(report: Report) -> list[dict[str, Any]]:
    most = max((la["compressed"]["output_error"] for la in report["layers"]), default=0.0) or 1.0
    rows = []
    for layer in report["layers"]:
        pruned, whole = layer["pruned"], layer["compressed"]["output_error"]
        rows.append(
            {
                "cells": layer_cells(layer),
                "bar": 100.0 * whole / most,
                "pruned_bar": None
                if pruned is None
                else 100.0 * min(1.0, pruned["output_error"] / most),
                "worst": layer["name"] == report["costliest"],
            }
        )
    return rows


def _population(population: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {
        "rasters": None if population["spikes"] is None else _rasters(population, steps),
        "traces": [
            _trace(trace, _fired(population, trace["neuron"]), steps)
            for trace in population["traces"]
        ],
    }


def _rasters(population: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the ticks of both rasters; those that the other one lacks are marked."""
    unit = _PANEL / steps
    width = max(1.0, min(5.0, 0.6 * unit))
    panels = []
    for here, there in (("float", "fixed point"), ("fixed point", "float")):
        ticks = []
        rows = zip(population["spikes"][here], population["spikes"][there], strict=True)
        for row, (own, other) in enumerate(rows):
            lacking, y = set(other), row * _ROW + 1
            ticks += [
                {"x": (t + 0.5) * unit - width / 2, "y": y, "kind": "" if t in lacking else "odd"}
                for t in own
            ]
            ticks += [
                {"x": (t + 0.5) * unit - width / 2, "y": y, "kind": "gone"}
                for t in sorted(lacking - set(own))
            ]
        panels.append({"name": here, "ticks": ticks})
    neurons = population["neurons"]
    return {
        "panels": panels,
        "tick": width,
        "height": _ROW * len(neurons),
        "labels": [{"text": str(n), "y": row * _ROW + 7} for row, n in enumerate(neurons)],
    }


def _fired(population: Mapping[str, Any], neuron: int) -> dict[str, list[int]]:
    """Return the steps in which a neuron fires, by stage."""
    if population["spikes"] is None:
        return {}
    row = population["neurons"].index(neuron)
    return {stage: rows[row] for stage, rows in population["spikes"].items()}


def _trace(
    trace: Mapping[str, Any], fired: Mapping[str, Sequence[int]], steps: int
) -> dict[str, Any]:
    """Return the potentials of a neuron as lines, its spikes above them, and its thresholds."""
    stages = [name for name in _DRAWN if name in trace["v"]]
    thresholds = trace["thresholds"] or {}
    values = [v for name in stages for v in trace["v"][name]] + list(thresholds.values())
    low, high = min(values), max(values)
    margin = 0.05 * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    top = _SPIKES * len(stages) + 4 if fired else 0

    def y(value: float) -> float:
        return float(top + _TRACE * (1.0 - (value - low) / (high - low)))

    unit = _PANEL / steps
    lines = []
    for number, name in enumerate(stages):
        points = " ".join(
            f"{(t + 0.5) * unit:.2f},{y(v):.2f}" for t, v in enumerate(trace["v"][name])
        )
        ticks = [{"x": (t + 0.5) * unit, "y": number * _SPIKES + 1} for t in fired.get(name, ())]
        lines.append({"name": name, "kind": number, "points": points, "ticks": ticks})
    return {
        "neuron": trace["neuron"],
        "lines": lines,
        "thresholds": [
            {"name": name, "kind": stages.index(name), "y": y(value)}
            for name, value in thresholds.items()
        ],
        "ends": {"low": f"{low:.3g}", "high": f"{high:.3g}"},
        "top": top,
        "height": top + _TRACE,
        "tick": _SPIKES - 2,
    }
