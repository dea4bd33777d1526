"""Items of work, one after the other in this process or spread over others.

What an item comes to depends on nothing but the item and what all share, so it is the same bytes
wherever it is computed, in whatever order, and however often a worker dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

from osbc_deploy.search_options import ClusterOptions

__all__ = ["Work", "cores", "spread"]

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

Work: TypeAlias = Callable[[C, T, int], R]
"""From what all share, an item and a number of threads (0 for one per core) to a result."""


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
