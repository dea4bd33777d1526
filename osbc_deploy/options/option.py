"""What an option is: a field of a frozen dataclass, with its help, limits and flags.

The tables are beside this module. Whatever shows, takes or reports options (command line,
configuration files, Python, reports and their schemas) reads them with :func:`rows`.
"""

from __future__ import annotations

import functools
import math
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from osbc_deploy.errors import UsageError

__all__ = ["BYTES", "Options", "Row", "StrPath", "option", "renamed", "reported", "rows", "schema"]

T = TypeVar("T")

BYTES = "BYTES"
"""Metavar of a size in bytes, which the command line takes with units, too."""

StrPath: TypeAlias = str | os.PathLike[str]

Kind = Literal["flag", "whole", "number", "text", "path", "table"]
"""Kinds of values; a table is options within an option."""

_KINDS: dict[type, Kind] = {bool: "flag", int: "whole", float: "number", str: "text"}
_NOUNS = {
    "flag": "neither True nor False",
    "whole": "not a whole number",
    "number": "not a number",
    "text": "not a text",
    "path": "not a path",
}
_JSON = {
    "flag": "boolean",
    "whole": "integer",
    "number": "number",
    "text": "string",
    "path": "string",
    "table": "object",
}


@dataclass(frozen=True)
class About:
    """What describes an option beside its name, type and default; see :func:`option`."""

    help: str
    metavar: str | None
    least: float
    most: float
    above: float
    below: float
    remedy: str
    flags: tuple[str, ...]
    required: bool
    reported: tuple[str, ...]
    formerly: str


def option(
    default: T,
    help: str,  # noqa: A002 - the field's word
    *,
    metavar: str | None = None,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    remedy: str = "",
    flags: Sequence[str] = (),
    required: bool = False,
    reported: Sequence[str] = (),
    formerly: str = "",
) -> T:
    """Declare an option: the default of a field of :class:`Options`.

    Parameters
    ----------
    default
    help : str
        A sentence or two, for the command line and Python.
    metavar : str, optional
        What stands for the value on the command line.
    least, most : float
        The range, both included.
    above, below : float
        The range, neither included; what has an upper end of this kind is finite.
    remedy : str
        What to do about a value out of range, as a sentence.
    flags : sequence of str
        On the command line, where it is not ``--name``.
    required : bool
        Whether the command line must give it.
    reported : sequence of str
        Which reports hold its value, beside the provenance of all.
    formerly : str
        A name that it had before, which goes on working and warns.
    """
    about = About(
        help, metavar, least, most, above, below, remedy, tuple(flags), required, tuple(reported),
        formerly,
    )  # fmt: skip
    declared: Any = field(default=default, metadata={"option": about})
    found: T = declared
    return found


