"""Plans and progress bars on stderr; no bars, and only long plans, where that is no terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self

from osbc_deploy.plain_text import message, visible

__all__ = ["Bars"]

_LONG = 30
"""Seconds that are worth a plan in a log."""


class Bars:
    """A progress that draws one bar per task; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._quiet, self._lasting = quiet, not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def plan(self, text: str, seconds: float) -> None:
        """Print what all tasks to come are expected to take."""
        if not self._quiet and (seconds >= _LONG or not self._lasting):
            self._bars.console.print(message(text), markup=False, highlight=False, soft_wrap=True)

    def start(self, title: str, total: int) -> None:
        """Begin a task of `total` steps."""
        self._task = self._bars.add_task(visible(title), total=total)

    def advance(self, steps: int = 1) -> None:
        """Report `steps` more steps."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def finish(self) -> None:
        """End the task; its bar stays."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = None
