"""The report as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from osbc_deploy.plain_text import terminal
from osbc_deploy.report.measures import total_loss
from osbc_deploy.report.tables import PlainTable

__all__ = [
    "accuracy_line",
    "cores_table",
    "fidelity_line",
    "fullest",
    "input_lines",
    "memory_line",
    "print_report",
    "print_warnings",
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


def print_report(report: Report, console: Console) -> None:
    """Print warnings, layers, cores, totals, accuracy, fidelity, deviations and the verdict."""
    print_warnings(report["warnings"], console)
    console.print(_layers(report))
    console.print(_cores(report))
    lines = [memory_line(report), *_activity(report), *input_lines(report)]
    lines += [accuracy_line(report), fidelity_line(report)]
    for line in lines:
        console.print(terminal(line), soft_wrap=True)
    for deviation in report["deviations"]:
        console.print(
            terminal(f"note ({deviation['stage']}) {deviation['subject']}: {deviation['message']}"),
            soft_wrap=True,
        )
    _verdict(report, console)


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """Print what puts a report in doubt, a line each."""
    for warning in warnings:
        console.print(terminal(f"warning: {warning}", "bold yellow"), soft_wrap=True)


def _layers(report: Report) -> PlainTable:
    table = PlainTable(f"{report['provenance']['model']} on {report['target']['name']}")
    cores = Counter(core["layer"] for core in report["cores"])
    for name in (
        "layer",
        "cores",
        "weights",
        "non-zero",
        "sparsity",
        "bits",
        "loss",
        "selection",
        "variant",
        "spikes/step",
    ):
        table.add_column(
            name, justify="left" if name in ("layer", "selection", "variant") else "right"
        )
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
            layer["selection"],
            layer["variant"],
            "readout" if rate is None else f"{rate:.4f}",
        )
    return table


def _cores(report: Report) -> PlainTable:
    return cores_table(
        report["cores"],
        f"Cores ({report['memory']['cores_used']} of {report['memory']['cores_available']} used, "
        f"at least {report['memory']['cores_lower_bound']} needed)",
    )


def cores_table(cores: Sequence[Mapping[str, Any]], title: str) -> PlainTable:
    """Return the use of every resource of every core."""
    names = list(cores[0]["resources"])
    table = PlainTable(title)
    table.add_column("core", justify="right")
    for name in ("layer slice", "encoding"):
        table.add_column(name)
    for name in (*names, "bytes"):
        table.add_column(_label(name), justify="right")
    table.add_column("limiting")
    for core in cores:
        table.add_row(
            str(core["core"]),
            f"{core['layer']}[{core['slice']}]",
            core["encoding"],
            *(_cell(core["resources"][name]) for name in names),
            f"{core['bytes']:,}",
            f"{_label(core['limiting'])} {core['limiting_share']:.0%}",
            style="red" if core["limiting_share"] > 1 else None,
        )
    return table


def _label(resource: str) -> str:
    return _COLUMNS.get(resource, resource.replace("_", " "))


def _cell(resource: Mapping[str, int]) -> str:
    return f"{resource['used']:,} {resource['used'] / resource['max']:>4.0%}"


def memory_line(report: Report) -> str:
    """Return what the network takes on the chip, in a sentence."""
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


def _activity(report: Report) -> list[str]:
    operations, placement = report["operations"], report["placement"]
    text = f"operations: {operations['synaptic']:,.0f} synaptic a sample"
    if operations["useful"] < operations["synaptic"]:
        text += f" ({operations['useful']:,.0f} on non-zero weights)"
    text += f", {operations['neuron_updates']:,} neuron updates"
    energy = operations["energy"]
    if energy is not None:
        text += f"; {energy['picojoules'] / 1e6:,.2f} uJ ({energy['grade']}: {energy['source']})"
    lines = [text, *_steps(operations)]
    if placement is not None and placement["layer_order"] > 0:
        lines.append(
            f"placement: {placement['spike_hops']:,.0f} spikes x hops a sample, in layer order "
            f"{placement['layer_order']:,.0f}, in random order {placement['random_order']:,.0f}"
        )
    return lines


def _steps(operations: Mapping[str, Any]) -> list[str]:
    """Return what a step takes on a processor, as modelled; none where that is not known."""
    if "instructions" not in operations:
        return []
    found = operations["instructions"]
    typical, worst, bound = (found[name] for name in ("typical", "worst", "bound"))
    clock = found["clock_hz"]
    return [
        f"instructions: {typical:,.0f} a step on average, {worst:,.0f} at most on the calibration "
        f"samples, {bound:,.0f} if everything fired; {worst / clock * 1e3:,.3g} ms at "
        f"{clock / 1e6:,.4g} MHz and one a cycle (modelled: {found['source']})"
    ]


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
    where = f"on {accuracy['samples']} samples of {accuracy['data']}"
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
        f"fidelity: {here} against {there} on {fidelity['samples']} samples: "
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
            f"cores, fullest is core {core} ({_label(resource)} {share:.0%})"
        ),
        soft_wrap=True,
    )
