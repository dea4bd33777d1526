"""Pages' parts that the program knows: targets, options, schemas and errors, as Markdown.

They are written into ``_produced`` before the pages are read, which include them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from osbc_deploy import errors, options
from osbc_deploy.chip.target import load_target, target_names
from osbc_deploy.explanations import EXPLANATIONS
from osbc_deploy.options.option import Options, rows

ROOT = Path(__file__).parents[2]
TABLES = {
    "deploy": options.DeployOptions,
    "verify": options.VerifyOptions,
    "fit": options.FitOptions,
    "sweep": options.SweepOptions,
    "compress": options.CompressOptions,
    "data": options.InputOptions,
}


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a table; what would end a cell is escaped."""
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(
        f"| {' | '.join(str(c).replace('|', chr(92) + '|') for c in row)} |" for row in cells
    )


def targets() -> str:
    """Return every target that is shipped, and each number of it with grade and source."""
    parts = []
    for name in target_names():
        target = load_target(name)
        facts = [
            (f"`{place}`", f"{fact.value!s:.60}", fact.unit, fact.grade, fact.source)
            for place, fact in target.facts().items()
        ]
        cited = {key for fact in target.facts().values() for key in [fact.source]}
        sources = [f"- **{key}**: {text}" for key, text in target.sources.items() if key in cited]
        parts += [
            f"## {name}",
            f"{target.title}. {target.cores:,} cores, memory model `{target.memory.model}`, "
            + (f"backend `{target.backend}`." if target.formats else "for `map` only."),
            table(("number", "value", "unit", "grade", "source"), facts),
            *sources,
        ]
    return "\n\n".join(parts)


def _options(found: type[Options]) -> list[tuple[object, ...]]:
    lines: list[tuple[object, ...]] = []
    for row in rows(found):
        if row.table is not None:
            lines += _options(row.table)
            continue
        flag = row.about.flags[-1] if row.about.flags else f"--{row.name.replace('_', '-')}"
        kind = ", ".join(f"`{c}`" for c in row.choices) if row.choices else row.kind
        default = "" if row.default in (None, (), "") else f"`{row.default}`"
        lines.append((f"`{flag}`", f"`{row.name}`", kind, default, row.about.help))
    return lines


def option_tables() -> str:
    """Return every table of options: on the command line, in configuration files and in Python."""
    head = ("command line, `--config`", "Python", "value", "default", "what it does")
    return "\n\n".join(f"## {name}\n\n{table(head, _options(t))}" for name, t in TABLES.items())


def schema(path: Path) -> str:
    """Return the fields of a JSON schema, one a line."""
    found = json.loads(path.read_text("utf-8"))
    lines: list[tuple[str, str, str]] = []

    def walk(part: Any, place: str) -> None:
        for key, value in part.get("properties", {}).items():
            kind = value.get("type", value.get("$ref", "").rpartition("/")[2] or "any")
            kind = " or ".join(kind) if isinstance(kind, list) else kind
            lines.append((f"`{place}{key}`", kind, value.get("description", "")))
            walk(value, f"{place}{key}.")
            if isinstance(value.get("items"), dict):
                walk(value["items"], f"{place}{key}[].")

    walk(found, "")
    where = path.relative_to(ROOT)
    return f"[{where}](../../{where})\n\n" + table(("field", "type", "what it is"), lines)


def schemas() -> str:
    """Return the fields of every JSON that is written for programs."""
    names = {
        "deployment": "report.json: `deploy`, `report --format json`",
        "verification": "verify.json: `verify --json`",
        "sweeping": "sweep.json: `sweep --json`",
        "modules": "report of `compress --json`",
    }
    package = ROOT / "osbc_deploy"
    parts = [
        f"## {title}\n\n{schema(package / 'report' / name / 'schema.json')}"
        for name, title in names.items()
    ]
    telemetry = schema(package / "telemetry" / "schema.json")
    return "\n\n".join([*parts, f"## `telemetry decode`\n\n{telemetry}"])


def error_codes() -> str:
    """Return what ``osbc-deploy explain`` says, with the class that Python raises."""
    classes = [getattr(errors, name) for name in errors.__all__]
    raised = {c.code: c.__name__ for c in classes if isinstance(c, type)}
    parts = []
    for code, about in EXPLANATIONS.items():
        name = f" In Python: `osbc_deploy.errors.{raised[code]}`." if code in raised else ""
        parts.append(f"## {code}: {about.title}\n\n{about.meaning}{name}\n")
        parts += [f"- {cause}" for cause in about.causes]
    return "\n".join(parts)


def write(app: Sphinx) -> None:
    """Write what the pages include."""
    folder = Path(app.srcdir) / "_produced"
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("targets", targets()),
        ("options", option_tables()),
        ("schemas", schemas()),
        ("errors", error_codes()),
    ):
        (folder / f"{name}.md").write_text(f"{text}\n", "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
