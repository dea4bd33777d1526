"""What a result comes to, for a prompt and a notebook, and its rows for a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import singledispatch
from html import escape
from typing import TYPE_CHECKING, Any

from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import UsageError
from osbc_deploy.fitting.run import FitResult
from osbc_deploy.inspection import Inspection
from osbc_deploy.modules.result import CompressedModel
from osbc_deploy.plain_text import many, visible
from osbc_deploy.report.deployment.build import build_report
from osbc_deploy.report.deployment.terminal import (
    accuracy_line,
    fidelity_line,
    input_lines,
    memory_line,
)
from osbc_deploy.report.describe import describe
from osbc_deploy.report.fitting.build import front_of
from osbc_deploy.report.measures import total_loss
from osbc_deploy.report.modules.build import build_compression
from osbc_deploy.report.modules.terminal import accuracy_before_and_after
from osbc_deploy.report.sweeping.build import build_sweep
from osbc_deploy.report.verification.build import build_verification
from osbc_deploy.sweeping.result import SweepResult
from osbc_deploy.verification.result import Verification

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of", "html_of", "lines_of", "rows_of", "text_of"]

_LISTED = 2
"""Warnings, excesses and broken gates that are shown of each; the rest is counted."""
_ROWS = 20
"""Rows of the table in a notebook."""


@singledispatch
def lines_of(result: Any) -> list[str]:
    """Return fewer than ten lines, the first of which says what it is."""
    raise TypeError(f"a {type(result).__name__} is not a result")


@singledispatch
def rows_of(result: Any) -> list[dict[str, Any]]:
    """Return the rows of a table, which all have the same keys."""
    raise TypeError(f"a {type(result).__name__} is not a result")


@lines_of.register
def _(result: Deployment) -> list[str]:
    report = build_report(result)
    lines = [_title("Deployment", result), memory_line(report), *input_lines(report)]
    lines.append(accuracy_line(report))
    lines += [fidelity_line(report), *_few("warning", result.warnings)]
    return lines + _few("over", report["excesses"])


@rows_of.register
def _(result: Deployment) -> list[dict[str, Any]]:
    report = build_report(result)
    cores = Counter(core["layer"] for core in report["cores"])
    rates = {p["name"]: q["rate"] for q in report["populations"] for p in q["projections"]}
    return [
        {
            "layer": layer["name"],
            "cores": cores[layer["name"]],
            **{k: layer[k] for k in ("weights", "nonzero", "sparsity", "bits", "selection")},
            "variant": layer["variant"],
            "loss": total_loss(layer),
            "rate": rates[layer["name"]],
        }
        for layer in report["compression"]["layers"]
    ]


@lines_of.register
def _(result: Verification) -> list[str]:
    scores = [
        f"{s.stage}: " + ("no labels" if s.accuracy is None else f"accuracy {s.accuracy:.2%}")
        for s in result.scores
    ]
    lines = [_title("Verification", result.deployment), "; ".join(scores)]
    if (worst := result.costliest) is not None:
        lines.append(
            f"costliest layer: {result.deployment.lowered.network.layers[worst.population]} "
            f"(output error {worst.compressed.output_error:.2%})"
        )
    if (backend := result.backend) is not None:
        lines.append(f"backend: {backend.backend}, {backend.different:,} values differ")
    kept = len(result.findings) - len(result.broken)
    lines.append(f"gates: {kept} of {len(result.findings)} kept")
    lines += _few("broken", [f"{f.name}: {f.message}" for f in result.broken])
    return lines + _few("warning", result.deployment.warnings)


@rows_of.register
def _(result: Verification) -> list[dict[str, Any]]:
    report = build_verification(result)
    return [
        {
            "step": step["name"],
            "before": step["before"],
            "after": step["after"],
            "layer": report["names"][population["name"]],
            "population": population["name"],
            **{
                key: population["propagated"][key]
                for key in ("mismatch", "van_rossum", "membrane_error")
            },
            "own_mismatch": own["mismatch"] if (own := population["isolated"]) else None,
        }
        for step in report["steps"]
        for population in step["populations"]
    ]


@lines_of.register
def _(result: FitResult) -> list[str]:
    budget, plan = result.budget, result.plan
    limits = [
        f"{name} {value:g}"
        for name, value in (
            ("cores", budget.cores),
            ("bytes", budget.memory),
            ("bytes of flash", budget.flash),
            ("bytes of RAM", budget.ram),
            ("instructions a step", budget.instructions),
            ("accuracy drop", budget.accuracy_drop),
        )
        if value is not None
    ]
    lines = [_title("Fit", result.deployment)]
    lines.append(f"budget: {', '.join(limits) or 'the cores of the target'}")
    lines.append(
        f"plan: {many(plan.cores, 'core')}, loss {plan.loss:.4f}, built {result.prediction}"
    )
    lines.append(f"front: {many(len(result.front), 'plan')}")
    report = build_report(result.deployment)
    return [*lines, memory_line(report), accuracy_line(report), fidelity_line(report)]


@rows_of.register
def _(result: FitResult) -> list[dict[str, Any]]:
    front = front_of(result)
    chosen = front["chosen"]
    return [
        {
            **{key: plan[key] for key in ("cores", "memory_bytes", "loss")},
            "chosen": plan == chosen,
            **{
                f"{key} {name}": layer[key]
                for name, layer in plan["layers"].items()
                for key in ("sparsity", "bits")
            },
        }
        for plan in front["front"]
    ]


@lines_of.register
def _(result: SweepResult) -> list[str]:
    found = result.summaries
    lines = [
        f"Sweep: {result.provenance['model']}, {many(len(result.points), 'deployment')} of "
        f"{many(len(found), 'configuration')}",
        f"front: {many(sum(s.best for s in found), 'configuration')}",
    ]
    return lines + _few("failed", [f"{p}: {why.message}" for p, why in result.failures.items()])


@rows_of.register
def _(result: SweepResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = build_sweep(result)["configurations"]
    return rows


@lines_of.register
def _(result: Inspection) -> list[str]:
    network = result.network
    found = describe(network)
    lines = [
        f"Inspection: {network.source}",
        f"input: {'x'.join(map(str, network.input_shape))}, {network.dtype}",
        f"layers: {len(network.projections)}, {network.weights:,} weights",
        f"neurons: {found['neurons']:,} in {len(network.populations)} populations",
        f"notes: {len(network.notes) + len(result.remarks)}",
    ]
    lines += _few("warning", network.warnings)
    return lines + _few("the chip cannot run", found["unsupported"])


@rows_of.register
def _(result: Inspection) -> list[dict[str, Any]]:
    return [
        {
            "layer": p["name"],
            **{key: p[key] for key in ("from", "to", "kind", "weights", "biases")},
        }
        for p in describe(result.network)["projections"]
    ]


@lines_of.register
def _(result: CompressedModel) -> list[str]:
    report = build_compression(result)
    lines = [
        f"Compressed weights: {result.source} in {result.framework}",
        f"layers: {len(result.weights)}, {result.sparsity:.2%} sparsity",
        accuracy_before_and_after(report),
        f"notes: {len(result.deviations)}",
    ]
    return lines + _few("warning", result.warnings)


@rows_of.register
def _(result: CompressedModel) -> list[dict[str, Any]]:
    keys = ("weights", "nonzero", "sparsity", "bits", "hessian", "selection", "variant")
    return [
        {
            "layer": layer["name"],
            "neurons": ", ".join(layer["neurons"]),
            **{key: layer[key] for key in keys},
            "loss": total_loss(layer),
        }
        for layer in build_compression(result)["layers"]
    ]


def _title(kind: str, deployment: Deployment) -> str:
    mapping = deployment.mapping
    return (
        f"{kind}: {deployment.network.source} on {deployment.target.name}, "
        f"{'FITS' if deployment.fits else 'DOES NOT FIT'} ({mapping.cores_used:,} of "
        f"{mapping.available:,} cores)"
    )


def _few(label: str, texts: Sequence[str]) -> list[str]:
    """Return the first of some texts in a line, and how many more there are."""
    if not texts:
        return []
    more = f" (and {len(texts) - _LISTED} more)" if len(texts) > _LISTED else ""
    return [f"{label}: {'; '.join(texts[:_LISTED])}{more}"]


def text_of(result: Any) -> str:
    """Return the lines, all but the first one indented."""
    return "\n  ".join(map(visible, lines_of(result)))


def html_of(result: Any) -> str:
    """Return the lines as a fragment of HTML, and the first rows as a table."""
    title, *lines = (escape(visible(line)) for line in lines_of(result))
    rows = rows_of(result)
    cells = [f"<p><b>{title}</b><br>{'<br>'.join(lines)}</p>", "<table><thead><tr>"]
    cells += [f"<th>{escape(visible(name))}</th>" for name in (rows[0] if rows else ())]
    cells.append("</tr></thead><tbody>")
    for row in rows[:_ROWS]:
        shown = "".join(f"<td>{escape(visible(_cell(value)))}</td>" for value in row.values())
        cells.append(f"<tr>{shown}</tr>")
    cells.append("</tbody></table>")
    if len(rows) > _ROWS:
        cells.append(f"<p>{len(rows) - _ROWS} more rows: <code>to_pandas()</code></p>")
    return "".join(cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def frame_of(result: Any) -> pd.DataFrame:
    """Return the rows as a table of pandas.

    Raises
    ------
    UsageError
        Where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError(
            "to_pandas: pandas is not installed. Add it with: pip install pandas"
        ) from error
    return pd.DataFrame(rows_of(result))
