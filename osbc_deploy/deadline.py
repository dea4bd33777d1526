"""An end to foreign code that runs too long."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OverdueError", "ended_after"]

_LONGEST = 1e7
"""Seconds that the system's timers can count."""


class OverdueError(BaseException):
    """Raised inside a run that does not end by itself; not for what runs to catch."""


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Interrupt what runs too long, where the system and the thread allow that.

    What hangs inside a library's own code goes on until it returns.
    """
    main = threading.current_thread() is threading.main_thread()
    able = main and hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]
    if not able or seconds > _LONGEST:
        yield
        return

    def end(number: int, frame: object) -> None:
        raise OverdueError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
