"""Where output goes: plain lines, and tables as wide as the terminal or wide enough."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from osbc_deploy.plain_text import message, visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["say", "table_console"]

_WIDTH = 160
"""Columns of output that is piped or redirected, which must not be squeezed into 80."""


def say(text: object, *, err: bool = False, lines: bool = False) -> None:
    """Print a line, whatever is in it as plain text; of a message of ours all its `lines`."""
    click.echo(message(text) if lines else visible(text), err=err)


def table_console(file: IO[str] | None = None) -> Console:
    """Return a console for tables, on stdout or into a file in the style stdout would get."""
    from rich.console import Console

    here = Console()
    width = here.width if here.is_terminal else _WIDTH
    return Console(file=file, width=width, force_terminal=here.is_terminal)
