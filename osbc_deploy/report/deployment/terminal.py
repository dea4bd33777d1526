"""The report as tables for a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from osbc_deploy.plain_text import many, terminal
from osbc_deploy.report.deployment.operations import (
    energy_text,
    instruction_lines,
    step_lines,
)
from osbc_deploy.report.measures import total_loss
from osbc_deploy.report.tables import PlainTable

__all__ = [
    "accuracy_line",
    "cores_tables",
    "fidelity_line",
    "fullest",
    "input_lines",
    "memory_line",
    "print_report",
    "print_warnings",
    "pruning_lines",
    "resource_label",
    "sides",
]

Report = Mapping[str, Any]

_COLUMNS = {
    "axon_in": "AxonIn",
    "neuron_groups": "NeuronGr",
    "neuron_state": "Neurons",
    "synapses": "Synapses",
    "axon_map": "AxonMap",
    "axon_mem": "AxonMem",
    "total": "Total",
}
"""The names that the compiler of Loihi 2 prints; other resources keep theirs."""


def print_report(report: Report, console: Console, *, details: bool = True) -> None:
    """Print warnings, the verdict, accuracy and memory, then layers and cores.

    Parameters
    ----------
    report : mapping
    console : Console
    details : bool
        Whether to print how each layer was compressed, every resource of every core, operations,
        placement and all notes, too.
    """
    print_warnings(report["warnings"], console)
    _verdict(report, console)
    lines = [accuracy_line(report), fidelity_line(report), memory_line(report)]
    lines += pruning_lines(report)
    lines += instruction_lines(report["operations"])
    lines += step_lines(report["operations"], details=details)
    lines += [*_activity(report)] if details else []
    for line in [*lines, *input_lines(report), *_leftovers(report["cores"])]:
        console.print(terminal(line), soft_wrap=True)
    console.print(_layers(report, details))
    tables = cores_tables(report["cores"], _cores_title(report), console.width)
    for table in tables if details else [_brief_cores(report["cores"], _cores_title(report))]:
        console.print(table)
    deviations = report["deviations"]
    if not details:
        if deviations:
            console.print(
                f"{len(deviations)} note(s) on what was read and changed: -v prints them, and "
                "all of the tables",
                soft_wrap=True,
            )
        return
    for deviation in deviations:
        console.print(
            terminal(f"note ({deviation['stage']}) {deviation['subject']}: {deviation['message']}"),
            soft_wrap=True,
        )


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """Print what puts a report in doubt, a line each."""
    for warning in warnings:
        console.print(terminal(f"warning: {warning}", "bold yellow"), soft_wrap=True)


_RANGE = re.compile(r"(\d+):(\d+)")
"""A slice of a layer without channels."""

_DETAILS = ("selection", "variant")
"""Columns of layers that only -v shows."""


def _layers(report: Report, details: bool) -> PlainTable:
    table = PlainTable(f"{report['provenance']['model']} on {report['target']['name']}")
    cores = Counter(core["layer"] for core in report["cores"])
    names = ["layer", "cores", "weights", "non-zero", "sparsity", "bits", "loss", "spikes/step"]
    for name in [*names, *(_DETAILS if details else ())]:
        table.add_column(name, justify="left" if name in ("layer", *_DETAILS) else "right")
    rates = {p["name"]: q["rate"] for q in report["populations"] for p in q["projections"]}
    for layer in report["compression"]["layers"]:
        rate, loss = rates[layer["name"]], total_loss(layer)
        table.add_row(
            layer["name"],
            str(cores[layer["name"]]),
            f"{layer['weights']:,}",
            f"{layer['nonzero']:,}",
            f"{layer['sparsity']:.1%}",
            str(layer["bits"]),
            "not measured" if loss is None else f"{loss:.4f}",
            "readout" if rate is None else f"{rate:.4f}",
            *((layer["selection"], layer["variant"]) if details else ()),
        )
    return table


def _cores_title(report: Report) -> str:
    memory = report["memory"]
    return (
        f"Cores ({memory['cores_used']} of {memory['cores_available']} used, "
        f"at least {memory['cores_lower_bound']} needed)"
    )


_WIDE = 150
"""Columns of a terminal from which on all of a core stands in one line."""


def cores_tables(
    cores: Sequence[Mapping[str, Any]], title: str, width: int
) -> tuple[PlainTable, ...]:
    """Return the use of every resource of every core, as one table or, where it is narrow, two."""
    if width >= _WIDE:
        return (_wide_cores(cores, title),)
    shares = PlainTable("Share of each resource")
    shares.add_column("core", justify="right")
    names = list(cores[0]["resources"])
    for name in names:
        shares.add_column(resource_label(name), justify="right")
    for core in cores:
        used = [core["resources"][name] for name in names]
        shares.add_row(str(core["core"]), *(f"{r['used'] / r['max']:.0%}" for r in used))
    return _brief_cores(cores, title), shares


def _brief_cores(cores: Sequence[Mapping[str, Any]], title: str) -> PlainTable:
    table = PlainTable(title)
    table.add_column("core", justify="right")
    table.add_column("layer slice")
    table.add_column("encoding")
    table.add_column("bytes", justify="right")
    table.add_column("fullest")
    for core in cores:
        table.add_row(
            str(core["core"]),
            f"{core['layer']}[{core['slice']}]",
            core["encoding"],
            f"{core['bytes']:,}",
            f"{resource_label(core['limiting'])} {core['limiting_share']:.0%}",
            style="red" if core["limiting_share"] > 1 else None,
        )
    return table


def _wide_cores(cores: Sequence[Mapping[str, Any]], title: str) -> PlainTable:
    names = list(cores[0]["resources"])
    table = PlainTable(title)
    table.add_column("core", justify="right")
    for name in ("layer slice", "encoding"):
        table.add_column(name)
    for name in (*names, "bytes"):
        table.add_column(resource_label(name), justify="right")
    table.add_column("fullest")
    for core in cores:
        table.add_row(
            str(core["core"]),
            f"{core['layer']}[{core['slice']}]",
            core["encoding"],
            *(_cell(core["resources"][name]) for name in names),
            f"{core['bytes']:,}",
            f"{resource_label(core['limiting'])} {core['limiting_share']:.0%}",
            style="red" if core["limiting_share"] > 1 else None,
        )
    return table


def resource_label(resource: str) -> str:
    """Return a resource by the name that Intel's compiler prints, or its own."""
    return _COLUMNS.get(resource, resource.replace("_", " "))


