"""Tables for the terminal whose titles, headers and cells are plain text."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table

from osbc_deploy.plain_text import terminal

__all__ = ["PlainTable"]

_UNLIMITED = 10_000
"""Columns in which any table has room."""


class PlainTable(Table):
    """A table in which no text is markup, whoever wrote it.

    Where it is wider than the terminal, it is printed as several with the same first column, none
    of which cuts a cell.

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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Return the table, or its parts."""
        wide = options.update(max_width=_UNLIMITED)
        first, *rest = range(len(self.columns)) if self.columns else (0,)
        shown: list[int] = []
        for number in rest:
            tried = self._part([first, *shown, number])
            if shown and Measurement.get(console, wide, tried).maximum > options.max_width:
                yield from Table.__rich_console__(self._part([first, *shown]), console, options)
                shown = []
            shown.append(number)
        last = self if len(shown) == len(rest) else self._part([first, *shown])
        yield from Table.__rich_console__(last, console, options)

    def _part(self, numbers: Sequence[int]) -> Table:
        """Return a table of some of the columns, with the title where it begins the table."""
        part = Table(title=self.title if list(numbers[:2]) == [0, 1] else None)
        part.columns = [copy(self.columns[number]) for number in numbers]
        for place, column in enumerate(part.columns):
            column._index = place
        part.rows = self.rows
        return part


def _plain(cell: RenderableType | None) -> RenderableType:
    return terminal(cell) if isinstance(cell, str) else (cell or "")
