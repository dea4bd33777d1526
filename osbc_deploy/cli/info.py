"""Commands that tell what there is: targets, backends, doctor."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from osbc_deploy._version import __version__
from osbc_deploy.cli.options import json_option

__all__ = ["backends_command", "doctor_command", "targets_group"]

_PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "norse",
    "safetensors",
    "scikit-learn",
    "pydantic",
    "click",
    "rich",
)


@click.group("targets")
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
            {"name": t.name, "title": t.title, "backend": t.backend, "cores": t.chip.cores.value}
            for t in targets
        ]
        click.echo(json.dumps(entries, indent=1))
        return 0
    for t in targets:
        click.echo(f"{t.name:<14} {t.chip.cores.value:>5} cores  {t.title} (backend {t.backend})")
    return 0


@targets_group.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> int:
    """Show every number of a target with its grade and source."""
    from osbc_deploy.chip.target import load_target

    target = load_target(name)
    if as_json:
        click.echo(json.dumps(target.model_dump(), indent=1))
        return 0
    click.echo(f"{target.name}: {target.title}")
    for place, fact in target.facts().items():
        click.echo(
            f"  {place:<28} {fact.value!s:>22} {fact.unit:<8} {fact.grade:<10} [{fact.source}]"
        )
    click.echo("sources:")
    for key, text in target.sources.items():
        click.echo(f"  [{key}] {text}")
    return 0


@click.command("backends")
@json_option
def backends_command(as_json: bool) -> int:
    """List installed backends and whether they can run here."""
    entries = _backends()
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return 0
    for entry in entries:
        click.echo(
            f"{entry['name']:<10} {'ok' if entry['ok'] else 'MISSING':<8} "
            f"{entry['summary']} ({entry['detail']})"
        )
        if entry["remedy"]:
            click.echo(f"{'':<19} {entry['remedy']}")
    return 0


def _backends() -> list[dict[str, Any]]:
    from osbc_deploy.backends import backend_names, load_backend
    from osbc_deploy.errors import BackendError

    entries = []
    for name in backend_names():
        try:
            backend = load_backend(name)
        except BackendError as error:
            entries.append(
                {
                    "name": name,
                    "ok": False,
                    "summary": "plugin cannot be loaded",
                    "detail": str(error),
                    "remedy": "",
                }
            )
            continue
        state = backend.availability()
        entries.append(
            {
                "name": name,
                "ok": state.ok,
                "summary": backend.summary,
                "detail": state.detail,
                "remedy": state.remedy,
            }
        )
    return entries


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> int:
    """Say what is installed, what is missing, and what to do about it.

    Exits with 2 when something the core needs is missing; a missing backend is only reported.
    """
    packages = {name: _version(name) for name in _PACKAGES}
    backends = _backends()
    missing = [name for name, found in packages.items() if found is None]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "osbc-deploy": __version__,
                    "python": platform.python_version(),
                    "packages": packages,
                    "backends": backends,
                },
                indent=1,
            )
        )
        return 2 if missing else 0
    click.echo(f"osbc-deploy  {__version__}")
    click.echo(f"python       {platform.python_version()}")
    for name, found in packages.items():
        click.echo(f"{name:<12} {found or 'MISSING: pip install ' + name}")
    for entry in backends:
        state = "ok" if entry["ok"] else "MISSING"
        click.echo(f"backend {entry['name']:<8} {state}: {entry['detail']}")
        if entry["remedy"]:
            click.echo(f"  {entry['remedy']}")
    return 2 if missing else 0
