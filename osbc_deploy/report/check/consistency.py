"""Whether the numbers of a report can all be true at once; a schema sees each one alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osbc_deploy.fixedpoint.coding import InputFormat
from osbc_deploy.provenance import report_digest

__all__ = ["contradictions"]

Report = Mapping[str, Any]

_ROUNDING = 1e-9
"""Shares are told apart by more; of whole samples and weights, they differ by more."""


def contradictions(report: Report) -> list[str]:
    """Return one line for everything in which a report contradicts itself.

    Parameters
    ----------
    report : dict
        That follows the schema.
    """
    parts = (_digest, _names, _fit, _memory, _pruning, _input, _compression, _accuracy, _bits)
    return [line for part in parts for line in part(report)]


def _digest(report: Report) -> Iterator[str]:
    if report_digest(report) != report["provenance"]["report_sha256"]:
        yield "provenance.report_sha256: is of another text, so the report was changed"


def _names(report: Report) -> Iterator[str]:
    ours, theirs = report["target"]["name"], report["provenance"]["target"]["name"]
    if ours != theirs:
        yield f"target: is {ours!r}, in the provenance {theirs!r}"
    populations, cores = report["populations"], report["cores"]
    layers = [population["layer"] for population in populations]
    compressed = [layer["name"] for layer in report["compression"]["layers"]]
    projections = {p["name"] for population in populations for p in population["projections"]}
    if len(set(layers)) < len(layers) or set(layers) != {core["layer"] for core in cores}:
        yield "cores: are of other layers than the populations"
    if len(set(compressed)) < len(compressed) or not set(compressed) <= projections:
        yield "compression.layers: are not the network's"


def _fit(report: Report) -> Iterator[str]:
    if report["fits"] == bool(report["excesses"]):
        yield f"fits: is {str(report['fits']).lower()} with {len(report['excesses'])} excesses"
    if not report["cores"]:
        yield "cores: there are none"
    resources = {tuple(core["resources"]) for core in report["cores"]}
    if len(resources) > 1 or any(c["limiting"] not in c["resources"] for c in report["cores"]):
        yield "cores: not all of them have the same resources, one of which limits them"


def _memory(report: Report) -> Iterator[str]:
    memory, cores = report["memory"], report["cores"]
    used = len({core["core"] for core in cores})
    if memory["cores_used"] != used:
        yield f"memory.cores_used: is {memory['cores_used']:,}, {used:,} are listed"
    if report["fits"] and used > memory["cores_available"]:
        yield f"fits: with {used:,} cores, {memory['cores_available']:,} are available"
    full = (part for core in cores for part in core["resources"].items())
    if report["fits"] and (over := [name for name, r in full if r["used"] > r["max"]]):
        yield f"fits: with more {over[0]} than there is"
    # Words are whole, bytes of a core may not be.
    least = sum(core["bytes"] for core in cores)
    deployed = memory["deployed_bytes"]
    if not least <= deployed <= least + len(cores):
        yield f"memory.deployed_bytes: are {deployed:,}, those of the cores {least:,}"
    if deployed != memory["deployed_words"] * memory["word_bits"] // 8:
        yield f"memory.deployed_bytes: are {deployed:,}, the words have others"


def _pruning(report: Report) -> Iterator[str]:
    """Hold what is deployed against memory and cores; the rest cannot be known from a report."""
    if "pruning" not in report:
        return
    memory, cores = report["memory"], report["cores"]
    deployed = report["pruning"]["deployed"]
    counted = {
        "bytes": memory["deployed_bytes"],
        "cores": memory["cores_used"],
        "neurons": sum(core["neurons"] for core in cores),
    }
    for key, theirs in counted.items():
        if deployed[key] != theirs:
            yield f"pruning.deployed.{key}: are {deployed[key]:,}, those of the cores {theirs:,}"
    for name, used in deployed["used"].items():
        theirs = sum(core["resources"].get(name, {"used": 0})["used"] for core in cores)
        if used != theirs:
            yield f"pruning.deployed.used.{name}: is {used:,}, that of the cores {theirs:,}"
    for name, part in report["pruning"]["left_out"].items():
        there = sum(core["neurons"] for core in cores if core["population"] == name)
        bounds = [bound for span in part.get("stayed", [[0, there]]) for bound in span]
        stayed = sum(bounds[1::2]) - sum(bounds[::2])
        if not part["left_out"] or part["neurons"] - part["left_out"] != there:
            yield f"pruning.left_out.{name}: {part['left_out']:,} of {part['neurons']:,} neurons"
        if stayed != there or bounds != sorted({*bounds}) or bounds[-1] > part["neurons"]:
            yield f"pruning.left_out.{name}.stayed: are {stayed:,} neurons, {there:,} are on cores"


def _input(report: Report) -> Iterator[str]:
    given = report.get("input")
    if given is None:
        return
    try:
        held = InputFormat(*(given[key] for key in ("kind", "bits", "signed", "scale")))
    except ValueError as error:
        yield str(error)
        return
    if (given["low"], given["high"]) != (held.low, held.high):
        yield f"input: {given['low']:,} to {given['high']:,}, {held.bits} bits hold others"
    if given["largest"] > held.peak:
        yield f"input.largest: is {given['largest']:,}, {held.peak:,} are held"
    if given["clipped"] and held.kind == "integers":
        yield "input.clipped: whole numbers are not cut off"


def _compression(report: Report) -> Iterator[str]:
    compression = report["compression"]
    layers = compression["layers"]
    whole = {key: sum(layer[key] for layer in layers) for key in ("weights", "nonzero")}
    parts = {f"compression.layers.{number}": layer for number, layer in enumerate(layers)}
    for place, part in ({"compression": compression | whole} | parts).items():
        weights, nonzero, sparsity = part["weights"], part["nonzero"], part["sparsity"]
        if nonzero > weights or not weights or abs(1 - nonzero / weights - sparsity) > _ROUNDING:
            yield f"{place}.sparsity: is {sparsity}, {nonzero:,} of {weights:,} weights are not 0"


def _accuracy(report: Report) -> Iterator[str]:
    accuracy, test = report["accuracy"], report["provenance"]["test"]
    for key, ours, theirs in (
        ("samples", accuracy["samples"], test["samples"]),
        ("data", accuracy["data"], test["name"]),
    ):
        if ours != theirs:
            yield f"accuracy.{key}: is {ours!r}, of the test data {theirs!r}"
    for key in ("float", "compressed", "fixed_point"):
        value = accuracy[key]
        if (value is None) == test["labels"]:
            yield f"accuracy.{key}: is {value}, with {'' if test['labels'] else 'no '}labels"
        elif value is not None and not _is_share(value, test["samples"]):
            yield f"accuracy.{key}: {value} is not a share of {test['samples']:,} samples"
    for key, value in accuracy["no_answer"].items():
        if not _is_share(value, test["samples"]):
            yield f"accuracy.no_answer.{key}: {value} is not a share of {test['samples']:,} samples"
        if (right := accuracy[key]) is not None and right + value > 1 + _ROUNDING:
            yield f"accuracy.{key}: {right}, with {value} unanswered"
    yield from _agreement(accuracy, test["samples"])


def _agreement(accuracy: Report, samples: int) -> Iterator[str]:
    """Hold the share of answers that are the same against what it is a share of."""
    agreement, silent = accuracy["agreement"], accuracy["no_answer"]
    ours, theirs = silent["fixed_point"], silent["float"]
    if (agreement is None) != (ours == theirs == 1):
        yield f"accuracy.agreement: is {agreement}, with {ours} and {theirs} unanswered"
    elif agreement is not None:
        # Of the samples that one of the two answers: all, when one of them answers all.
        if 0 in (ours, theirs) and not _is_share(agreement, samples):
            yield f"accuracy.agreement: {agreement} is not a share of {samples:,} samples"
        right, was = accuracy["fixed_point"], accuracy["float"]
        if right is not None and abs(right - was) > 1 - agreement + _ROUNDING:
            yield f"accuracy.agreement: {agreement}, with accuracies {was} and {right}"


def _is_share(value: float, samples: int) -> bool:
    return abs(value * samples - round(value * samples)) <= _ROUNDING * samples


def _bits(report: Report) -> Iterator[str]:
    fidelity = report["fidelity"]
    for what in ("spikes", "potentials"):
        compared, different = fidelity[f"compared_{what}"], fidelity[f"mismatched_{what}"]
        if different > compared:
            yield f"fidelity: {different:,} of {compared:,} {what} differ"
    if fidelity["samples"] > report["accuracy"]["samples"]:
        yield f"fidelity.samples: {fidelity['samples']:,} were compared, more than there are"
    sides = {fidelity["backend"] is None, fidelity["reference"] is None}
    if sides != {fidelity["samples"] == 0}:
        yield (
            f"fidelity: {fidelity['backend']} against {fidelity['reference']} on "
            f"{fidelity['samples']:,} samples"
        )
