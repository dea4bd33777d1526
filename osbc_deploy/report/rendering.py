"""Results rendered: the report of each kind, and the files of a deployment's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

from osbc_deploy.deployment import Deployment
from osbc_deploy.fitting.run import FitResult
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.inspection import Inspection
from osbc_deploy.modules.result import CompressedModel
from osbc_deploy.report.deployment.build import build_report
from osbc_deploy.report.describe import describe
from osbc_deploy.report.fitting.build import build_fit, front_of
from osbc_deploy.report.modules.build import build_compression
from osbc_deploy.report.summary import frame_of, html_of, text_of
from osbc_deploy.report.sweeping.build import build_sweep
from osbc_deploy.report.verification.build import build_verification
from osbc_deploy.report.verification.page import verify_page
from osbc_deploy.sweeping.result import SweepResult
from osbc_deploy.verification.result import Verification
from osbc_deploy.writing import new_folder

__all__ = ["frame_of", "html_of", "report_of", "save", "text_of"]


@singledispatch
def report_of(result: Any) -> dict[str, Any]:
    """Return the report of a result as plain data; each kind has its own schema."""
    raise TypeError(f"a {type(result).__name__} is not a result")


report_of.register(Deployment, build_report)
report_of.register(Verification, build_verification)
report_of.register(FitResult, build_fit)
report_of.register(CompressedModel, build_compression)
report_of.register(SweepResult, build_sweep)


@report_of.register
def _(result: Inspection) -> dict[str, Any]:
    found = describe(result.network)
    return {**found, "notes": [*found["notes"], *result.remarks]}


@singledispatch
def save(result: Any, folder: Path) -> None:
    """Write the deployed network and the reports into a folder, whole or not at all."""
    raise TypeError(f"a {type(result).__name__} is not a result")


@save.register
def _(result: Deployment, folder: Path) -> None:
    _write(result, folder, {})


@save.register
def _(result: Verification, folder: Path) -> None:
    report = report_of(result)
    more = {"verify.json": _json(report), "verify.html": verify_page(report)}
    _write(result.deployment, folder, more)


@save.register
def _(result: FitResult, folder: Path) -> None:
    _write(result.deployment, folder, {"fit.json": _json(front_of(result))})


def _write(deployment: Deployment, folder: Path, more: Mapping[str, str]) -> None:
    with new_folder(folder, DEPLOYMENT) as work:
        write_network(deployment.lowered.network, work)
        for name, text in {"report.json": _json(report_of(deployment)), **more}.items():
            (work / name).write_text(text, encoding="utf-8")


def _json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"