@dataclass(frozen=True)
class Row:
    """An option as its table has it.

    Attributes
    ----------
    name : str
        In Python and in reports.
    kind : Kind
    default
    optional : bool
        Whether it may be None.
    many : bool
        Whether it is a sequence of values.
    choices : tuple of str
        Empty where there is no choice among names.
    table : type or None
        Of kind "table": the options within.
    about : About
    """

    name: str
    kind: Kind
    default: Any
    optional: bool
    many: bool
    choices: tuple[str, ...]
    table: type[Options] | None
    about: About

    @property
    def title(self) -> str:
        """The name in a sentence."""
        return self.name.replace("_", " ")

    def fault(self, value: object) -> str:
        """Return what is wrong with a value; empty when nothing is."""
        if value is None and self.optional:
            return ""
        if not self.many:
            return self._fault(value)
        if isinstance(value, str) or not isinstance(value, Sequence):
            return f"{_shown(value)} is not a list. Give one, such as [...]."
        return next(filter(None, map(self._fault, value)), "")

    def _fault(self, value: object) -> str:
        if self.table is not None:
            right = isinstance(value, self.table)
            return "" if right else f"{_shown(value)} is not a {self.table.__name__}."
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return ""
            return f"{_shown(value)} is not one of {', '.join(self.choices)}."
        if not _is(self.kind, value):
            return f"{_shown(value)} is {_NOUNS[self.kind]}."
        if self.kind in ("whole", "number"):
            return self._out_of_range(value)
        if isinstance(value, str | os.PathLike) and "\0" in os.fspath(value):
            return "holds a null character, which no path or name has."
        return ""

    def _out_of_range(self, value: Any) -> str:
        about = self.about
        if about.least <= value <= about.most and about.above < value < about.below:
            return ""
        shown = _shown(value)
        if about.most < math.inf:
            said = f"{shown} is outside {_shown(about.least)} to {_shown(about.most)}"
        elif about.below < math.inf:
            said = f"{shown} is outside {about.least:g} <= {self.name} < {about.below:g}"
        elif about.least > -math.inf and value < about.least:
            said = f"{shown} is less than {_shown(about.least)}"
        else:
            least = max(about.above, about.least)
            limit = f"{'above' if about.above > -math.inf else 'of at least'} {least:g}"
            finite = "" if math.isfinite(value) else "finite "
            said = f"{shown} is not a {finite}number {limit if least > -math.inf else ''}".rstrip()
        return f"{said}. {about.remedy}".rstrip()

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the value in a report."""
        if self.choices:
            one: dict[str, Any] = {"enum": list(self.choices)}
        else:
            one = {"type": _JSON[self.kind]}
        for key, limit in (
            ("minimum", self.about.least),
            ("maximum", self.about.most),
            ("exclusiveMinimum", self.about.above),
            ("exclusiveMaximum", self.about.below),
        ):
            if math.isfinite(limit):
                one[key] = limit
        found = {"type": "array", "items": one} if self.many else one
        if self.optional:
            found = {"anyOf": [found, {"type": "null"}]}
        return {**found, "description": self.about.help}


def _is(kind: Kind, value: object) -> bool:
    if kind == "flag" or isinstance(value, bool):
        return kind == "flag" and isinstance(value, bool)
    accepted: dict[Kind, tuple[type, ...]] = {
        "whole": (int,),
        "number": (int, float),
        "text": (str,),
        "path": (str, os.PathLike),
    }
    return isinstance(value, accepted[kind])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001 - a user's object may fail even at that
        return f"<{type(value).__name__}>"


def rows(table: type[Options]) -> tuple[Row, ...]:
    """Return the options of a table, in its order."""
    key: Any = table  # mypy takes a class of frozen data for unhashable
    return _rows(key)


@functools.cache
def _rows(table: Any) -> tuple[Row, ...]:
    return tuple(_row(f) for f in fields(table) if "option" in f.metadata)


def _row(declared: Any) -> Row:
    parts = _parts(declared.type)
    optional = type(None) in parts
    parts = [part for part in parts if part is not type(None)]
    many = len(parts) == 1 and get_origin(parts[0]) is Sequence
    if many:
        parts = _parts(get_args(parts[0])[0])
    table = parts[0] if is_dataclass(parts[0]) else None
    choices = get_args(parts[0]) if get_origin(parts[0]) is Literal else ()
    if table is not None:
        kind: Kind = "table"
    elif choices:
        kind = "text"
    elif any(get_origin(part) is os.PathLike for part in parts):
        kind = "path"
    else:
        kind = _KINDS[parts[0]]
    assert declared.default is not MISSING  # noqa: S101 - what option() declares has one
    about = declared.metadata["option"]
    return Row(declared.name, kind, declared.default, optional, many, choices, table, about)  # type: ignore[arg-type]


def _parts(hint: Any) -> list[Any]:
    """Return the types of a union, or the one type."""
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all tables of options: its values are checked, all at once, when it is made.

    Raises
    ------
    UsageError
        When values are of another type, out of range, or contradict each other.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        about = {
            declared.name: (declared.type, declared.metadata["option"].help)
            for base in reversed(cls.__mro__[1:])
            if is_dataclass(base)
            for declared in fields(base)
            if "option" in declared.metadata
        }
        about |= {
            name: (cls.__annotations__[name], declared.metadata["option"].help)
            for name, declared in vars(cls).items()
            if isinstance(declared, Field) and "option" in declared.metadata
        }
        if cls.__doc__ and "Attributes" not in cls.__doc__:
            listed = (f"{n} : {_named(kind)}\n    {text}" for n, (kind, text) in about.items())
            cls.__doc__ = "\n".join((cls.__doc__, "", "Attributes", "----------", *listed, ""))

    def __post_init__(self) -> None:
        faults = []
        for row in rows(type(self)):
            value = _plain(getattr(self, row.name), many=row.many)
            object.__setattr__(self, row.name, value)
            if fault := row.fault(value):
                faults.append(f"{row.title}: {fault}")
        if not faults:
            for name, value in self._settled().items():
                object.__setattr__(self, name, value)
            faults = list(self._contradictions())
        if len(faults) > 1:
            listed = "\n".join(f"  - {fault}" for fault in faults)
            raise UsageError(f"options: {len(faults)} are not valid:\n{listed}")
        if faults:
            raise UsageError(faults[0])

    def _settled(self) -> Mapping[str, Any]:
        """Return values that nobody asked for and other options settle, by name."""
        return {}

    def _contradictions(self) -> Iterable[str]:
        """Return what is wrong with options that are right one by one."""
        return ()


def _named(hint: Any) -> str:
    """Return a type as its reader would write it."""
    names = (
        f"{{{', '.join(map(repr, get_args(part)))}}}"
        if get_origin(part) is Literal
        else part.__name__
        if isinstance(part, type)
        else str(part)
        for part in _parts(hint)
    )
    return " or ".join(names).replace("NoneType", "None").replace("collections.abc.", "")


def _plain(value: Any, *, many: bool) -> Any:
    """Return NumPy's scalars as Python's."""
    if many and isinstance(value, Sequence) and not isinstance(value, str):
        parts = tuple(_plain(part, many=False) for part in value)
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def reported(place: str, table: type[Options], *holders: object) -> dict[str, Any]:
    """Return the values that a report holds, by name.

    Parameters
    ----------
    place : str
        Of the report; see :func:`option`.
    table : type
    *holders
        What has the values as attributes; the first that has one counts.
    """
    return {
        row.name: next(getattr(h, row.name) for h in holders if hasattr(h, row.name))
        for row in rows(table)
        if place in row.about.reported
    }


def renamed(values: Mapping[str, Any], known: Iterable[Row]) -> tuple[dict[str, Any], list[str]]:
    """Give options that are called by a former name the one they have now.

    Returns
    -------
    values : dict
    warnings : list of str
        One for each that was renamed.

    Raises
    ------
    UsageError
        When both names are given.
    """
    found, warnings = dict(values), []
    for row in known:
        old = row.about.formerly
        if not old or old not in found:
            continue
        if row.name in found:
            raise UsageError(f"{row.name}: is given twice, once as {old}. Keep {row.name}.")
        found[row.name] = found.pop(old)
        warnings.append(f"{old} is called {row.name} now; the old name goes in 0.4.0.")
    return found, warnings


def schema(place: str, table: type[Options]) -> dict[str, Any]:
    """Return the JSON Schema of what :func:`reported` returns."""
    found = [row for row in rows(table) if place in row.about.reported]
    return {
        "type": "object",
        "properties": {row.name: row.schema() for row in found},
        "required": [row.name for row in found],
        "additionalProperties": False,
    }
