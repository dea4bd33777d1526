"""Options on the command line: those of the tables, and those that all commands share."""

from __future__ import annotations

import difflib
import functools
import itertools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from osbc_deploy.apart import within
from osbc_deploy.cli.console import keep_log, log, say
from osbc_deploy.cli.places import GrowingFolder, OutputFile, OutputFolder, note
from osbc_deploy.errors import UsageError
from osbc_deploy.limits import NO_SIZE, parsed_size
from osbc_deploy.options.option import BYTES, Options, Row, renamed, rows
from osbc_deploy.options.unasked import unasked
from osbc_deploy.parsing import read_toml

__all__ = [
    "ARGUMENTS",
    "Size",
    "begin_refused_log",
    "config_option",
    "given",
    "json_option",
    "log_option",
    "quiet_option",
    "takes",
    "verbose_option",
]

F = TypeVar("F", bound=Callable[..., Any])

ARGUMENTS = "osbc_deploy.arguments"
"""Key of click's ``Context.meta`` for the command line as it was given."""

_WRITTEN = {"output": OutputFolder(), "resume": GrowingFolder(), "ledger": GrowingFolder()}
"""Paths of the tables that are written."""
_TYPES: dict[str, Any] = {"flag": bool, "whole": int, "number": float, "text": str}


