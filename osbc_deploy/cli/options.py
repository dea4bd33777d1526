"""Options that all commands share."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from osbc_deploy.errors import UsageError
from osbc_deploy.limits import HAND_WRITTEN, read_text
from osbc_deploy.parsing import parse_toml

__all__ = ["ARGUMENTS", "SEED", "OutputFile", "config_option", "json_option", "quiet_option"]

ARGUMENTS = "osbc_deploy.arguments"
"""Key of click's ``Context.meta`` for the command line as it was given."""

SEED = click.IntRange(0, 2**32 - 1)
"""Seeds that numpy and torch both take."""


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take defaults for the command's options from the table named like the command."""
    if path is None:
        return
    try:
        tables = parse_toml(read_text(path, most=HAND_WRITTEN, error=UsageError))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not valid TOML ({error}). Correct the file.") from error
    name = ctx.info_name or ""
    _check_tables(path, tables, {name, *getattr(ctx.find_root().command, "commands", ())})
    values = tables.get(name, {})
    known = {p.name: p for p in ctx.command.params if p.name and p.expose_value}
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(
            f"{path}: [{name}] holds unknown options: {', '.join(unknown)}. Known: "
            f"{', '.join(sorted(known))}."
        )
    for key, value in values.items():
        if fault := _fault(known[str(key).replace("-", "_")], value):
            raise UsageError(f"{path}: [{name}] {key}: {fault}")
    ctx.default_map = {**(ctx.default_map or {}), **given}


def _check_tables(path: Path, tables: dict[str, Any], commands: set[str]) -> None:
    """Refuse what no command would read: it is a mistake, and would change nothing silently."""
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise UsageError(
                f"{path}: {key} stands outside a table. Put it into that of a command, such as "
                "[deploy]."
            )
        if key not in commands:
            close = difflib.get_close_matches(key, commands, 1)
            raise UsageError(
                f"{path}: [{key}] is no command. "
                + (f"Did you mean [{close[0]}]?" if close else f"Known: {_listed(commands)}.")
            )


def _fault(option: click.Parameter, value: Any) -> str:
    """Return why an option cannot have a value of this kind; empty if it can.

    click converts texts and checks them; what TOML has beside texts it takes as it comes.
    """
    if getattr(option, "multiple", False):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            return f'{value!r} is no list of texts. Give such as ["..."].'
        return ""
    if getattr(option, "is_flag", False):
        return "" if isinstance(value, bool) else f"{value!r} is neither true nor false."
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"{value!r} is no single value. Give one number or text."
    if isinstance(option.type, click.types.IntParamType) and isinstance(value, float):
        return f"{value!r} is no whole number. Give one."
    if "\0" in str(value):
        return "holds a null character, which no path or name has."
    if isinstance(option.type, click.Path) and not isinstance(value, str):
        return f"{value!r} is no path. Give it as a text."
    return ""


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


class OutputFile(click.Path):
    """A file to write; click would drop a trailing slash, which means a folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of a file."""
        if isinstance(value, str) and value.endswith("/"):
            named = f"{param.opts[-1]}: " if param is not None else ""
            raise UsageError(f"{named}{value!r} names a folder. Name a file in it.")
        return super().convert(value, param, ctx)


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
