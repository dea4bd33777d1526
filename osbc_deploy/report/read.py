"""Read reports back: from a deployment's folder or a JSON file, checked against the schema."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.report.build import SCHEMA, json_schema
from osbc_deploy.writing import recover

__all__ = ["read_report"]

_COUNTED = 100
_SHOWN = 5
"""Schema faults listed before the rest is counted."""


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
        When it is no report, of another schema version, or does not follow the schema.
    """
    import jsonschema

    recover(path)
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such file. Write it with osbc-deploy ... -o FOLDER.")
    try:
        report = json.loads(read_text(file, each=PARSED))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{file}: is no JSON report ({error}). Deploy again.") from error
    found = report.get("schema") if isinstance(report, dict) else None
    if found != SCHEMA:
        raise ArtefactError(
            f"{file}: schema {found!r} is not {SCHEMA!r}. Deploy again with this version."
        )
    validator = jsonschema.Draft202012Validator(json_schema())
    # Each quotes what is wrong; a large file can have very many.
    found_first = islice(validator.iter_errors(report), _COUNTED)
    faults = sorted(found_first, key=lambda fault: list(map(str, fault.path)))
    if faults:
        lines = [
            f"  - {'.'.join(map(str, f.path)) or 'report'}: {f.message[:200]}"
            for f in faults[:_SHOWN]
        ]
        if len(faults) > _SHOWN:
            least = "at least " if len(faults) == _COUNTED else ""
            lines.append(f"  - and {least}{len(faults) - _SHOWN} more")
        raise ArtefactError(
            f"{file}: does not follow the schema:\n" + "\n".join(lines) + "\nDeploy again."
        )
    checked: dict[str, Any] = report
    return checked
