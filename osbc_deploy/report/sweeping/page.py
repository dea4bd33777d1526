"""The report of a sweep as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.plain_text import html_page
from osbc_deploy.report.figures import MUTED, SERIES, axes, drawn, logarithmic, style
from osbc_deploy.report.sweeping.terminal import COLUMNS, configuration_cells, said_of

__all__ = ["sweep_page"]

Report = Mapping[str, Any]


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
        methods=[{"name": name, "kind": k % len(SERIES)} for k, name in enumerate(methods)],
        panels=[
            {"target": target, "picture": picture}
            for target in dict.fromkeys(c["target"] for c in found)
            for picture in _pictures([c for c in found if c["target"] == target], report, methods)
        ],
    )


def _pictures(
    found: Sequence[Mapping[str, Any]], report: Report, methods: Sequence[str]
) -> list[str]:
    """Return the pictures of one target: scores over memory and over cores, both logarithmic."""
    shown = [c for c in found if c["draws"] and c["score"] is not None]
    pictures = []
    for key, title, per in (("memory_bytes", "memory, KB (1000 B)", 1000), ("cores", "cores", 1)):
        if not shown:
            continue
        with style():
            figure, ax = axes(480, 330)
            logarithmic(ax, "x")
            ax.set_xlabel(title)
            ax.set_ylabel(f"{report['score']} in fixed point, %")
            front = _front([(c[key], c["score"]) for c in shown if c["fits"]])
            if front:
                costs, scores = zip(*front, strict=True)
                ax.step(
                    [c / per for c in costs], [100.0 * s for s in scores], where="post", color=MUTED
                )
            for c in shown:
                color = SERIES[methods.index(c["method"]) % len(SERIES)]
                ax.errorbar(
                    c[key] / per,
                    100.0 * c["score"],
                    yerr=None if c["error"] is None else 100.0 * c["error"],
                    color=color,
                )
                ax.plot(
                    c[key] / per,
                    100.0 * c["score"],
                    "o",
                    markersize=8 if c["best"] else 6,
                    markeredgecolor=color,
                    markerfacecolor=color if c["best"] else "none",
                    linestyle="none" if c["fits"] else "dashed",
                    alpha=1.0 if c["fits"] else 0.5,
                    gid="osbc-dot",
                )
            pictures.append(
                drawn(figure, f"{report['score']} over {title} on {found[0]['target']}")
            )
    return pictures


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points with a higher score than all that cost as much or less, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front
