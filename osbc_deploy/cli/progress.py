"""Plans and progress on stderr: bars on a terminal, now and then a line where it goes elsewhere."""

from __future__ import annotations

import threading
import time
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

from osbc_deploy.cli.console import log, say
from osbc_deploy.plain_text import message, visible

__all__ = ["Bars"]

_EVERY = 30.0
"""Seconds between two lines where there is no terminal, and those that are worth a plan there."""


class Bars:
    """A progress that draws one bar per task; use it as a context manager.

    Where stderr is no terminal, a line says every half a minute what is being done: whoever
    watches a log can tell work from a hang, and short runs say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._quiet = quiet
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
        self._beats = not quiet and not console.is_terminal
        self._logs = log("started")
        self._ended = threading.Event()
        self._beater = threading.Thread(target=self._beat, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        if self._beats or self._logs:
            self._beater.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._beater.is_alive():
            # No line of it comes behind results; one that nobody reads holds nothing up.
            self._beater.join(1.0)
        self._bars.stop()

    def plan(self, text: str, seconds: float) -> None:
        """Print what all tasks to come are expected to take."""
        if not self._quiet and (seconds >= _EVERY or not self._beats):
            say(text, err=True, lines=True)
        else:
            log(message(text))

    def _beat(self) -> None:
        while not self._ended.wait(_EVERY):
            number, passed = self._task, time.monotonic() - self._began
            what = "working"
            if number is not None:
                task = self._bars.tasks[number]
                total = "" if task.total is None else f" {task.completed:.0f} of {task.total:.0f}"
                what = f"{task.description}{total}"
            line = f"{what}, {passed:.0f} s"
            if self._beats:
                say(line, err=True)
            else:
                log(visible(line))

    def start(self, title: str, total: int) -> None:
        """Begin a task of `total` steps."""
        self._task = self._bars.add_task(visible(title), total=total)

    def advance(self, steps: int = 1) -> None:
        """Report `steps` more steps."""
        if self._task is not None:
            task = self._bars.tasks[self._task]
            # Variants of a layer go through the samples again.
            left = steps if task.total is None else min(steps, task.total - task.completed)
            self._bars.advance(self._task, left)

    def finish(self) -> None:
        """End the task; its bar stays."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = None
