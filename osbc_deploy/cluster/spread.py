"""Items of work, one after the other in this process or spread over others.

The result of an item depends on nothing but the item and what all share, so it is the same bytes
wherever it is computed, in whatever order, and however often a worker dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias, TypeVar

from osbc_deploy.options.work import ClusterOptions

__all__ = ["Crew", "Part", "Work", "cores", "crew_of", "spread"]

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

Work: TypeAlias = Callable[[C, T, int], R]
"""From what all share, an item and a number of threads (0 for one per core) to a result."""


class Crew(Protocol):
    """Processes that stay together over many pieces of work."""

    @property
    def hands(self) -> int:
        """How many items are worked on at a time."""

    @property
    def worked(self) -> int:
        """How many processes have done anything so far."""

    def run(
        self, work: Work[C, T, R], common: C, items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number of each item and what it comes to, as they are done."""

    def each(self, work: Work[C, T, R], common: C, items: Sequence[T]) -> list[R]:
        """Return the results of items, in their order."""


@dataclass(frozen=True)
class Part:
    """Some of what is numbered, from `start` to before `stop`.

    Attributes
    ----------
    start, stop : int
    of : str
        What is numbered, for a message.
    """

    start: int
    stop: int
    of: str

    @classmethod
    def cut(cls, count: int, parts: int, of: str) -> list[Part]:
        """Return parts of nearly equal size, none of them empty."""
        parts = max(1, min(parts, count))
        edges = [count * number // parts for number in range(parts + 1)]
        return [cls(a, b, of) for a, b in pairwise(edges)]

    @property
    def slice(self) -> slice:
        """The same as an index."""
        return slice(self.start, self.stop)

    def __str__(self) -> str:
        return f"{self.of} {self.start} to {self.stop - 1}"


@contextmanager
def crew_of(where: ClusterOptions) -> Iterator[Crew | None]:
    """Open the workers that a call asks for, which end with the block; None for this process alone.

    Raises
    ------
    ClusterError
        When processes do not start, or the scheduler does not answer or has other versions.
    """
    if where.scheduler is None and (where.workers or 1) <= 1:
        yield None
        return
    from osbc_deploy.cluster.client import at_scheduler, on_this_machine

    if where.scheduler is None:
        opened = on_this_machine(where.workers or 1)
    else:
        opened = at_scheduler(where.scheduler)
    with opened as team:
        yield team


def spread(
    work: Work[C, T, R], common: C, items: Sequence[T], where: ClusterOptions
) -> Generator[tuple[int, R], None, None]:
    """Yield the number of each item and what it comes to, as they are done.

    Parameters
    ----------
    work : callable
        A function that is found by its name in other processes too.
    common : object
        What all items share; sent to each process once.
    items : sequence
    where : ClusterOptions
        One process of this machine is this one.

    Raises
    ------
    ClusterError
        When processes or scheduler do not answer, die again and again, or run another version.
    """
    count = min(where.workers or cores(), len(items))
    if where.scheduler is None and count <= 1:
        for number, item in enumerate(items):
            yield number, work(common, item, 0)
        return
    # Imported here because it takes a second, and most calls need none of it.
    from osbc_deploy.cluster.client import at_scheduler, on_this_machine

    opened = on_this_machine(count) if where.scheduler is None else at_scheduler(where.scheduler)
    with opened as team:
        yield from team.run(work, common, items)


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
