"""Ctrl-C, a terminal that closes and a polite kill: one word, a documented code, nothing half-done.

Until the command line is loaded, and again after all is done, a signal ends the process at once:
there is nothing to clean up, and an exception would surface in some import or exit handler.
In between it is a ``KeyboardInterrupt``, so that everything on the way out is cleaned up. Some
code swallows even that; :func:`received` still tells.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

__all__ = ["arm", "raise_them", "received"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_TWICE = 1.0
"""Seconds within which a second signal is the same one, sent to the group and to the process."""


class _Interruption:
    received = 0
    raising = False
    last = 0.0


def arm() -> None:
    """Take the signals that ask to end; those that the caller ignores stay ignored."""
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _again
    # Registered first, so it runs last: what Python does after it takes no handlers.
    atexit.register(_ignore)


def _ignore() -> None:
    for name in _SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def raise_them(wanted: bool) -> None:
    """Say whether a signal raises ``KeyboardInterrupt`` or ends the process at once."""
    _Interruption.raising = wanted


def received() -> int:
    """Return the exit code of the signal that came first; 0 if none did."""
    return 128 + _Interruption.received if _Interruption.received else 0


def _handle(number: int, frame: FrameType | None) -> None:
    if not _Interruption.raising:
        # Said already, if another came before.
        if _Interruption.received == 0:
            os.write(2, b"interrupted\n")
        _Interruption.received = _Interruption.received or number
        os._exit(received())
    _Interruption.received = _Interruption.received or number
    now = time.monotonic()
    if now - _Interruption.last > _TWICE:
        _Interruption.last = now
        raise KeyboardInterrupt


def _again(found: Any) -> None:
    """Raise an interruption again that fell into a place where no exception can be raised."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)
        return
    _Interruption.last = 0.0
    # From outside this hook, from which nothing can be raised either.
    timer = threading.Timer(0.01, _raise_again)
    timer.daemon = True
    timer.start()


def _raise_again() -> None:
    if _Interruption.raising:
        signal.raise_signal(_Interruption.received or signal.SIGINT)
