"""The report of a sweep as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.plain_text import html_page
from osbc_deploy.report.plot import Axis
from osbc_deploy.report.sweeping.terminal import COLUMNS, configuration_cells, said_of

__all__ = ["sweep_page"]

Report = Mapping[str, Any]

_WIDTH, _HEIGHT = 440, 300
_KINDS = 8
"""Colors of methods."""


def sweep_page(report: Report) -> str:
    """Return the page. Everything from the report is escaped."""
    found = report["configurations"]
    methods = list(dict.fromkeys(c["method"] for c in found))
    return html_page(
        "sweeping/page.html.j2",
        report=report,
        columns=[name.format(score=report["score"]) for name in COLUMNS],
        rows=[{"cells": configuration_cells(c), "best": c["best"]} for c in found],
        said=said_of(report),
        methods=[{"name": name, "kind": k % _KINDS} for k, name in enumerate(methods)],
        width=_WIDTH,
        height=_HEIGHT,
        panels=[
            {"target": target, **panel}
            for target in dict.fromkeys(c["target"] for c in found)
            for panel in _panels([c for c in found if c["target"] == target], methods)
        ],
    )


def _panels(found: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pictures of one target: scores over memory and over cores, both logarithmic."""
    drawn = [c for c in found if c["draws"] and c["score"] is not None]
    if not drawn:
        return []
    high = Axis.linear([100.0 * c["score"] for c in drawn], (_HEIGHT, 0))
    panels = []
    for key, title, per in (("memory_bytes", "memory, KiB", 1024), ("cores", "cores", 1)):
        wide = Axis.logarithmic([c[key] / per for c in drawn], (0, _WIDTH))
        dots = [
            {
                "x": wide.at(c[key] / per),
                "y": high.at(100.0 * c["score"]),
                "error": 0.0 if c["error"] is None else high.span(100.0 * c["error"]),
                "kind": methods.index(c["method"]) % _KINDS,
                "best": c["best"],
                "fits": c["fits"],
                "title": (
                    f"{c['method']}, {c['sparsity']:.4g} sparsity, {c['bits']} bits: "
                    f"{c['score']:.2%}, {c['memory_bytes']:,.0f} B, {c['cores']:,.4g} cores"
                ),
            }
            for c in drawn
        ]
        steps = _front([(c[key], c["score"]) for c in drawn if c["fits"]])
        path = [(wide.at(cost / per), high.at(100.0 * score)) for cost, score in steps]
        panels.append(
            {
                "title": title,
                "dots": dots,
                "front": _stairs(path),
                "across": wide.ticks(),
                "up": high.ticks(),
            }
        )
    return panels


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points with a higher score than all that cost as much or less, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    """Return the path of a front: what is reached at a cost holds until something better is."""
    if not points:
        return ""
    (x, y), *rest = points
    steps = "".join(f" H{x:.2f} V{y:.2f}" for x, y in rest)
    return f"M{x:.2f} {y:.2f}{steps} H{_WIDTH}"
