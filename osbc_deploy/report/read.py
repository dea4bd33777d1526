"""Read reports back: from a deployment's folder or a JSON file, checked against the schema."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, NotFoundError
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json
from osbc_deploy.report.check.consistency import contradictions
from osbc_deploy.report.deployment.build import SCHEMA, json_schema
from osbc_deploy.writing import recover

__all__ = ["read_report"]

_COUNTED = 100
"""Faults that are looked for: each quotes what is wrong, and a large file can have very many."""
_SHOWN = 5
"""Faults that are listed; the rest is counted."""


def read_report(path: Path) -> dict[str, Any]:
    """Read and validate a report.

    Parameters
    ----------
    path : Path
        A folder written by ``osbc-deploy -o`` or a report as JSON.

    Raises
    ------
    UsageError
        When there is nothing at `path`.
    ArtefactError
        When it is not a report, of another schema version, does not follow the schema, contradicts
        itself, or was changed after it was written.
    """
    recover(path)
    file = path / "report.json" if path.is_dir() else path
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
        raise ArtefactError(f"{file}: is not a JSON report ({error}). Deploy again.") from error
    found = report.get("schema") if isinstance(report, dict) else None
    if found != SCHEMA:
        raise ArtefactError(
            f"{file}: schema {repr(found)[:60]} is not {SCHEMA!r}. Deploy again with this version."
        )
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
