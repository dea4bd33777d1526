"""Where tables go: the terminal as wide as it is, anything else wide enough for them."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["table_console"]

_WIDTH = 160
"""Columns of output that is piped or redirected, which must not be squeezed into 80."""


def table_console(file: IO[str] | None = None) -> Console:
    """Return a console for tables, on stdout or into a file in the style stdout would get."""
    from rich.console import Console

    here = Console()
    width = here.width if here.is_terminal else _WIDTH
    return Console(file=file, width=width, force_terminal=here.is_terminal)
