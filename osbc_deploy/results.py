"""What a verb returns: frozen data, whose methods lead to the room that renders it.

Results know nothing of reports. The package says once, when it is imported, where they are rendered
(:func:`rendered_by`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rendering", "Result", "Saved", "rendered_by"]


class Rendering(Protocol):
    """What renders results of every kind."""

    def report_of(self, result: Any) -> dict[str, Any]:
        """Return the report of a result as plain data."""

    def save(self, result: Any, folder: Path) -> None:
        """Write a result into a folder, whole or not at all."""

    def text_of(self, result: Any) -> str:
        """Return a summary of a result, in fewer than ten lines."""

    def html_of(self, result: Any) -> str:
        """Return the same as a fragment of HTML, with the rows of the table."""

    def frame_of(self, result: Any) -> pd.DataFrame:
        """Return a result as a table."""


class _Door:
    rendering: Callable[[], Rendering]


def rendered_by(rendering: Callable[[], Rendering]) -> None:
    """Say what renders results; it is asked for only when one is rendered."""
    _Door.rendering = staticmethod(rendering)


class Result:
    """Base of what the verbs return. In a notebook it shows itself."""

    def report(self) -> dict[str, Any]:
        """Return the report as plain data, which follows the schema that it names."""
        return _Door.rendering().report_of(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return the result as a table.

        Returns
        -------
        pandas.DataFrame
            Of a deployment and an inspection, a row for each layer; of a verification, for each
            step and population; of a fit, for each plan of the front; of a sweep, for each
            configuration.

        Raises
        ------
        UsageError
            Where pandas is not installed.
        """
        return _Door.rendering().frame_of(self)

    def __repr__(self) -> str:
        return _Door.rendering().text_of(self)

    def _repr_html_(self) -> str:
        return _Door.rendering().html_of(self)


class Saved(Result):
    """Base of results that hold a deployed network."""

    def save(self, folder: str | Path) -> None:
        """Write the deployed network and the reports into a folder, whole or not at all.

        Raises
        ------
        UsageError
            When the folder cannot be written, or holds something else.
        """
        _Door.rendering().save(self, Path(folder))
