"""The verification report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from osbc_deploy.plain_text import many, terminal
from osbc_deploy.report.deployment.terminal import print_warnings, sides
from osbc_deploy.report.tables import PlainTable

__all__ = ["TITLES", "print_verification"]

Report = Mapping[str, Any]

TITLES = {
    "prune": "pruning",
    "quantize": "quantization",
    "compress": "pruning and quantization",
    "input": "rounding of the input",
    "lower": "fixed point",
    "total": "all together",
}
"""What the steps are called."""


def print_verification(report: Report, console: Console) -> None:
    """Print warnings, accuracy, each step, layers, registers, backend, gates and the verdict."""
    print_warnings(report["warnings"], console)
    console.print(_accuracy(report))
    for step in report["steps"]:
        console.print(_step(step, report["names"]))
    console.print(_registers(report))
    if report["layers"]:
        console.print(_layers(report))
        console.print(
            terminal(
                f"costliest: layer {report['costliest']} alone changes the network's output most"
            )
        )
    console.print(terminal(_backend(report)), soft_wrap=True)
    for gate in report["gates"]:
        mark = "ok" if gate["ok"] else "BROKEN"
        console.print(
            terminal(
                f"gate {gate['name']}: {mark}; {gate['message']}", "" if gate["ok"] else "red"
            ),
            soft_wrap=True,
        )


def _table(title: str, *columns: str) -> PlainTable:
    table = PlainTable(title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _accuracy(report: Report) -> PlainTable:
    table = _table(
        f"{report['provenance']['model']} on {report['target']['name']}: "
        f"{report['provenance']['test']['name']}",
        "stage",
        "samples",
        "accuracy",
        "95 % interval",
        "no answer",
        "float's class",
        "step",
        "lost",
        "won",
        "p",
        "significant",
    )
    arriving = {step["after"]: step for step in report["steps"] if step["name"] != "total"}
    rows = [(s["name"], s, arriving.get(s["name"])) for s in report["stages"]]
    whole = report["steps"][-1]
    rows.append((f"{whole['before']} to {whole['after']}", None, whole))
    for name, stage, step in rows:
        table.add_row(name, *stage_cells(stage), *test_cells(step))
    return table


def stage_cells(stage: Mapping[str, Any] | None) -> list[str]:
    """Return samples, accuracy, interval, samples without an answer, and agreement of a stage."""
    if stage is None:
        return [""] * 5
    accuracy = stage["accuracy"]
    known = accuracy is not None
    return [
        f"{stage['samples']:,}",
        f"{accuracy['value']:.2%}" if known else "no labels",
        f"{accuracy['low']:.2%} to {accuracy['high']:.2%}" if known else "",
        f"{stage['no_answer']['value']:.2%}",
        _share(stage["agreement"]["value"]),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def test_cells(step: Mapping[str, Any] | None) -> list[str]:
    """Return name, samples lost and won, p-value and verdict of a step's paired test."""
    if step is None:
        return [""] * 5
    test = step["test"]
    if test is None:
        return [TITLES[step["name"]], "", "", "", ""]
    return [
        TITLES[step["name"]],
        str(test["lost"]),
        str(test["won"]),
        f"{test['p']:.3g}",
        "yes" if test["significant"] else "no",
    ]


def _step(step: Mapping[str, Any], layers: Mapping[str, str]) -> PlainTable:
    table = _table(
        f"{step['before']} to {step['after']}: {TITLES[step['name']]}",
        "layer",
        "mismatch",
        "own",
        "first step",
        "median",
        "van Rossum",
        "own",
        "membrane error",
        "own",
    )
    for population in step["populations"]:
        table.add_row(layers[population["name"]], *difference_cells(population))
    return table


def difference_cells(population: Mapping[str, Any]) -> list[str]:
    """Return mismatch, first steps, distance and membrane error, as they arrive and own."""
    whole, own = population["propagated"], population["isolated"] or {}
    first = whole["first_step"]
    return [
        percent(whole["mismatch"]),
        percent(own.get("mismatch")),
        "-" if first["earliest"] is None else str(first["earliest"]),
        "-" if first["median"] is None else f"{first['median']:g}",
        number(whole["van_rossum"]),
        number(own.get("van_rossum")),
        percent(whole["membrane_error"]),
        percent(own.get("membrane_error")),
    ]


