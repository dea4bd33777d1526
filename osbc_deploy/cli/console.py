"""Where output goes: plain lines, and tables as wide as the terminal or wide enough.

While a command runs, stdout is for its results alone, which programs read: what a user's model or a
library prints goes to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

import click

from osbc_deploy.errors import UsageError, WritingError, unwritable
from osbc_deploy.plain_text import message, visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "complain",
    "emit",
    "for_results",
    "keep_log",
    "log",
    "logs",
    "say",
    "table_console",
]

_WIDTH = 160
"""Columns of output that is piped or redirected, which must not be squeezed into 80."""


class _Results:
    stream: TextIO | None = None


@contextmanager
def for_results() -> Iterator[None]:
    """Keep stdout for what this module prints."""
    before, _Results.stream = _Results.stream, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _Results.stream = before


def emit(text: str | bytes, *, nl: bool = True) -> None:
    """Print a result as it is."""
    click.echo(text, file=_Results.stream, nl=nl)


def say(text: object, *, err: bool = False, lines: bool = False) -> None:
    """Print a line, whatever is in it as plain text; of a message of ours all its `lines`."""
    shown = message(text) if lines else visible(text)
    if err:
        click.echo(shown, err=True)
        log(shown)
    else:
        emit(shown)


def complain(text: object, code: str = UsageError.code, lines: bool = False) -> None:
    """Print an error with its code, which ``osbc-deploy explain`` takes."""
    say(f"error[{code}]: {text}", err=True, lines=lines)


_LOG = logging.getLogger("osbc_deploy.cli")


def keep_log(path: Path) -> None:
    """Append what is said on stderr, and what a bar shows now and then, to a file with the time.

    Raises
    ------
    WritingError
        When the file cannot be opened.
    """
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise WritingError(f"--log: {path} {unwritable(error)}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False


def logs() -> bool:
    """Return whether a log file is kept."""
    return any(isinstance(handler, logging.FileHandler) for handler in _LOG.handlers)


def log(text: str) -> bool:
    """Write into the log file, if one is kept; return whether one is."""
    if logs():
        _LOG.info("%s", text)
    return logs()


def table_console(file: IO[str] | None = None) -> Console:
    """Return a console for tables, on stdout or into a file in the style stdout would get."""
    from rich.console import Console

    here = Console(file=_Results.stream)
    # rich takes COLUMNS by itself.
    width = here.width if here.is_terminal or "COLUMNS" in os.environ else _WIDTH
    return Console(file=file or _Results.stream, width=width, force_terminal=here.is_terminal)
