"""Read reports back: from a deployment's folder or a JSON file, checked against the schema.

A network that lies beside a report must be the one it is of.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, NotFoundError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import ARRAYS, network_digest, read_network
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.report.check.consistency import contradictions
from osbc_deploy.report.deployment.build import SCHEMA, json_schema
from osbc_deploy.writing import recover

__all__ = ["read_deployment", "read_report"]

_REPORT = "report.json"
_GIVE = "Give the folder that osbc-deploy ... -o wrote, or deploy again."
_COUNTED = 100
"""Faults that are looked for: each quotes what is wrong, and a large file can have very many."""
_SHOWN = 5
"""Faults that are listed; the rest is counted."""


def read_report(path: Path) -> dict[str, Any]:
    """Read and validate a report; parameters and errors are those of :func:`read_deployment`."""
    return read_deployment(path)[0]


def read_deployment(path: Path) -> tuple[dict[str, Any], FixedPointNetwork | None]:
    """Read and validate a report, and the network beside it.

    Parameters
    ----------
    path : Path
        A folder written by ``osbc-deploy -o`` or a report as JSON.

    Returns
    -------
    report : dict
    network : FixedPointNetwork or None
        None where there is none, as beside a report that was copied alone.

    Raises
    ------
    UsageError
        When there is nothing at `path`.
    ArtefactError
        When it is not a report, of another schema version, does not follow the schema, contradicts
        itself, or was changed after it was written; when the network beside it is broken or
        another one.
    """
    recover(path)
    file = path / _REPORT if path.is_dir() else path
    report = _read(path, file)
    beside = [file.parent / name for name in (DEPLOYMENT.marker, ARRAYS)]
    # A report of any other name, such as a baseline, may lie beside networks of others.
    if file.name != _REPORT or not any(map(os.path.lexists, beside)):
        return report, None
    network = read_network(file.parent)
    found, written = network_digest(network), report["provenance"]["network_sha256"]
    if found != written:
        raise ArtefactError(
            f"{path}: the report is of another network ({written[:12]}) than the one beside it "
            f"({found[:12]}). Deploy again."
        )
    return report, network


def _read(path: Path, file: Path) -> dict[str, Any]:
    """Read and validate the report alone."""
    if not path.exists():
        raise NotFoundError(f"{path}: no such file. Write it with osbc-deploy ... -o FOLDER.")
    if not file.exists():
        raise ArtefactError(
            f"{file}: is not there, so this is not a deployment. Give the folder that "
            "osbc-deploy ... -o wrote."
        )
    try:
        report = parse_json(read_text(file, each=PARSED))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{file}: is not a JSON report ({error}). {_GIVE}") from error
    found = report.get("schema") if isinstance(report, dict) else None
    if found != SCHEMA:
        of_ours = str(found).startswith(SCHEMA.rpartition("/")[0])
        remedy = "Deploy again with this version." if of_ours else _GIVE
        raise ArtefactError(f"{file}: schema {repr(found)[:60]} is not {SCHEMA!r}. {remedy}")
    faults = [
        f"{'.'.join(map(str, fault.path)) or 'report'}: {fault.message[:200]}"
        for fault in islice(_validator().iter_errors(report), _COUNTED)
    ]
    if faults := faults or contradictions(report):
        shown = "; ".join(sorted(faults)[:_SHOWN])
        least = "at least " if len(faults) == _COUNTED else ""
        more = f"; and {least}{len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ArtefactError(f"{file}: is not a report to trust: {shown}{more}. Deploy again.")
    checked: dict[str, Any] = report
    return checked


def _validator() -> Any:
    import jsonschema

    # JSON Schema takes 5.0 for a whole number.
    strict = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, type_checker=strict)(json_schema())
