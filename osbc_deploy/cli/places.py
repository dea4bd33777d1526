"""What a command reads and writes: no output of it may be an input or another output of it.

Every command is a :class:`Command`, which compares all its paths before anything is done. The types
of its options say which are written; all others are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from osbc_deploy.apart import Place, Role, check_apart, path_in
from osbc_deploy.cli.console import for_results
from osbc_deploy.clock import now
from osbc_deploy.errors import UsageError

__all__ = [
    "Command",
    "Group",
    "GrowingFolder",
    "OutputFile",
    "OutputFolder",
    "UpdatedFile",
    "note",
]

_NOTED = "osbc_deploy.places"
"""Key of click's ``Context.meta`` for paths that do not reach the command as arguments."""


class OutputFile(click.Path):
    """A file to write; click would drop a trailing slash, which means a folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def role(self, _: click.Context) -> Role:
        """Return what the command does with it."""
        return Role.FILE

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of a file."""
        if isinstance(value, str) and value.endswith("/"):
            named = f"{param.opts[-1]}: " if param is not None else ""
            raise UsageError(f"{named}{value!r} names a folder. Name a file in it.")
        return super().convert(value, param, ctx)


class UpdatedFile(click.Path):
    """A file that is read, and written where a flag asks for that."""

    def __init__(self, flag: str) -> None:
        super().__init__(path_type=Path)
        self._flag = flag

    def role(self, ctx: click.Context) -> Role:
        """Return what the command does with it."""
        return Role.FILE if ctx.params[self._flag] else Role.READ


class OutputFolder(click.Path):
    """A folder, or whatever a format is, to write."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def role(self, _: click.Context) -> Role:
        """Return what the command does with it."""
        return Role.FOLDER


class GrowingFolder(OutputFolder):
    """A folder that is read and written file by file, in which no file of others has a place."""

    def role(self, _: click.Context) -> Role:
        """Return what the command does with it."""
        return Role.GROWING


class Command(click.Command):
    """A command whose outputs are apart from its inputs and from each other.

    While it runs, stdout is for its results alone.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises
        ------
        UsageError
            When it would write where it reads, or twice in one place, or the environment gives what
            is no time.
        """
        now()  # before NumPy meets what is no time
        check_apart(_places(ctx))
        for _, path, then in ctx.meta.get(_NOTED, ()):
            if then is not None:
                then(ctx, path)
        with for_results():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def note(
    ctx: click.Context,
    option: click.Parameter,
    path: Path,
    then: Callable[[click.Context, Path], None] | None = None,
) -> None:
    """Count a path that does not reach the command as an argument; do `then` once all are apart."""
    ctx.meta.setdefault(_NOTED, []).append((option, path, then))


def _places(ctx: click.Context) -> Iterator[Place]:
    given = [(option, ctx.params.get(option.name or "")) for option in ctx.command.params]
    noted = [(option, path) for option, path, _ in ctx.meta.get(_NOTED, ())]
    for option, value in (*given, *noted):
        role = getattr(option.type, "role", lambda _: Role.READ)(ctx)
        name = option.opts[0] if isinstance(option, click.Option) else option.human_readable_name
        for one in value if isinstance(value, tuple) else (value,):
            if (path := _path(option, one)) is not None:
                yield Place.of(name, path, role)


def _path(option: click.Parameter, value: Any) -> Path | None:
    """Return the file or folder that a value leads to, if it can lead to one."""
    if isinstance(option.type, click.Path):
        return path_in(value, named=True)
    found = path_in(value)
    if found is None and option.metavar == "DATA":
        return path_in(value, named=True)
    return found