def _cell(resource: Mapping[str, int]) -> str:
    return f"{resource['used']:,} {resource['used'] / resource['max']:>4.0%}"


def memory_line(report: Report) -> str:
    """Return what the network takes on the chip, in a sentence."""
    memory = report["memory"]
    ratio = memory["deployed_bytes"] / memory["float_bytes"]
    text = (
        f"memory: {memory['deployed_bytes']:,} B on {many(memory['cores_used'], 'core')}, "
        f"{ratio:.1%} of the float network's {memory['float_bytes']:,} B; non-zero weights "
        f"alone would be {memory['synapse_payload_bytes']:,} B"
    )
    if ratio > 1:
        text += "; targets, state and merged poolings take more than the float weights"
    if memory["assumed"]:
        text += f" (assumed: {', '.join(memory['assumed'])})"
    return text


def _activity(report: Report) -> list[str]:
    operations, placement = report["operations"], report["placement"]
    text = f"operations: {operations['synaptic']:,.0f} synaptic a sample"
    if operations["useful"] < operations["synaptic"]:
        text += f" ({operations['useful']:,.0f} on non-zero weights)"
    text += f", {operations['neuron_updates']:,} neuron updates"
    if operations["energy"] is not None:
        text += f"; {energy_text(operations['energy'])}"
    lines = [text]
    if placement is not None and placement["layer_order"] > 0:
        lines.append(
            f"placement: {placement['spike_hops']:,.0f} spikes x hops a sample, in layer order "
            f"{placement['layer_order']:,.0f}, in random order {placement['random_order']:,.0f}"
        )
    return lines


def fullest(report: Report) -> tuple[int, str, float]:
    """Return the core that comes closest to a limit, the resource, and the share used.

    Layers may share a core.
    """
    used: Counter[tuple[int, str]] = Counter()
    most: dict[tuple[int, str], int] = {}
    for core in report["cores"]:
        for name, resource in core["resources"].items():
            used[core["core"], name] += resource["used"]
            most[core["core"], name] = resource["max"]
    (core, name), share = max(
        ((key, used[key] / most[key]) for key in used), key=lambda pair: pair[1]
    )
    return core, name, share


