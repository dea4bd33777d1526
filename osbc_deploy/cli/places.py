"""What a command reads and writes: no output of it may be an input or another output of it.

Every command is a :class:`Command`, which compares all its paths before anything is done. The types
of its options say which are written; all others are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import click

from osbc_deploy.errors import UsageError
from osbc_deploy.folders import KINDS

__all__ = [
    "Command",
    "Group",
    "GrowingFolder",
    "OutputFile",
    "OutputFolder",
    "UpdatedFile",
    "note",
    "within",
]

_NOTED = "osbc_deploy.places"
"""Key of click's ``Context.meta`` for paths that do not reach the command as arguments."""


class Role(Enum):
    """What a command does with a path."""

    READ = auto()
    FILE = auto()
    """It is written anew."""
    FOLDER = auto()
    """It is written anew, with all that is in it."""
    GROWING = auto()
    """It is read and written, file by file."""


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


@dataclass(frozen=True)
class _Place:
    """A path as it was given, by what option, and where it leads to."""

    option: str
    given: Path
    role: Role
    real: Path


class Command(click.Command):
    """A command whose outputs are apart from its inputs and from each other."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises
        ------
        UsageError
            When it would write where it reads, or twice in one place.
        """
        places = list(_places(ctx))
        for output in places:
            if output.role is not Role.READ:
                _check(output, [other for other in places if other is not output])
        for _, path, then in ctx.meta.get(_NOTED, ()):
            if then is not None:
                then(ctx, path)
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


def _places(ctx: click.Context) -> Iterator[_Place]:
    given = [(option, ctx.params.get(option.name or "")) for option in ctx.command.params]
    noted = [(option, path) for option, path, _ in ctx.meta.get(_NOTED, ())]
    for option, value in (*given, *noted):
        role = getattr(option.type, "role", lambda _: Role.READ)(ctx)
        name = option.opts[0] if isinstance(option, click.Option) else option.human_readable_name
        for one in value if isinstance(value, tuple) else (value,):
            if (path := _path(option, one)) is not None:
                yield _Place(name, path, role, _real(path))


def _path(option: click.Parameter, value: Any) -> Path | None:
    """Return the file or folder that a value leads to, if it can lead to one."""
    if isinstance(value, Path) or not isinstance(value, str):
        return value if isinstance(value, Path) else None
    if isinstance(option.type, click.Path):
        return Path(value)
    place, _, _ = value.rpartition(":")
    if place.endswith(".py"):
        return Path(place)
    # Names of targets, symbols and the like are no files, though one may be called like them.
    return Path(value) if option.metavar == "DATA" or Path(value).suffix else None


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        # What cannot be is refused where it is read or written.
        return Path(os.path.abspath(path))


def _check(output: _Place, others: list[_Place]) -> None:
    for other in others:
        if fault := _fault(output, other):
            raise UsageError(
                f"{output.option}: {output.given} {fault}. Name another place with {output.option}."
            )


def _fault(output: _Place, other: _Place) -> str:
    """Return what would be lost of another place; empty where nothing would."""
    if _same(output.real, other.real):
        if other.role is Role.READ:
            return f"is what {other.option} names, which would be lost"
        return f"is what {other.option} names, too, and one would take the other's place"
    # Such a folder may hold another, as one of records its device's store: only files are read.
    both = output.role is other.role is Role.GROWING
    if other.role in (Role.FOLDER, Role.GROWING) and not both and other.real in output.real.parents:
        return f"lies in {other.given}, which belongs to {other.option} alone"
    if output.role is Role.FOLDER and output.real in other.real.parents:
        return f"holds {other.given}, which {other.option} names and which would be lost"
    if other.role is Role.READ and _together(output.real, other.real):
        return f"belongs to {other.given}, which {other.option} names, and would be lost"
    return ""


def within(path: Path, other: Path) -> bool:
    """Tell whether a path is another, or lies in it."""
    place, folder = _real(path), _real(other)
    return _same(place, folder) or folder in place.parents


def _same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    try:
        # Two names are one file where case does not count.
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _together(output: Path, read: Path) -> bool:
    """Tell whether an output is a file of the folder of ours that is read, or read from."""
    for folder in (read, read.parent):
        for kind in KINDS:
            if folder in output.parents and _is_file(folder / kind.marker):
                name = output.relative_to(folder).as_posix()
                return name in set(kind.files(folder))
    return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
