"""stdout and stderr that may close or fill up: the command goes on, and the end says so.

What is printed is one thing, what is saved another: a reader that goes away (``| head``) or a full
disk must not keep the result from being written. So errors of writing are kept, not raised.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from osbc_deploy.errors import unwritable

__all__ = ["CLOSED_PIPE", "Stream", "fill_standard_files"]

CLOSED_PIPE = 141
"""Exit code when the reader of stdout went away: what shells say of a program killed by SIGPIPE."""


class Stream(io.FileIO):
    """A file descriptor that keeps the first error of writing, and drops what comes after it."""

    failure: OSError | None = None

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        """Write bytes, or drop them."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return len(data)

    @classmethod
    def over(cls, given: TextIO, number: int) -> tuple[TextIO, Stream]:
        """Return a text stream like `given` on a descriptor, and what lies below it."""
        raw = cls(number, "w", closefd=False)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw),  # type: ignore[type-var]
            encoding=given.encoding,
            errors=given.errors,
            line_buffering=number == 2 or raw.isatty(),
        )
        return text, raw

    def said(self) -> tuple[str, int] | None:
        """Return what to say of the failure, and the exit code; None without one."""
        if self.failure is None:
            return None
        if self.failure.errno == errno.EPIPE:
            return "stdout: its reader went away before all was printed.", CLOSED_PIPE
        return f"stdout: {unwritable(self.failure)}", 2


def fill_standard_files() -> bool:
    """Open what is closed of stdin, stdout and stderr, so that no other file takes its number.

    Returns
    -------
    bool
        Whether there is a stdout.
    """
    there = sys.stdout is not None
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    return there
