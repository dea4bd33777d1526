"""What a verb returns: frozen data, with the doors to the room that renders it.

Results know nothing of reports. The package says once, when it is imported, where they are rendered
(:func:`rendered_by`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Rendering", "Result", "rendered_by"]


class Rendering(Protocol):
    """What renders results of every kind."""

    def report_of(self, result: Any) -> dict[str, Any]:
        """Return the report of a result as plain data."""

    def save(self, result: Any, folder: Path) -> None:
        """Write a result into a folder, whole or not at all."""


class _Door:
    rendering: Callable[[], Rendering]


def rendered_by(rendering: Callable[[], Rendering]) -> None:
    """Say what renders results; it is asked for only when one is rendered."""
    _Door.rendering = staticmethod(rendering)


class Result:
    """Base of what ``deploy``, ``verify`` and ``fit`` return."""

    def report(self) -> dict[str, Any]:
        """Return the report as plain data, which follows the schema that it names."""
        return _Door.rendering().report_of(self)

    def save(self, folder: str | Path) -> None:
        """Write the deployed network and the reports into a folder, whole or not at all.

        Raises
        ------
        UsageError
            When the folder cannot be written, or holds something else.
        """
        _Door.rendering().save(self, Path(folder))
