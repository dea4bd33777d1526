"""Numbers that nobody asked for: the defaults of options that other options may settle."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Unasked", "unasked"]


class Unasked(float):
    """A number that is taken because none was given.

    It stays one on its way from table to table, so that a default contradicts nothing, and the same
    number that was given may.
    """


def unasked(value: object) -> bool:
    """Return whether nobody asked for a number, or for any of several."""
    values = value if isinstance(value, Sequence) else [value]
    return bool(values) and all(isinstance(one, Unasked) for one in values)
