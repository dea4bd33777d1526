"""The report as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.intervals import wilson
from osbc_deploy.plain_text import html_page
from osbc_deploy.report.deployment.operations import step_lines
from osbc_deploy.report.deployment.terminal import resource_label, sides
from osbc_deploy.report.figures import SERIES, axes, drawn, style
from osbc_deploy.report.measures import layer_measures, total_loss

__all__ = ["report_page"]

Report = Mapping[str, Any]

_COLUMNS = 20
"""Cores in a row of the core map where they have no place."""
_MOST_PLACES = 2**18
"""Places that a page draws; the largest system known has 147,456."""
_PARTS = ("payload", "index", "header", "padding")


def report_page(report: Report) -> str:
    """Return the page. Everything from the report is escaped."""
    return html_page(
        "deployment/page.html.j2",
        report=report,
        sides=sides(report["fidelity"]["backend"] or "", report["fidelity"]["reference"] or ""),
        layers=_layers(report),
        core_map=_core_map(report),
        pools=_pools(report),
        curves=_curves(report),
        interval=_interval(report["accuracy"]),
        step=step_lines(report["operations"], details=True),
    )


def _interval(accuracy: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the 95 % interval of the fixed-point accuracy, where there are labels."""
    share = accuracy["fixed_point"]
    if share is None:
        return None
    return wilson(round(share * accuracy["samples"]), accuracy["samples"])


def _core_map(report: Report) -> list[dict[str, Any]]:
    """Return the cells of every chip in use: its mesh with the cores in their places.

    Cores without a place, or on a mesh too large to draw, are listed in order, the free cores of
    the chip after them.
    """
    placement = report["placement"]
    chips = sorted({core["place"][0] for core in report["cores"]} if placement else ())
    if placement is None or len(chips) * math.prod(placement["mesh"]) > _MOST_PLACES:
        count = max(report["memory"]["cores_available"], len(report["cores"]))
        count = min(count, 2 * len(report["cores"]) + _COLUMNS)
        places = [(0, k % _COLUMNS, k // _COLUMNS) for k in range(count)]
        where = dict(zip(places, report["cores"], strict=False))
    else:
        width, height = placement["mesh"]
        places = [(chip, x, y) for chip in chips for y in range(height) for x in range(width)]
        where = {tuple(core["place"]): core for core in report["cores"]}
    found: dict[int, list[dict[str, Any]]] = {}
    for chip, x, y in places:
        core = where.get((chip, x, y))
        share = core["limiting_share"] if core else 0.0
        label = (
            f"core {core['core']}: {core['layer']}[{core['slice']}], "
            f"{resource_label(core['limiting'])} {share:.0%}"
            if core
            else "free"
        )
        kind = "free" if core is None else "over" if share > 1.0 else "full"
        # The emptiest core is still told from a free one.
        cell = {"x": x, "y": y, "label": label, "kind": kind, "depth": 0.3 + 0.7 * share}
        found.setdefault(chip, []).append(cell)
    return [
        {
            "chip": chip,
            "cells": cells,
            "width": 21 * (1 + max(c["x"] for c in cells)),
            "height": 21 * (1 + max(c["y"] for c in cells)),
        }
        for chip, cells in found.items()
    ]


def _pools(report: Report) -> list[dict[str, Any]]:
    """Return, for every core, the stacked use of its pool, or of what limits it most."""
    bars = []
    for core in report["cores"]:
        resources = core["resources"]
        whole = "total" if "total" in resources else core["limiting"]
        names = [n for n in resources if n != whole] if whole == "total" else [whole]
        limit = resources[whole]["max"]
        bars.append(
            {
                "label": f"core {core['core']} · layer {core['layer']}",
                "total": resources[whole]["used"],
                "limit": limit,
                "unit": "words" if whole == "total" else resource_label(whole),
                "fullest": f"{resource_label(core['limiting'])} {core['limiting_share']:.0%}",
                "stack": _stack(
                    [resources[name]["used"] for name in names],
                    limit,
                    [resource_label(name) for name in names],
                ),
            }
        )
    return bars


def _layers(report: Report) -> list[dict[str, Any]]:
    """Return the measures of every layer with its synapse bits stacked."""
    measures = layer_measures(report)
    most = max(sum(m.get(part, 0) for part in _PARTS) for m in measures.values())
    return [
        {
            "name": name,
            **measure,
            "stack": _stack([measure.get(part, 0) for part in _PARTS], most, _PARTS),
            "population": population,
        }
        for (name, measure), population in zip(measures.items(), report["populations"], strict=True)
    ]


def _stack(values: Sequence[int], limit: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pieces of a bar, in percent of its limit."""
    pieces, start = [], 0.0
    for number, (value, name) in enumerate(zip(values, names, strict=True)):
        width = 100.0 * value / limit if limit else 0.0
        pieces.append({"x": start, "width": width, "value": value, "name": name, "kind": number})
        start += width
    return pieces


def _curves(report: Report) -> dict[str, Any] | None:
    """Return loss against sparsity of every layer as a picture, and where each layer ended."""
    found = [
        (layer, total)
        for layer in report["compression"]["layers"]
        if layer["loss_curve"] and (total := total_loss(layer)) is not None
    ]
    if not found:
        return None
    with style():
        figure, ax = axes(480, 320)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 1)
        ax.set_yscale("function", functions=(lambda v: abs(v) ** 0.5, lambda v: v**2))
        ax.set_yticks([0.01, 0.1, 0.25, 0.5, 1.0], ["0.01", "0.1", "0.25", "0.5", "1"])
        ax.set_xlabel("weights removed, %")
        ax.set_ylabel("membrane loss, share (root scale)")
        for number, (layer, total) in enumerate(found):
            color = SERIES[number % len(SERIES)]
            curve = [(100.0 * s, min(1.0, max(0.0, loss))) for s, loss in layer["loss_curve"]]
            ax.plot(*zip(*curve, strict=True), color=color)
            ended = (100.0 * layer["sparsity"], min(1.0, max(0.0, total)))
            ax.plot(*ended, "o", color=color, clip_on=False, gid="osbc-dot")
        names = [layer["name"] for layer, _ in found]
        return {
            "picture": drawn(figure, "membrane loss against sparsity, by layer"),
            "names": [{"name": name, "kind": k % len(SERIES)} for k, name in enumerate(names)],
        }
