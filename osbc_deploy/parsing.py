"""JSON and TOML that others wrote: parsed, or refused with one kind of error.

The libraries' parsers end in a RecursionError for what is nested too deeply, take integers of any
length, which can then not be shown or computed with, and take NaN for JSON, and the last of several
values for one key, where other readers take the first.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from osbc_deploy.errors import NotFoundError, UsageError, unreadable
from osbc_deploy.limits import HAND_WRITTEN, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEEPEST", "parse_json", "parse_toml", "read_toml", "schema_of"]

DEEPEST = 32
"""Tables and lists within each other; what this program writes has 8."""

_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{DEEPEST},}}")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError
        When it is not JSON, is nested more than :data:`DEEPEST` deep, holds an integer of more than
        64 bits or a number that is not finite, or a key twice in one object.
    """

    def parse() -> Any:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite
        )

    return _bounded(parse)


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises
    ------
    ValueError
        As for JSON; infinite and undefined numbers are TOML.
    """
    if _LONG_KEY.search(text):
        # tomllib takes time with the square of their number.
        raise ValueError(f"a key of more than {DEEPEST} parts")
    found: dict[str, Any] = _bounded(lambda: tomllib.loads(text))
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file that people write.

    Raises
    ------
    UsageError
        When it is missing, cannot be read, is larger than such files are, or is not valid.
    """
    try:
        return parse_toml(read_text(path, most=HAND_WRITTEN, error=UsageError))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file. Give the path of one that is there.") from error
    except OSError as error:
        raise UsageError(f"{path}: {unreadable(error)}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not valid TOML ({error}). Correct the file.") from error


def schema_of(package: str) -> dict[str, Any]:
    """Return the JSON Schema that a package of ours publishes."""
    text = files(package).joinpath("schema.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _bounded(parse: Callable[[], Any]) -> Any:
    deep = f"tables or lists nested more than {DEEPEST} deep"
    try:
        found = parse()
    except RecursionError:
        raise ValueError(deep) from None
    except ValueError as error:
        # Python's own message tells how to raise the limit.
        if "integer string conversion" in str(error):
            raise ValueError("an integer of thousands of digits, 64 bits are read") from None
        raise
    level = [found]
    for _ in range(DEEPEST + 1):
        for value in level:
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                raise ValueError(f"an integer of {value.bit_length():,} bits, 64 are read")
        holders = [value for value in level if isinstance(value, dict | list)]
        if not holders:
            return found
        level = [
            part
            for value in holders
            for part in (value.values() if isinstance(value, dict) else value)
        ]
    raise ValueError(deep)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number