def takes(**tables: type[Options]) -> Callable[[F], F]:
    """Give a command the options of tables, each of which reaches it as one object.

    Parameters
    ----------
    **tables
        By the name of the command's argument.
    """

    def of(command: F) -> F:
        @functools.wraps(command)
        def called(*args: Any, **values: Any) -> Any:
            values = _current(values, [row for table in tables.values() for row in _flat(table)])
            made = {name: _made(table, values) for name, table in tables.items()}
            return command(*args, **made, **values)

        wrapped: Any = called
        for table in reversed(tables.values()):
            for row in reversed(_flat(table)):
                wrapped = _option(row)(wrapped)
                if row.about.formerly:
                    wrapped = _option(_former(row), hidden=True)(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return of


def _flat(table: type[Options]) -> list[Row]:
    """Return the options of a table; those within an option stand in its place."""
    return [
        inner for row in rows(table) for inner in ([row] if row.table is None else _flat(row.table))
    ]


def _former(row: Row) -> Row:
    """Return an option as it was called before; by default it is not given."""
    return replace(row, name=row.about.formerly, default=None)


def _current(values: dict[str, Any], known: list[Row]) -> dict[str, Any]:
    """Take what was given by a former name for the option that it is now, and warn."""
    ctx = click.get_current_context()
    old = {row.about.formerly for row in known if row.about.formerly}
    default = click.core.ParameterSource.DEFAULT
    replaced = {
        row.name
        for row in known
        if values.get(row.about.formerly) is not None
        and ctx.get_parameter_source(row.name) is default
    }
    given = {
        name: value
        for name, value in values.items()
        if name not in replaced and not (name in old and value is None)
    }
    found, warnings = renamed(given, known)
    for text in warnings:
        say(f"warning: {text}", err=True)
    return found


def given(*names: str) -> list[str]:
    """Return the flags of those options that were given, here or in a configuration file."""
    ctx = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return [
        option.opts[-1]
        for option in ctx.command.params
        if option.name in names and ctx.get_parameter_source(option.name) is not default
    ]


def _made(table: type[Options], values: dict[str, Any]) -> Options:
    """Take the options of a table out of a command's arguments."""
    source = click.get_current_context().get_parameter_source

    def value(row: Row) -> Any:
        if row.table is not None:
            return _made(row.table, values)
        found = values.pop(row.name)
        # click makes plain numbers of defaults that are known to be no more than that.
        default = source(row.name) is click.core.ParameterSource.DEFAULT
        return row.default if default and unasked(row.default) else found

    return table(**{row.name: value(row) for row in rows(table)})


def _option(row: Row, *, hidden: bool = False) -> Callable[[F], F]:
    flag = f"--{row.name.replace('_', '-')}"
    about = row.about
    more: dict[str, Any] = {"type": _TYPES.get(row.kind)}
    default, flags = row.default, about.flags or (flag,)
    if row.choices:
        more["type"] = click.Choice(row.choices)
    elif row.kind == "path":
        more["type"] = _WRITTEN.get(row.name, click.Path(path_type=Path))
    elif row.kind == "flag":
        more = {"is_flag": True}
        flags = (f"{flag}/--no-{flag[2:]}",) if default else flags
    elif about.metavar == BYTES:
        more["type"] = Size()
    if row.many and row.kind in ("whole", "number"):
        more = {"callback": functools.partial(_numbers, _TYPES[row.kind])}
        default = ",".join(map(str, default)) or None
    elif row.many:
        more["multiple"] = True
    shown = default is not None and default is not False and default != () and not about.required
    if shown or row.kind == "flag":
        more["default"] = default
    return click.option(
        *flags,
        row.name,
        show_default=shown,
        required=about.required,
        metavar=about.metavar,
        help=about.help,
        hidden=hidden,
        **more,
    )


def _numbers(
    kind: type[int | float], _: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in value.split(",")) if value is not None else ()
    except ValueError as error:
        what, such = ("whole numbers", "2,3,4,8") if kind is int else ("numbers", "0.8,0.9")
        raise UsageError(
            f"{option.opts[-1]}: {value!r} is not a list of {what}. Give some such as {such}."
        ) from error


def _read_config(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Take defaults for the command's options from the table named like the command."""
    if path is None:
        return
    note(ctx, option, path)
    tables = read_toml(path)
    name = ctx.info_name or ""
    _check_tables(path, tables, {name: (), **_commands(ctx.find_root().command)})
    values = tables.get(name, {})
    options = [p for p in ctx.command.params if p.name and p.expose_value]
    # As on the command line, or as in Python where that differs.
    known = {_key(p.opts[-1]): p for p in options} | {p.name: p for p in options}
    unknown = sorted(key for key in values if _key(key) not in known)
    if unknown:
        raise UsageError(
            f"{path}: [{name}] holds unknown options: {', '.join(unknown)}. Known: "
            f"{', '.join(sorted({_key(p.opts[-1]) for p in options if not _hidden(p)}))}."
        )
    given = {}
    for key, value in values.items():
        option = known[_key(key)]
        if fault := _fault(option, value):
            raise UsageError(f"{path}: [{name}] {key}: {fault}")
        if option.name in given:
            raise UsageError(
                f"{path}: [{name}] {key}: stands there twice, in two spellings. Keep one of them."
            )
        given[option.name] = value
    ctx.default_map = {**(ctx.default_map or {}), **given}


def _hidden(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.hidden


def _key(name: str) -> str:
    """Return a name as the table has it: dashes and underscores are one."""
    return name.lstrip("-").replace("-", "_")


def _commands(program: click.Command) -> dict[str, tuple[str, ...]]:
    """Return all commands by the name of their table; of a group, those in it."""
    found: dict[str, tuple[str, ...]] = {}
    for name, command in getattr(program, "commands", {}).items():
        inner = _commands(command)
        found |= {**inner, name: tuple(inner)}
    return found


def _check_tables(
    path: Path, tables: dict[str, Any], commands: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse what no command would read: it is a mistake, and would change nothing silently."""
    grouped = {name for inner in commands.values() for name in inner}
    known = sorted(
        (name for name, inner in commands.items() if not inner),
        key=lambda name: (name in grouped, name),
    )
    for key, value in tables.items():
        if not isinstance(value, dict):
            raise UsageError(
                f"{path}: {key} stands outside a table. Put it into that of a command, such as "
                "[deploy]."
            )
        if key not in commands:
            close = difflib.get_close_matches(key, known, 1)
            raise UsageError(
                f"{path}: [{key}] is not a command. "
                + (f"Did you mean [{close[0]}]?" if close else f"Known: {', '.join(known)}.")
            )
        if inner := commands[key]:
            raise UsageError(
                f"{path}: [{key}] is a group of commands, which has no options. Give the table of "
                f"one of them: {_listed(inner)}."
            )


def _fault(option: click.Parameter, value: Any) -> str:
    """Return why an option cannot have a value of this kind; empty if it can.

    click converts texts and checks them; what TOML has beside texts it takes as it comes.
    """
    if getattr(option, "multiple", False):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            return f'{value!r} is not a list of texts. Give such as ["..."].'
        return ""
    if getattr(option, "is_flag", False):
        return "" if isinstance(value, bool) else f"{value!r} is neither true nor false."
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f"{value!r} is not a single value. Give one number or text."
    if isinstance(option.type, click.types.IntParamType) and isinstance(value, float):
        return f"{value!r} is not a whole number. Give one."
    if "\0" in str(value):
        return "holds a null character, which no path or name has."
    if isinstance(option.type, click.Path) and not isinstance(value, str):
        return f"{value!r} is not a path. Give it as a text."
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


class Size(click.types.IntParamType):
    """A number of bytes, with a unit or without."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        # A default, and what a configuration has without quotes, is a number already.
        size = value if isinstance(value, int) else parsed_size(value)
        if size is not None and size >= 0:
            return size
        named = f"{param.opts[-1]}: " if param is not None else ""
        raise UsageError(f"{named}{value!r} {NO_SIZE}")


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
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Print all tables and notes, not the summary alone."
)


def _note_log(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        note(ctx, option, path, _begin_log)


def _begin_log(ctx: click.Context, path: Path) -> None:
    keep_log(path)
    log(shlex.join(["osbc-deploy", *ctx.meta.get(ARGUMENTS, ())]))


def begin_refused_log(arguments: Sequence[str]) -> None:
    """Begin the log of a command line that is refused before its command runs.

    Not where another word may name the file, or a folder that holds it.

    Raises
    ------
    WritingError
        When the file cannot be opened.
    """
    words = [w for a in arguments for w in (a.split("=", 1) if a.startswith("--") else [a])]
    for place, (name, value) in enumerate(itertools.pairwise(words)):
        others = [word.partition(":")[0] for word in words[:place] + words[place + 2 :]]
        if name == "--log" and not any(within(Path(value), Path(o)) for o in others if o):
            keep_log(Path(value))
            log(shlex.join(["osbc-deploy", *arguments]))
            return


log_option = click.option(
    "--log",
    type=OutputFile(),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_note_log,
    help="Append messages and progress, with the time, to a file.",
)
