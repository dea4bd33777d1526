"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_report"]

Report = Mapping[str, Any]

_COLUMNS = {
    "axon_in": "axons in",
    "neuron_groups": "groups",
    "neuron_state": "state words",
    "synapses": "synapse words",
    "axon_map": "axon map",
    "total": "total",
}


def print_report(report: Report, console: Console) -> None:
    """Print a report: layers, cores, totals, accuracy, fidelity, deviations and the verdict."""
    console.print(_layers(report))
    console.print(_cores(report))
    for line in (_memory(report), _accuracy(report), _fidelity(report)):
        console.print(line, highlight=False, soft_wrap=True)
    for deviation in report["deviations"]:
        console.print(
            Text(f"note ({deviation['stage']}) {deviation['subject']}: {deviation['message']}"),
            soft_wrap=True,
        )
    _verdict(report, console)


def _layers(report: Report) -> Table:
    table = Table(title=f"{report['provenance']['model']} on {report['target']['name']}")
    for name in (
        "layer",
        "weights",
        "non-zero",
        "sparsity",
        "bits",
        "loss",
        "selection",
        "spikes/step",
    ):
        table.add_column(name, justify="left" if name in ("layer", "selection") else "right")
    layers = report["compression"]["layers"]
    for layer, population in zip(layers, report["populations"], strict=True):
        rate = population["rate"]
        table.add_row(
            layer["name"],
            f"{layer['weights']:,}",
            f"{layer['nonzero']:,}",
            f"{layer['sparsity']:.1%}",
            str(layer["bits"]),
            f"{layer['relative_loss']['total']:.4f}",
            layer["selection"],
            "readout" if rate is None else f"{rate:.4f}",
        )
    return table


def _cores(report: Report) -> Table:
    table = Table(
        title=f"Cores ({report['memory']['cores_used']} of "
        f"{report['memory']['cores_available']} used, at least "
        f"{report['memory']['cores_lower_bound']} needed)"
    )
    table.add_column("core", justify="right")
    for name in ("layer slice", "encoding"):
        table.add_column(name)
    for name in ("neurons", *_COLUMNS.values(), "bytes"):
        table.add_column(name, justify="right")
    table.add_column("limiting")
    for core in report["cores"]:
        resources = core["resources"]
        table.add_row(
            str(core["core"]),
            f"{core['layer']}[{core['slice']}]",
            core["encoding"],
            f"{core['neurons']:,}",
            *(_cell(resources[name]) for name in _COLUMNS),
            f"{core['bytes']:,}",
            f"{_COLUMNS.get(core['limiting'], core['limiting'])} {core['limiting_share']:.0%}",
            style="red" if core["limiting_share"] > 1 else None,
        )
    return table


def _cell(resource: Mapping[str, int]) -> str:
    return f"{resource['used']:,} {resource['used'] / resource['max']:>4.0%}"


def _memory(report: Report) -> str:
    memory = report["memory"]
    ratio = memory["deployed_bytes"] / memory["float_bytes"]
    text = (
        f"memory: {memory['deployed_bytes']:,} B on {memory['cores_used']} cores, "
        f"{ratio:.1%} of the float network's {memory['float_bytes']:,} B; non-zero weights "
        f"alone would be {memory['synapse_payload_bytes']:,} B"
    )
    if memory["assumed"]:
        text += f" (assumed: {', '.join(memory['assumed'])})"
    return text


def _accuracy(report: Report) -> str:
    accuracy = report["accuracy"]
    where = f"on {accuracy['samples']} samples of {accuracy['data']}"
    if accuracy["float"] is None:
        return (
            f"accuracy: no labels; {accuracy['agreement']:.2%} get the float network's class "
            f"{where}"
        )
    return (
        f"accuracy: float {accuracy['float']:.2%}, compressed {accuracy['compressed']:.2%}, "
        f"fixed point {accuracy['fixed_point']:.2%} {where}; "
        f"{accuracy['agreement']:.2%} get the float network's class"
    )


def _fidelity(report: Report) -> str:
    fidelity = report["fidelity"]
    if fidelity["backend"] is None:
        return "fidelity: not compared with a backend"
    text = (
        f"fidelity: {fidelity['backend']} against the engine on {fidelity['samples']} samples: "
        f"{fidelity['mismatched_spikes']:,} of {fidelity['compared_spikes']:,} spikes differ"
    )
    if fidelity["compared_potentials"]:
        text += (
            f", {fidelity['mismatched_potentials']:,} of "
            f"{fidelity['compared_potentials']:,} readout potentials"
        )
    return text


def _verdict(report: Report, console: Console) -> None:
    for excess in report["excesses"]:
        console.print(Text(f"over: {excess}", style="red"), soft_wrap=True)
    verdict = (
        Text("FITS", style="bold green")
        if report["fits"]
        else Text("DOES NOT FIT", style="bold red")
    )
    memory = report["memory"]
    worst = max(report["cores"], key=lambda core: core["limiting_share"])
    console.print(
        Text("verdict: ")
        + verdict
        + Text(
            f" {report['target']['name']}, {memory['cores_used']} of {memory['cores_available']} "
            f"cores, fullest is core {worst['core']} ({worst['limiting']} "
            f"{worst['limiting_share']:.0%})"
        ),
        soft_wrap=True,
    )
