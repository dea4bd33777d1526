"""Build the report of a sweep: every point, and the configurations over their draws."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from osbc_deploy.parsing import schema_of
from osbc_deploy.plain_text import csv_cell
from osbc_deploy.provenance import sealed

if TYPE_CHECKING:
    from osbc_deploy.sweeping.result import SweepResult

__all__ = ["build_sweep", "points_csv", "sweep_json_schema"]

SCHEMA = "osbc-deploy/sweep/1"

_POINT = ("target", "method", "bits", "sparsity", "seed")
_MEASURES = (
    "fits", "cores", "memory_bytes", "weights", "nonzero", "loss", "synaptic_operations", "exact",
    "network_sha256",
)  # fmt: skip


def sweep_json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the report."""
    return schema_of("osbc_deploy.report.sweeping")


def build_sweep(result: SweepResult) -> dict[str, Any]:
    """Return the report of a sweep; numbers only, no rounding."""
    return sealed(
        {
            "schema": SCHEMA,
            "provenance": dict(result.provenance),
            "score": "accuracy" if result.labelled else "agreement",
            "configurations": [_flat(asdict(summary)) for summary in result.summaries],
            "points": [{**p.as_dict(), **record} for p, record in result.points.items()],
            "failures": [{**p.as_dict(), **asdict(why)} for p, why in result.failures.items()],
        }
    )


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    return {**summary.pop("configuration"), **summary}


def points_csv(report: Mapping[str, Any]) -> str:
    """Return a row for each point of a report."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shares = ("float", "compressed", "fixed_point", "agreement")
    writer.writerow(map(csv_cell, (*_POINT, *(f"accuracy_{s}" for s in shares), *_MEASURES)))
    for point in report["points"]:
        row = [
            *(point[name] for name in _POINT),
            *(point["accuracy"][name] for name in shares),
            *(point[name] for name in _MEASURES),
        ]
        writer.writerow(map(csv_cell, row))
    return out.getvalue()
