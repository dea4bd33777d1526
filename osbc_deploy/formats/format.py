"""The contract of a file format, and the formats there are.

A format is an object of :class:`Format`, registered as an entry point of the group
``osbc_deploy.formats``. Its module imports nothing heavy; its functions do when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osbc_deploy.plugins import REPAIR, Group, Listed

if TYPE_CHECKING:
    from osbc_deploy.chip.target import Target
    from osbc_deploy.fixedpoint.formats import NumberFormats
    from osbc_deploy.fixedpoint.network import FixedPointNetwork
    from osbc_deploy.folders import FolderKind
    from osbc_deploy.model.graph import Network

__all__ = [
    "FORMATS",
    "Export",
    "Exported",
    "Format",
    "broken_formats",
    "check_integers",
    "check_network",
    "format_of",
    "listed_formats",
]


@dataclass(frozen=True)
class Export:
    """What was asked of an export.

    Attributes
    ----------
    target : Target or None
        The chip to lay a file out for: the one asked for, or else the one deployed on.
    options : dict
        Values of the format's `export_options`; None where they were not given.
    """

    target: Target | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What an export tells.

    Attributes
    ----------
    facts : dict
        For ``--json``, beside the names of format and output.
    lines : sequence of str
        For the terminal.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()


def _is_none(model: Any) -> bool:
    return False


def _no_remarks(target: Target) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Format:
    """A file format: how its files are known, and what can be done with them.

    What is None cannot be done.

    Attributes
    ----------
    title : str
        What messages call such a file, such as "NIR graph".
    suffix : str
        How its files end, such as ".nir"; empty for what is only written, to a folder or a file of
        any name.
    read_network : callable or None
        ``read_network(model, source=name, dt=None, reset=None)`` returns the float network of a
        path, or of an object that `is_object` knows.
    is_object : callable
        Tells whether an object in memory is one that `read_network` reads.
    options : tuple of str
        Which of "dt" and "reset" its files leave open; `read_network` is given no others.
    read_integers : callable or None
        ``read_integers(path, formats)`` returns the fixed-point network of a path; `formats` are
        the chip's registers, or None where no chip is known.
    default_target : str or None
        The chip that an export goes by where none is named.
    export : callable or None
        ``export(network, path, asked)`` writes a fixed-point network, whole or not at all, and
        returns :class:`Exported`; `asked` is an :class:`Export`.
    export_options : tuple of str
        Which of "name", "samples", "repeat" and "compiler" it heeds.
    arithmetics : tuple of str
        Whose integers it writes (:mod:`osbc_deploy.fixedpoint.arithmetics`).
    folder : FolderKind or None
        The kind of folder it writes; None for a file.
    help : str
        What it writes, for ``export --help``.
    check_network, check_integers : callable or None
        Refuse a network that a file cannot hold, by an UnsupportedModelError: a float one before
        any work, a fixed-point one before it is written. Asked for targets whose ``exchange`` is
        the format.
    remarks : callable
        Returns what a reader of the counts of such a file on a target must know.
    """

    title: str
    suffix: str = ""
    read_network: Callable[..., Network] | None = None
    is_object: Callable[[Any], bool] = _is_none
    options: tuple[str, ...] = ()
    read_integers: Callable[[Path, NumberFormats | None], FixedPointNetwork] | None = None
    default_target: str | None = None
    export: Callable[[FixedPointNetwork, Path, Export], Exported] | None = None
    export_options: tuple[str, ...] = ()
    arithmetics: tuple[str, ...] = ("loihi",)
    folder: FolderKind | None = None
    help: str = ""
    check_network: Callable[[Network], None] | None = None
    check_integers: Callable[[FixedPointNetwork], None] | None = None
    remarks: Callable[[Target], Sequence[str]] = _no_remarks


def _accept(name: str, plugin: Any) -> Format:
    del name
    if not isinstance(plugin, Format):
        raise ValueError(f"it is a {type(plugin).__name__}, not an osbc_deploy.formats Format")
    if plugin.suffix and Path(f"a{plugin.suffix}").suffix != plugin.suffix:
        raise ValueError(f"its suffix {plugin.suffix!r} is not a dot and what follows")
    if not plugin.suffix and (plugin.read_network or plugin.read_integers):
        raise ValueError("it reads files, but has no suffix to know them by")
    return plugin


FORMATS: Group[Format] = Group(
    "osbc_deploy.formats", "format", ("c", "image", "netx", "nir", "runtime", "xylo"), _accept
)


def listed_formats() -> list[Listed[Format]]:
    """Return all formats, ours first; one whose suffix is taken cannot be used."""
    found: list[Listed[Format]] = []
    taken: dict[str, str] = {}
    for entry in FORMATS.listed():
        suffix = "" if entry.plugin is None else entry.plugin.suffix
        owner = taken.setdefault(suffix, entry.name) if suffix else entry.name
        if owner != entry.name:
            fault = (
                f"format {entry.name!r}: its files end in {suffix}, which is how format {owner!r} "
                f"knows its own. {REPAIR}"
            )
            found.append(replace(entry, plugin=None, fault=fault))
        else:
            found.append(entry)
    return found


def format_of(model: Any) -> tuple[str, Format] | None:
    """Return the format, and its name, of a path or an object in memory; None where none is."""
    by_path = isinstance(model, str | Path)
    suffix = Path(model).suffix if by_path else ""
    if by_path and not suffix:
        return None
    for entry in listed_formats():
        if entry.plugin is None:
            continue
        if by_path and entry.plugin.suffix == suffix:
            return entry.name, entry.plugin
        if not by_path:
            with FORMATS.running(entry.name):
                if entry.plugin.is_object(model):
                    return entry.name, entry.plugin
    return None


def broken_formats() -> str:
    """Return a sentence on the formats that cannot be used; empty where all can."""
    broken = [entry.name for entry in listed_formats() if entry.plugin is None]
    if not broken:
        return ""
    return (
        f" Formats that cannot be loaded may be meant: {', '.join(broken)}; 'osbc-deploy doctor' "
        "says why."
    )


def check_network(exchange: str | None, network: Network) -> None:
    """Refuse a float network that the format a target exchanges cannot hold, before any work.

    Raises
    ------
    UnsupportedModelError
        With everything in the way.
    """
    if exchange is not None:
        _check(exchange, FORMATS.load(exchange).check_network, network)


def check_integers(exchange: str | None, network: FixedPointNetwork) -> None:
    """Refuse a fixed-point network that the format a target exchanges cannot hold.

    Raises
    ------
    UnsupportedModelError
        With everything in the way.
    """
    if exchange is not None:
        _check(exchange, FORMATS.load(exchange).check_integers, network)


def _check(name: str, check: Callable[[Any], None] | None, network: Any) -> None:
    if check is not None:
        with FORMATS.running(name):
            check(network)
