"""The report of a module's compressed weights as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from osbc_deploy.plain_text import many, terminal
from osbc_deploy.report.deployment.terminal import print_warnings
from osbc_deploy.report.measures import total_loss
from osbc_deploy.report.tables import PlainTable

__all__ = ["accuracy_before_and_after", "print_compression"]


def print_compression(report: Mapping[str, Any], console: Console) -> None:
    """Print warnings, layers, accuracy before and after, and deviations."""
    print_warnings(report["warnings"], console)
    table = PlainTable(f"{report['provenance']['model']} in {report['framework']}")
    words = ("layer", "neuron", "Hessian", "selection", "variant")
    for name in ("layer", "neuron", "Hessian", "weights", "non-zero", "sparsity", "bits", "loss",
                 "selection", "variant"):  # fmt: skip
        table.add_column(name, justify="left" if name in words else "right")
    for layer in report["layers"]:
        why = f" ({layer['why']})" if layer["why"] else ""
        table.add_row(
            layer["name"],
            ", ".join(layer["neurons"]) or "-",
            f"{layer['hessian']}{why}",
            f"{layer['weights']:,}",
            f"{layer['nonzero']:,}",
            f"{layer['sparsity']:.1%}",
            str(layer["bits"]),
            "-" if (loss := total_loss(layer)) is None else f"{loss:.4f}",
            layer["selection"],
            layer["variant"],
        )
    console.print(table)
    for line in _lines(report):
        console.print(terminal(line), soft_wrap=True)


def _lines(report: Mapping[str, Any]) -> list[str]:
    weights = sum(layer["weights"] for layer in report["layers"])
    nonzero = sum(layer["nonzero"] for layer in report["layers"])
    lines = [
        f"weights: {nonzero:,} of {weights:,} are left ({report['sparsity']:.2%} sparsity)",
        accuracy_before_and_after(report),
        f"run: {report['call']}, {report['framework']}'s own forward",
    ]
    if report["left"]:
        left = ", ".join(f"{name} ({why})" for name, why in report["left"].items())
        lines.append(f"left as they were: {left}")
    return lines + [
        f"note ({d['stage']}) {d['subject']}: {d['message']}" for d in report["deviations"]
    ]


def accuracy_before_and_after(report: Mapping[str, Any]) -> str:
    """Return the accuracies in a line."""
    accuracy = report["accuracy"]
    on = f"{many(accuracy['samples'], 'sample')} of {accuracy['data']}"
    same = accuracy["agreement"]
    agree = "none gets a class" if same is None else f"{same:.2%} get the same class"
    if accuracy["before"] is None:
        return f"accuracy: no labels on {on}; {agree}"
    before, after = f"before {accuracy['before']:.2%}", f"after {accuracy['after']:.2%}"
    return f"accuracy: {before}, {after} on {on}; {agree}"
