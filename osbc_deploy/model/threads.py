"""Batches of samples by threads, each of which has torch to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from osbc_deploy.model.currents import untransformed

__all__ = ["batches_of", "by_threads"]

T = TypeVar("T")


def batches_of(count: int, size: int) -> list[slice]:
    """Return `count` samples, channels or rows in batches of a size, the last of what is left."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def by_threads(run: Callable[[slice], T], batches: Sequence[slice], hands: int) -> Iterator[T]:
    """Yield what batches come to, in their order, each computed by one of `hands` threads.

    One thread is this one, with the threads that torch has inside an operation.
    """
    import torch

    if hands == 1:
        yield from map(run, batches)
        return
    held = torch.get_num_threads()
    pool = ThreadPoolExecutor(hands, initializer=partial(torch.set_num_threads, 1))
    try:
        # Set around all threads: it is one switch for all of them.
        with untransformed():
            yield from pool.map(run, batches)
    finally:
        # Who interrupts does not wait for batches that have not begun.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(held)
