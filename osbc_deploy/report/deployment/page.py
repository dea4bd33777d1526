"""The report as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.intervals import wilson
from osbc_deploy.plain_text import html_page
from osbc_deploy.report.deployment.operations import instruction_lines, step_lines
from osbc_deploy.report.deployment.terminal import pruning_lines, resource_label, sides
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
        said=[
            *pruning_lines(report),
            *instruction_lines(report["operations"]),
            *step_lines(report["operations"], details=True),
        ],
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
    placement, cores = report["placement"], _shared_cores(report)
    chips = sorted({core["place"][0] for core in cores} if placement else ())
    if placement is None or len(chips) * math.prod(placement["mesh"]) > _MOST_PLACES:
        count = max(report["memory"]["cores_available"], len(cores))
        count = min(count, 2 * len(cores) + _COLUMNS)
        places = [(0, k % _COLUMNS, k // _COLUMNS) for k in range(count)]
        where = dict(zip(places, cores, strict=False))
    else:
        width, height = placement["mesh"]
        places = [(chip, x, y) for chip in chips for y in range(height) for x in range(width)]
        where = {tuple(core["place"]): core for core in cores}
    found: dict[int, list[dict[str, Any]]] = {}
    for chip, x, y in places:
        core = where.get((chip, x, y))
        share = core["limiting_share"] if core else 0.0
        label = (
            f"core {core['core']}: {core['layers']}, {resource_label(core['limiting'])} {share:.0%}"
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


def _by_core(report: Report) -> list[list[dict[str, Any]]]:
    """Return what lies on each core."""
    held: dict[int, list[dict[str, Any]]] = {}
    for core in report["cores"]:
        held.setdefault(core["core"], []).append(core)
    return list(held.values())


def _shared_cores(report: Report) -> list[dict[str, Any]]:
    """Return every core once, with its layers and what they fill most together."""
    found = []
    for parts in _by_core(report):
        shares = {
            name: sum(part["resources"][name]["used"] for part in parts) / resource["max"]
            for name, resource in parts[0]["resources"].items()
        }
        limiting = max(shares, key=lambda name: shares[name])
        layers = " + ".join(f"{part['layer']}[{part['slice']}]" for part in parts)
        together = {"limiting": limiting, "limiting_share": shares[limiting], "layers": layers}
        found.append(parts[0] | together)
    return found


def _pools(report: Report) -> list[dict[str, Any]]:
    """Return, for every core, the stacked use of its pool, or of what limits it most.

    Where layers share the core, each resource is a bar, stacked by layer.
    """
    if len({core["core"] for core in report["cores"]}) < len(report["cores"]):
        return [bar for parts in _by_core(report) for bar in _shared_pools(parts)]
    bars = []
    for core in report["cores"]:
        resources = core["resources"]
        whole = "total" if "total" in resources else core["limiting"]
        names = [n for n in resources if n != whole] if whole == "total" else [whole]
        label = f"core {core['core']} · layer {core['layer']}"
        share = f"{core['limiting_share']:.0%}"
        fullest = f"; fullest: {resource_label(core['limiting'])} {share}"
        pieces = [(resource_label(name), resources[name]["used"]) for name in names]
        used, most = resources[whole]["used"], resources[whole]["max"]
        bars.append(_pool(label, pieces, used, most, _UNITS.get(whole, resource_label(whole))))
        bars[-1]["fullest"] = fullest if whole == "total" else f" ({share})"
    return bars


_UNITS = {
    "total": "words",
    "flash": "B",
    "ram": "B",
    **{name: f"{name} entries" for name in ("kernel", "neuron", "bias")},
}
"""Units of resources that are not counted in what they are called."""


def _shared_pools(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the use of every resource of a core, stacked by layer."""
    bars = []
    for name, resource in parts[0]["resources"].items():
        pieces = [(f"layer {p['layer']}", p["resources"][name]["used"]) for p in parts]
        used, most = sum(value for _, value in pieces), resource["max"]
        label, unit = resource_label(name), _UNITS.get(name, "")
        bars.append(_pool(f"core {parts[0]['core']} · {label}", pieces, used, most, unit))
        bars[-1]["fullest"] = f" ({used / most:.0%})"
    return bars


def _pool(
    label: str, pieces: Sequence[tuple[str, int]], used: int, limit: int, unit: str
) -> dict[str, Any]:
    names, values = zip(*pieces, strict=True)
    stack = _stack(values, limit, names)
    return {"label": label, "total": used, "limit": limit, "unit": unit, "stack": stack}


def _layers(report: Report) -> list[dict[str, Any]]:
    """Return the measures of every layer with its synapse bits stacked."""
    measures = layer_measures(report)
    bits = {name: sum(m.get(part, 0) for part in _PARTS) for name, m in measures.items()}
    most = max(bits.values())
    return [
        {
            "name": name,
            **measure,
            "synapse_bytes": -(-bits[name] // 8),
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
        pieces.append(
            {"x": start, "width": width, "value": value, "name": name, "kind": number % 8}
        )
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
