"""Options that all commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from osbc_deploy.errors import UsageError

__all__ = ["config_option", "json_option", "quiet_option"]


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take defaults for the command's options from the table named like the command."""
    if path is None:
        return
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not valid TOML ({error}). Correct the file.") from error
    name = ctx.info_name or ""
    values = tables.get(name, {})
    known = {p.name: p for p in ctx.command.params if p.name and p.expose_value}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: [{name}] must be a table of options.")
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(
            f"{path}: [{name}] holds unknown options: {', '.join(unknown)}. Known: "
            f"{', '.join(sorted(known))}."
        )
    ctx.default_map = {**(ctx.default_map or {}), **given}


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="Read options from the file's table named like the command, such as [deploy].",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print machine-readable JSON on stdout."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, errors only.")