def percent(value: float | None) -> str:
    """Return a share in percent, with as many digits as small ones need."""
    if value is None:
        return "-"
    if value == 0 or value >= 0.001:
        return f"{value:.2%}"
    return f"{100 * value:.1g}%" if value >= 1e-6 else "<0.0001%"


def number(value: float | None) -> str:
    """Return a number to three digits."""
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 or value == 0 else "<0.001"


def _registers(report: Report) -> PlainTable:
    table = _table(
        "Firing and registers",
        "layer",
        "population",
        "neurons",
        "float rate",
        "fixed rate",
        "silent float",
        "silent fixed",
        "silenced",
        "always firing",
        "u range",
        "v range",
        "wraps",
        "clipped",
    )
    for row in register_rows(report):
        table.add_row(*row)
    return table


def register_rows(report: Report) -> list[list[str]]:
    """Return the firing and the registers of every layer, and what its population is called."""
    stages = {s["name"]: {p["name"]: p for p in s["populations"]} for s in report["stages"]}
    rows = []
    for entry in report["registers"]:
        name = entry["population"]
        a, b = stages["float"].get(name), stages["fixed point"].get(name)
        firing = (
            ["readout", "", "", "", "", "", ""]
            if a is None or b is None
            else [
                f"{a['neurons']:,}",
                f"{a['rate']:.4f}",
                f"{b['rate']:.4f}",
                f"{a['silent']:,}",
                f"{b['silent']:,}",
                f"{entry['silenced']:,}",
                f"{b['always_firing']:,}",
            ]
        )
        rows.append(
            [
                report["names"][name],
                name,
                *firing,
                f"{entry['u_range_used']:.0%}",
                f"{entry['v_range_used']:.0%}",
                f"{entry['wraps']:,}",
                f"{entry['saturations']:,}",
            ]
        )
    return rows


def _layers(report: Report) -> PlainTable:
    table = _table(
        f"Each layer alone, the others float ({report['layers'][0]['compressed']['samples']} "
        "samples)",
        "layer",
        "weights",
        "non-zero",
        "bits",
        "output error: pruned",
        "and quantized",
        "float's class",
        "accuracy drop",
    )
    for layer in report["layers"]:
        table.add_row(*layer_cells(layer))
    return table


def layer_cells(layer: Mapping[str, Any]) -> list[str]:
    """Return what one layer costs."""
    pruned, compressed = layer["pruned"], layer["compressed"]
    drop = compressed["accuracy_drop"]
    return [
        layer["name"],
        f"{layer['weights']:,}",
        f"{layer['nonzero']:,}",
        ", ".join(str(b) for b in sorted(set(layer["bits"]))),
        "-" if pruned is None else percent(pruned["output_error"]),
        percent(compressed["output_error"]),
        _share(compressed["agreement"]),
        _share(drop),
    ]


def _backend(report: Report) -> str:
    backend = report["backend"]
    if backend is None:
        return "backend: not compared"
    return f"backend: {backend_text(backend, report['names'])}"


def backend_text(backend: Mapping[str, Any], layers: Mapping[str, str]) -> str:
    """Return what was compared with what, and how many numbers differ, in a sentence."""
    counts = []
    for quantity, what in (("spikes", "spikes"), ("u", "currents"), ("v", "potentials")):
        found = [p[quantity] for p in backend["populations"] if p[quantity] is not None]
        if found:
            different, compared = (sum(f[k] for f in found) for k in ("different", "compared"))
            counts.append(f"{different:,} of {compared:,} {what}")
    here, there = sides(backend["name"], backend["reference"])
    text = (
        f"{here} against {there} on {many(backend['samples'], 'sample')}: {', '.join(counts)} "
        "differ"
    )
    if backend["left_out"]:
        text += f" ({backend['left_out']} more samples would take the specification too long)"
    first = backend["first_difference"]
    if first is not None:
        text += (
            f"; first in layer {layers[first['population']]}, step {first['step']}, neuron "
            f"{first['neuron']} of sample {first['sample']}: {first['quantity']} is "
            f"{first['engine']} in {there}, {first['backend']} in {here}"
        )
    return text
