"""Commands that tell what there is: targets, backends."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from osbc_deploy.cli.console import emit, say
from osbc_deploy.cli.options import json_option
from osbc_deploy.cli.places import Command, Group

__all__ = ["backends_command", "listed_backends", "targets_group"]


@click.group("targets", cls=Group)
def targets_group() -> None:
    """List and show chip descriptions."""


@targets_group.command("list")
@json_option
def list_command(as_json: bool) -> int:
    """List the targets that come with the tool."""
    from osbc_deploy.chip.target import load_target, target_names

    targets = [load_target(name) for name in target_names()]
    if as_json:
        entries = [
            {
                "name": t.name,
                "title": t.title,
                "backend": t.backend if t.formats else None,
                "chips": t.chip.chips.value,
                "cores": t.cores,
                "memory_model": t.memory.model,
            }
            for t in targets
        ]
        emit(json.dumps(entries, indent=1))
        return 0
    for t in targets:
        use = f"backend {t.backend}" if t.formats else "map only"
        say(f"{t.name:<14} {t.cores:>7,} cores  {t.title} ({use})")
    return 0


@targets_group.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> int:
    """Show every number of a target with its grade and source."""
    from osbc_deploy.chip.target import load_target

    target = load_target(name)
    if as_json:
        emit(json.dumps(target.model_dump(), indent=1))
        return 0
    say(f"{target.name}: {target.title}")
    for place, fact in target.facts().items():
        say(f"  {place:<28} {fact.value!s:>22} {fact.unit:<8} {fact.grade:<10} [{fact.source}]")
    say("sources:")
    for key, text in target.sources.items():
        say(f"  [{key}] {text}")
    return 0


@targets_group.command("validate")
@click.argument("names", nargs=-1, required=True)
@json_option
def validate_command(names: tuple[str, ...], as_json: bool) -> int:
    """Check target files: keys, types, sources, inheritance, and what must add up.

    Exits with 2 when one of them is broken.
    """
    from osbc_deploy.chip.target import load_target
    from osbc_deploy.errors import TargetError

    entries = []
    for name in names:
        try:
            facts = load_target(name).facts().values()
        except TargetError as error:
            entries.append({"target": name, "ok": False, "message": str(error)})
            continue
        grades = Counter(fact.grade for fact in facts)
        text = ", ".join(f"{count} {grade}" for grade, count in sorted(grades.items()))
        entries.append({"target": name, "ok": True, "message": f"{len(facts)} facts: {text}"})
    if as_json:
        emit(json.dumps(entries, indent=1))
    else:
        for entry in entries:
            state = "ok  " if entry["ok"] else "FAIL"
            say(f"{state}  {entry['target']}: {entry['message']}", lines=True)
    return 0 if all(entry["ok"] for entry in entries) else 2


@click.command("backends", cls=Command)
@json_option
def backends_command(as_json: bool) -> int:
    """List installed backends and whether they can run here."""
    entries = listed_backends()
    if as_json:
        emit(json.dumps(entries, indent=1))
        return 0
    for entry in entries:
        say(
            f"{entry['name']:<10} {'ok' if entry['ok'] else 'MISSING':<8} "
            f"{entry['summary']} ({entry['detail']})"
        )
        if entry["remedy"]:
            say(f"{'':<19} {entry['remedy']}")
    return 0


def listed_backends() -> list[dict[str, Any]]:
    """Return every backend, and whether it can run here."""
    from osbc_deploy.backends import BACKENDS

    entries = []
    for entry in BACKENDS.listed():
        if entry.plugin is None:
            summary, ok, detail, remedy = "cannot be used", False, entry.fault, ""
        else:
            state = entry.plugin.availability()
            summary, ok = entry.plugin.summary, state.ok
            detail, remedy = state.detail, state.remedy
        entries.append(
            {
                "name": entry.name,
                "package": entry.package,
                "ok": ok,
                "summary": summary,
                "detail": detail,
                "remedy": remedy,
            }
        )
    return entries
