"""Whether the numbers of a report can all be true at once; a schema sees each one alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osbc_deploy.provenance import report_digest

__all__ = ["contradictions"]

Report = Mapping[str, Any]


def contradictions(report: Report) -> list[str]:
    """Return one line for everything in which a report contradicts itself.

    Parameters
    ----------
    report : dict
        That follows the schema.
    """
    return [*_digest(report), *_names(report), *_fit(report), *_accuracy(report), *_bits(report)]


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
            yield f"accuracy.{key}: {value} is no share of {test['samples']:,} samples"
    for key, value in accuracy["no_answer"].items():
        if not _is_share(value, test["samples"]):
            yield f"accuracy.no_answer.{key}: {value} is no share of {test['samples']:,} samples"


def _is_share(value: float, samples: int) -> bool:
    return abs(value * samples - round(value * samples)) <= 1e-9 * samples


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
