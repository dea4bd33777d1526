"""A report, a difference or a check as text in the formats other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from osbc_deploy.plain_text import csv_cell, markdown, visible
from osbc_deploy.report.check.findings import LimitResult

__all__ = ["cores_csv", "findings_junit", "findings_markdown"]

_CORE_COLUMNS = (
    "core",
    "layer",
    "population",
    "slice",
    "encoding",
    "neurons",
    "axons",
    "synapses",
    "bytes",
    "limiting",
    "limiting_share",
)


def cores_csv(report: Mapping[str, Any]) -> str:
    """Return one row per core: its slice, use and capacity of every resource.

    Every row ends with the accuracy of the whole network.
    """
    resources = list(report["cores"][0]["resources"])
    accuracy = report["accuracy"]
    stages = ("float", "compressed", "fixed_point")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    uses = [f"{r}_{k}" for r in resources for k in ("used", "max")]
    shares = [f"{k}_{stage}" for k in ("accuracy", "no_answer") for stage in stages]
    writer.writerow(map(csv_cell, (*_CORE_COLUMNS, *uses, *shares)))
    for core in report["cores"]:
        row = [
            *(core[name] for name in _CORE_COLUMNS),
            *(core["resources"][r][k] for r in resources for k in ("used", "max")),
            *(accuracy[stage] for stage in stages),
            *(accuracy["no_answer"][stage] for stage in stages),
        ]
        writer.writerow(map(csv_cell, row))
    return out.getvalue()


def findings_markdown(findings: Sequence[LimitResult]) -> str:
    """Return the findings as a Markdown table, the failed ones first."""
    lines = ["| limit | result | |", "|---|---|---|"]
    lines += [
        f"| {markdown(f.name)} | {'ok' if f.ok else '**FAIL**'} | {markdown(f.message)} |"
        for f in sorted(findings, key=lambda f: f.ok)
    ]
    return "\n".join(lines) + "\n"


def findings_junit(findings: Sequence[LimitResult]) -> str:
    """Return the findings as JUnit XML, one test case for each limit."""
    failures = sum(not f.ok for f in findings)
    suite = ElementTree.Element(
        "testsuite",
        name="osbc-deploy check",
        tests=str(len(findings)),
        failures=str(failures),
        errors="0",
        skipped="0",
    )
    for finding in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"budget.{finding.kind}", name=visible(finding.name)
        )
        if finding.ok:
            ElementTree.SubElement(case, "system-out").text = visible(finding.message)
        else:
            ElementTree.SubElement(case, "failure", message=visible(finding.message))
    ElementTree.indent(suite)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(suite, encoding="unicode")
        + "\n"
    )
