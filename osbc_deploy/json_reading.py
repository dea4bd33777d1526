"""JSON that others wrote, read strictly: one value for each key, and numbers that are numbers."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["parse_json"]

MAX_DEPTH = 64
"""Deepest nesting that is read; ours go to 8."""

_NESTED = (dict, list)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    JSON leaves open what a key that comes twice means, and Python's reader takes NaN and numbers of
    any size; each of these lets two readers see two things in one file, so none is read.

    Raises
    ------
    ValueError
        For text that is no JSON or no UTF-8, keys that come twice, NaN and infinities, whole
        numbers beyond 64 bits, and nesting deeper than ``MAX_DEPTH``.
    """
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} comes twice in one object")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    # 20 characters hold every signed 64-bit number; longer texts take quadratic time to convert.
    value = int(text) if len(text) <= 20 else None
    if value is None or not -(2**63) <= value < 2**63:
        raise ValueError(f"the number {text[:40]} is beyond 64 bits")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [o.values() if isinstance(o, dict) else o for o in level if isinstance(o, _NESTED)]
        level = [part for parts in inner for part in parts]
    if any(isinstance(part, _NESTED) for part in level):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
