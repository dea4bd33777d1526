"""What is written lies apart from what is read: no output is an input, or another output.

Command line and Python hold all paths of a call against each other before anything is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from osbc_deploy.errors import UsageError
from osbc_deploy.folders import KINDS

__all__ = ["Place", "Role", "check_apart", "inputs_of", "path_in", "within"]


_NAMES = ("module", "target", "targets")
"""Arguments whose texts may be names of other things than files."""


class Role(Enum):
    """What is done with a path."""

    READ = auto()
    FILE = auto()
    """It is written anew."""
    FOLDER = auto()
    """It is written anew, with all that is in it."""
    GROWING = auto()
    """It is read and written, file by file."""


@dataclass(frozen=True)
class Place:
    """A path as it was given, and where it leads to.

    Attributes
    ----------
    option : str
        What names it.
    given : Path
    role : Role
    real : Path
    """

    option: str
    given: Path
    role: Role
    real: Path

    @classmethod
    def of(cls, option: str, given: Path, role: Role = Role.READ) -> Place:
        """Return where a path leads to now."""
        return cls(option, given, role, _real(given))


def check_apart(places: Iterable[Place]) -> None:
    """Refuse outputs that would take the place of an input or of another output.

    Raises
    ------
    UsageError
    """
    found = list(places)
    for output in found:
        if output.role is not Role.READ:
            _check(output, [other for other in found if other is not output])


def path_in(value: object, *, named: bool = False) -> Path | None:
    """Return the file or folder that a value leads to, if it can lead to one.

    Parameters
    ----------
    value : object
    named : bool
        Whether a text can only be a path. Names of targets, symbols and the like are no files,
        though one may be called like them.
    """
    if isinstance(value, os.PathLike):
        return Path(value)
    if not isinstance(value, str):
        return None
    place, _, _ = value.rpartition(":")
    if place.endswith(".py") and not named:
        return Path(place)
    return Path(value) if named or Path(value).suffix else None


def inputs_of(**values: object) -> Iterator[Place]:
    """Yield the places of what a call from Python reads, by the names of its arguments."""
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            path = path_in(one)
            if path is None and name not in _NAMES:
                path = path_in(one, named=True)
            if path is not None:
                yield Place.of(name, path)


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        # What cannot be is refused where it is read or written.
        return Path(os.path.abspath(path))


def _check(output: Place, others: list[Place]) -> None:
    for other in others:
        if fault := _fault(output, other):
            raise UsageError(
                f"{output.option}: {output.given} {fault}. Name another place with {output.option}."
            )


def _fault(output: Place, other: Place) -> str:
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
