"""Tables for the terminal whose titles, headers and cells are plain text."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table

from osbc_deploy.plain_text import terminal

__all__ = ["PlainTable"]


class PlainTable(Table):
    """A table in which no text is markup, whoever wrote it.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        super().__init__(title=terminal(title, "table.title"))

    def add_column(
        self, header: RenderableType = "", footer: RenderableType = "", **options: Any
    ) -> None:
        """Add a column with a plain header."""
        super().add_column(_plain(header), footer, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row of plain texts."""
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: RenderableType | None) -> RenderableType:
    return terminal(cell) if isinstance(cell, str) else (cell or "")
