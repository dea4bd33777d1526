"""The report of a sweep as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from osbc_deploy.plain_text import many, message, terminal
from osbc_deploy.report.tables import PlainTable

__all__ = ["COLUMNS", "configuration_cells", "named", "print_sweep", "said_of"]

Report = Mapping[str, Any]

COLUMNS = ("", "target", "method", "sparsity", "bits", "{score}", "loss", "bytes", "cores", "")
"""Of a table of configurations; ``{score}`` is what the report calls it."""

_LEFT = (0, 1, 2, 9)


def print_sweep(report: Report, console: Console) -> None:
    """Print a row for each configuration, the front marked, and what failed."""
    model = report["provenance"]["model"]
    table = PlainTable(
        f"{model}: {many(len(report['points']), 'deployment')}, > no other is better"
    )
    rows = [configuration_cells(configuration) for configuration in report["configurations"]]
    # The last column says what is wrong, mostly nothing.
    shown = len(COLUMNS) if any(row[-1] for row in rows) else len(COLUMNS) - 1
    for number, name in enumerate(COLUMNS[:shown]):
        header = name.format(score=report["score"])
        table.add_column(header, justify="left" if number in _LEFT else "right")
    for row in rows:
        table.add_row(*row[:shown])
    console.print(table)
    for said in said_of(report):
        for line in message(said).split("\n"):
            console.print(terminal(line), soft_wrap=True)


def configuration_cells(c: Mapping[str, Any]) -> list[str]:
    """Return the cells of a configuration's row."""
    named = [c["target"], c["method"], f"{c['sparsity']:.4g}", str(c["bits"])]
    mark = ">" if c["best"] else ""
    if not c["draws"]:
        return [mark, *named, "-", "-", "-", "-", "FAILED"]
    error = "" if c["error"] is None else f" +- {100 * c['error']:.2f}"
    return [
        mark,
        *named,
        "-" if c["score"] is None else f"{c['score']:.2%}{error}",
        "not measured" if c["loss"] is None else f"{c['loss']:.4f}",
        f"{c['memory_bytes']:,.0f}",
        f"{c['cores']:,.4g}",
        f"{c['failed']} FAILED" if c["failed"] else "" if c["fits"] else "DOES NOT FIT",
    ]


def said_of(report: Report) -> list[str]:
    """Return what is to be read beside the table; what many points say, once."""
    warnings = dict.fromkeys(w for point in report["points"] for w in point["warnings"])
    lines = [f"warning: {text}" for text in warnings]
    for point in report["points"]:
        if not point["exact"]:
            f = point["fidelity"]
            lines.append(
                f"error: {named(point)}: {f['backend']} and {f['reference']} differ in "
                f"{f['mismatched_spikes']} spikes and {f['mismatched_potentials']} potentials"
            )
    lines += [f"failed: {named(f)}: {f['message']}" for f in report["failures"]]
    return lines


def named(point: Mapping[str, Any]) -> str:
    """Return a point in words."""
    seed = "" if point["seed"] is None else f", seed {point['seed']}"
    return (
        f"{point['target']}, {point['method']}, {point['sparsity']:.4g} sparsity, "
        f"{point['bits']} bits{seed}"
    )
