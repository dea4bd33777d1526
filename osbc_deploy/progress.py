"""Progress that numerics can report without knowing a terminal exists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["SILENT", "Progress", "Silent"]


class Progress(Protocol):
    """Receives the start, the steps and the end of a task."""

    def plan(self, text: str, seconds: float) -> None:
        """Say what all tasks to come are expected to take, before the first."""

    def start(self, title: str, total: int) -> None:
        """Begin a task of `total` steps; any task before it is finished."""

    def advance(self, steps: int = 1) -> None:
        """Report `steps` more steps of the current task."""

    def finish(self) -> None:
        """End the current task, if there is one."""


class Silent:
    """A progress that shows nothing."""

    def plan(self, text: str, seconds: float) -> None:
        """Ignore what is expected."""

    def start(self, title: str, total: int) -> None:
        """Ignore the start of a task."""

    def advance(self, steps: int = 1) -> None:
        """Ignore the steps."""

    def finish(self) -> None:
        """Ignore the end."""


SILENT = Silent()


@contextmanager
def task(progress: Progress, title: str, total: int) -> Iterator[Progress]:
    """Run a block as one task of `progress`."""
    progress.start(title, total)
    try:
        yield progress
    finally:
        progress.finish()
