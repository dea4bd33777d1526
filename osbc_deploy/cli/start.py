"""Where the program starts: signals and streams first, then the command line.

This module and what it imports are small, so that there is hardly a moment at which Ctrl-C is
answered with a traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys

from osbc_deploy.cli import interrupts
from osbc_deploy.cli.streams import Stream, fill_standard_files

__all__ = ["start"]


def start() -> None:
    """Run the command line and exit with the documented code."""
    interrupts.arm()
    if not fill_standard_files():
        _say("error[E202]: stdout: is closed. Redirect it, to /dev/null if nobody reads it.")
        sys.exit(2)
    # What is written past Python, as by a program that a model starts, is no result either.
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout, raw = Stream.over(sys.stdout, results)
    # A model may print where nobody reads: one that was closed is the null device by now.
    given = sys.stderr or os.fdopen(2, "w", errors="backslashreplace", closefd=False)
    sys.stderr, _ = Stream.over(given, 2)
    code: int | str | None = 1
    try:
        from osbc_deploy.cli.main import main

        interrupts.raise_them(True)
        try:
            main()
        except SystemExit as end:
            code = end.code
        interrupts.raise_them(False)
    except BaseException:
        interrupts.raise_them(False)
        # An interruption that some library made another error of.
        if not interrupts.received():
            raise
    sys.stdout.flush()
    if interrupted := interrupts.received():
        if code != interrupted:
            _say("interrupted")
        # Python's own way out kills itself with SIGINT where it saw one on its way (bpo-1054041),
        # and its exit handlers can be interrupted again. All of ours is cleaned up by now.
        os._exit(interrupted)
    if (failed := raw.said()) is not None:
        _say(f"error[E202]: {failed[0]}")
        code = code or failed[1]
    sys.exit(code)


def _say(text: str) -> None:
    # The reader of stderr may have gone away, too.
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
