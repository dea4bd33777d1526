"""Plugins: what a package adds to osbc-deploy, found by entry point.

Five kinds of things can be added: frameworks, backends, file formats, memory models and
arithmetics. Each is a group of entry points with one contract (:class:`Group`). Ours are
registered like those of others, in ``pyproject.toml``, but for arithmetics, which no network can do
without. A plugin that cannot be loaded is named where plugins are listed and
where it is asked for; it is in nobody else's way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from typing import Any, Generic, TypeVar

from osbc_deploy.errors import OsbcError, PluginError, UsageError, described

__all__ = ["REPAIR", "Group", "Listed", "registered", "stdout_kept"]

T = TypeVar("T")

REPAIR = "Repair or remove the package that provides it."

_PACKAGE = "osbc-deploy"
_STALE = (
    "is part of osbc-deploy, but the installed metadata are those of an older version and do not "
    "list it. Install osbc-deploy again, the way it was installed first (in a clone: make setup)."
)


@dataclass(frozen=True)
class Listed(Generic[T]):
    """A plugin as it was found.

    Attributes
    ----------
    kind, name : str
        Such as "backend" and "lava".
    package : str
        Name and version of the package that registers it; empty where that is not known.
    plugin : object or None
        None where it cannot be used.
    fault : str
        Why it cannot be used; empty where it can.
    own : bool
        Whether it is a part of osbc-deploy.
    """

    kind: str
    name: str
    package: str
    plugin: T | None
    fault: str = ""
    own: bool = False


@dataclass(frozen=True)
class Group(Generic[T]):
    """A group of entry points, and the contract of what they name.

    Attributes
    ----------
    name : str
        Name of the group.
    kind : str
        What messages call one of its plugins, such as "backend".
    ours : tuple of str
        Those that osbc-deploy itself registers. No other package can take their place.
    accept : callable
        Takes name and object, and returns what the program goes on with; raises a ValueError that
        says in which way the object is not such a plugin.
    error : type of OsbcError
        Raised for a plugin that cannot be loaded.
    """

    name: str
    kind: str
    ours: tuple[str, ...]
    accept: Callable[[str, Any], T]
    error: type[OsbcError] = PluginError

    def names(self) -> list[str]:
        """Return the names of all that are registered, ours first; nothing is imported."""
        return self._names(self._found())

    def load(self, name: str) -> T:
        """Import a plugin.

        Raises
        ------
        UsageError
            When no package registers one of that name.
        OsbcError
            The group's error, when it cannot be imported or is something else.
        """
        return self._load(name, self._found())

    def listed(self) -> list[Listed[T]]:
        """Import all plugins; return them, and those that cannot be used."""
        listed = []
        found = self._found()
        for name in self._names(found):
            package = " and ".join(_package(entry) for entry in found.get(name, ()))
            plugin, fault = None, ""
            try:
                plugin = self._load(name, found)
            except OsbcError as error:
                fault = str(error)
            listed.append(Listed(self.kind, name, package, plugin, fault, name in self.ours))
        for entry in entry_points(group=self.name):
            if entry.name in self.ours and not _is_ours(entry):
                package = _package(entry)
                fault = (
                    f"{self.kind} {entry.name!r} of {package}: is not used, since the name is that "
                    "of osbc-deploy's own. Register it under another name."
                )
                listed.append(Listed(self.kind, entry.name, package, None, fault))
        return listed

    def running(self, name: str) -> AbstractContextManager[None]:
        """Run code of a plugin; what it raises by mistake ends in a PluginError that names it.

        Errors of osbc-deploy's own that it raises on purpose stay what they are. In our own
        plugins, a mistake is a bug.
        """
        return stdout_kept() if name in self.ours else _named(self.kind, name)

    def _names(self, found: Mapping[str, object]) -> list[str]:
        return list(dict.fromkeys([*self.ours, *sorted(found)]))

    def _load(self, name: str, found: Mapping[str, list[EntryPoint]]) -> T:
        entries = found.get(name, [])
        if not entries and name in self.ours:
            raise self.error(f"{self.kind} {name!r}: {_STALE}")
        if not entries:
            raise UsageError(
                f"{self.kind} {name!r}: is not installed (found: "
                f"{', '.join(self._names(found)) or 'none'}). Install the package that provides it."
            )
        if len(entries) > 1:
            packages = " and ".join(sorted(_package(entry) for entry in entries))
            raise self.error(
                f"{self.kind} {name!r}: is registered by {len(entries)} packages ({packages}), 1 "
                "may. Remove the others."
            )
        try:
            with stdout_kept():
                return self.accept(name, entries[0].load())
        except (Exception, SystemExit) as error:
            # What `accept` says needs no kind of error in front of it.
            said = str(error) if type(error) is ValueError else described(error)
            raise self.error(
                f"{self.kind} {name!r}: its plugin cannot be loaded ({said}). {REPAIR}"
            ) from error

    def _found(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points of each name; of our names, only our own."""
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.name):
            if entry.name not in self.ours or _is_ours(entry):
                found.setdefault(entry.name, []).append(entry)
        return found


def entry_points(group: str) -> EntryPoints:
    """Return the entry points of a group, read once as long as no folder of the path changes.

    Reading them opens a file of every package that is installed.
    """
    path = tuple((place, _changed(place)) for place in sys.path)
    found: EntryPoints = _every(path).select(group=group)
    return found


@lru_cache(maxsize=1)
def _every(_path: tuple[tuple[str, int], ...]) -> Any:
    return metadata.entry_points()  # of a type of its own before Python 3.12


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def registered(group: str) -> list[str]:
    """Return the names in a group of entry points, for who cannot import the group itself."""
    return sorted({entry.name for entry in entry_points(group=group)})


def _is_ours(entry: EntryPoint) -> bool:
    return entry.dist is not None and _name(entry.dist) == _PACKAGE


@lru_cache(maxsize=256)
def _name(package: Distribution) -> str:
    """Return what a package is called, which is read from its metadata."""
    return package.name


def _package(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


@contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    try:
        with stdout_kept():
            yield
    except OsbcError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{kind} {name!r}: failed ({described(error)}). {REPAIR}") from error


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Send what is printed to stderr, since stdout may be a report that a program reads."""
    with redirect_stdout(sys.stderr):
        yield
