"""The verification report as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.plain_text import html_page
from osbc_deploy.report.deployment.terminal import sides
from osbc_deploy.report.figures import ALERT, INK, SERIES, axes, drawn, strokes, style
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

_PANEL = 480
"""Width of a raster or trace, in pixels."""
_DRAWN = ("float", "compressed", "fixed point")
"""Stages of a trace, in the order they are drawn: the last lies on top."""
_LINES = {
    "float": (SERIES[0], 4.0, "-", 0.5),
    "compressed": (SERIES[2], 2.2, "-", 0.85),
    "fixed point": (SERIES[1], 1.4, "--", 1.0),
}
"""Color, width, dashes and opacity of each."""


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
        shown=[
            _population(p, report["names"][p["name"]], report["provenance"]["steps"])
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


def _population(population: Mapping[str, Any], layer: str, steps: int) -> dict[str, Any]:
    fired = population["spikes"]
    return {
        "layer": layer,
        "rasters": []
        if fired is None
        else [
            {"name": here, "picture": _raster(population, here, there, layer, steps)}
            for here, there in (("float", "fixed point"), ("fixed point", "float"))
        ],
        "traces": [
            {
                "neuron": trace["neuron"],
                "thresholds": bool(trace["thresholds"]),
                "picture": _trace(trace, _fired(population, trace["neuron"]), layer, steps),
            }
            for trace in population["traces"]
        ],
    }


def _raster(population: Mapping[str, Any], here: str, there: str, layer: str, steps: int) -> str:
    """Return a raster; spikes that the other one lacks are marked, and those that it has more."""
    neurons = population["neurons"]
    ticks: dict[str, list[tuple[float, float]]] = {"spike": [], "odd": [], "gone": []}
    rows = zip(population["spikes"][here], population["spikes"][there], strict=True)
    for row, (own, other) in enumerate(rows):
        for t in sorted({*own, *other}):
            kind = "gone" if t not in own else "spike" if t in other else "odd"
            ticks[kind].append((t, row - 0.4))
    with style():
        figure, ax = axes(_PANEL, 66 + max(40, min(18 * len(neurons), 320)))
        ax.grid(visible=False)
        ax.set_xlim(-0.5, steps - 0.5)
        ax.set_ylim(len(neurons) - 0.5, -0.5)
        shown = range(0, len(neurons), 1 + len(neurons) // 12)
        ax.set_yticks(list(shown), [str(neurons[k]) for k in shown])
        ax.set_xlabel("step")
        ax.set_ylabel("neuron")
        for kind, color, width, dashes in (
            ("spike", INK, 2.0, "-"), ("odd", ALERT, 3.0, "-"), ("gone", ALERT, 1.0, ":"),
        ):  # fmt: skip
            strokes(ax, ticks[kind], 0.8, kind, edgecolor=color, linewidth=width, linestyle=dashes)
        return drawn(figure, f"spikes of layer {layer}, {here}")


def _fired(population: Mapping[str, Any], neuron: int) -> dict[str, list[int]]:
    """Return the steps in which a neuron fires, by stage."""
    if population["spikes"] is None:
        return {}
    row = population["neurons"].index(neuron)
    return {stage: rows[row] for stage, rows in population["spikes"].items()}


def _trace(
    trace: Mapping[str, Any], fired: Mapping[str, Sequence[int]], layer: str, steps: int
) -> str:
    """Return the potentials of a neuron by stage, its spikes above them, and its thresholds."""
    thresholds = trace["thresholds"] or {}
    stages = [name for name in _DRAWN if name in trace["v"]]
    values = [v for name in stages for v in trace["v"][name]] + list(thresholds.values())
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    with style():
        figure, ax = axes(_PANEL, 220)
        ax.set_xlim(-0.5, steps - 0.5)
        room = 0.05 + (0.09 * len(stages) if fired else 0.0)
        ax.set_ylim(low - 0.05 * span, high + room * span)
        ax.set_xlabel("step")
        ax.set_ylabel("potential")
        for number, name in enumerate(stages):
            color, width, dashes, alpha = _LINES[name]
            ax.plot(trace["v"][name], color=color, lw=width, ls=dashes, alpha=alpha)
            if name in thresholds:
                ax.axhline(thresholds[name], color=color, linestyle="--", linewidth=1)
            above = high + (0.05 + 0.09 * number) * span
            strokes(
                ax,
                [(t, above) for t in fired.get(name, ())],
                0.07 * span,
                "fired",
                edgecolor=color,
                linewidth=2,
            )
        return drawn(figure, f"potential of neuron {trace['neuron']} of layer {layer}, by stage")