def pruning_lines(report: Report) -> list[str]:
    """Return what pruning bought on the target, in a sentence; none in a report without it."""
    if "pruning" not in report:
        return []
    before, after = report["pruning"]["unpruned"], report["pruning"]["deployed"]
    # Where all layers share a core, its resources say more than the sum in bytes.
    names = list(after["used"]) or ["bytes"]
    told = [
        (
            name.replace("_", " "),
            {**before, **before["used"]}[name],
            {**after, **after["used"]}[name],
        )
        for name in names
    ]
    told += [("neurons", before["neurons"], after["neurons"])]
    told += [] if after["used"] else [("cores", before["cores"], after["cores"])]
    parts = [f"{name} {was:,} -> {now:,}" for name, was, now in told]
    return [f"pruning: {', '.join(parts)} (all weights and neurons in the same bits -> deployed)"]


def input_lines(report: Report) -> list[str]:
    """Return what a graded input carries, in a sentence; none where it is spikes."""
    if "input" not in report:
        return []
    given = report["input"]
    held = f"{given['low']:,} to {given['high']:,} ({given['bits']} bits)"
    seen = f"the largest on the evaluated samples is {given['largest']:,}"
    if given["kind"] == "integers":
        return [f"input: whole numbers as they are, payloads {held}; {seen}"]
    scaled = f"input: real values in multiples of {given['scale']:.6g}, payloads {held}"
    return [f"{scaled}; {seen}, {given['clipped']:.2%} of their values are cut off"]


def accuracy_line(report: Report) -> str:
    """Return how the network answers, in a sentence."""
    accuracy = report["accuracy"]
    silent, agreement = accuracy["no_answer"], accuracy["agreement"]
    where = f"on {many(accuracy['samples'], 'sample')} of {accuracy['data']}"
    agree = (
        "no sample gets a class"
        if agreement is None
        else f"{agreement:.2%} get the float network's class"
    )
    text = (
        f"accuracy: no labels; {agree} {where}"
        if accuracy["float"] is None
        else f"accuracy: {_shares(accuracy)} {where}; {agree}"
    )
    return text + (f"; no answer: {_shares(silent)}" if any(silent.values()) else "")


def _shares(values: Mapping[str, float]) -> str:
    return (
        f"float {values['float']:.2%}, compressed {values['compressed']:.2%}, "
        f"fixed point {values['fixed_point']:.2%}"
    )


def fidelity_line(report: Report) -> str:
    """Return how backend and engine compare, in a sentence."""
    fidelity = report["fidelity"]
    if fidelity["backend"] is None:
        return "fidelity: not compared with a backend"
    here, there = sides(fidelity["backend"], fidelity["reference"])
    text = (
        f"fidelity: {here} against {there} on {many(fidelity['samples'], 'sample')}: "
        f"{fidelity['mismatched_spikes']:,} of {fidelity['compared_spikes']:,} spikes differ"
    )
    if fidelity["compared_potentials"]:
        text += (
            f", {fidelity['mismatched_potentials']:,} of "
            f"{fidelity['compared_potentials']:,} readout potentials"
        )
    if fidelity["left_out"]:
        text += f" ({fidelity['left_out']} more samples would take the specification too long)"
    return text


def sides(backend: str, reference: str) -> tuple[str, str]:
    """Return what was compared and with what, in words."""
    # The engine computes every result; as a backend it stands for what its bits are defined by.
    if reference == "specification":
        return "NumPy specification", "the compiled engine"
    return backend, f"the {reference}"


def _leftovers(cores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for every core that holds the last neuron of a layer and no other."""
    found = []
    for core in cores:
        ends = _RANGE.fullmatch(core["slice"])
        if ends and int(ends[1]) > 0 and int(ends[2]) - int(ends[1]) == 1:
            found.append(
                f"core {core['core']} holds one neuron of layer {core['layer']}: one neuron less "
                "in that layer saves the core"
            )
    return found


def _verdict(report: Report, console: Console) -> None:
    for excess in report["excesses"]:
        console.print(terminal(f"over: {excess}", "red"), soft_wrap=True)
    verdict = (
        Text("FITS", style="bold green")
        if report["fits"]
        else Text("DOES NOT FIT", style="bold red")
    )
    memory = report["memory"]
    core, resource, share = fullest(report)
    console.print(
        Text("verdict: ")
        + verdict
        + terminal(
            f" {report['target']['name']}, {memory['cores_used']} of {memory['cores_available']} "
            f"cores, fullest is core {core} ({resource_label(resource)} {share:.0%})"
        ),
        soft_wrap=True,
    )
