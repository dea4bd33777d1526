"""Batches of samples by threads, each of which has torch to itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from osbc_deploy.model.currents import untransformed

__all__ = ["batches_of", "by_threads", "hands_for"]

T = TypeVar("T")

_WORTH = 2**17
"""Numbers of an operation that takes some times as long as Python does to call it."""


def hands_for(numbers: float) -> int:
    """Return how many threads are worth it for torch's operations.

    Of all threads, one at a time is in Python. More of them than an operation is long beside that
    wait for each other, and are slower than few.

    Parameters
    ----------
    numbers : float
        Those that one operation computes on average, of all samples.
    """
    import torch

    return max(1, min(torch.get_num_threads(), int(numbers / _WORTH)))


def batches_of(count: int, size: int) -> list[slice]:
    """Return `count` samples, channels or rows in batches of a size, the last of what is left."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def by_threads(
    run: Callable[[slice], T], batches: Sequence[slice], hands: int, inside: int = 1
) -> Iterator[T]:
    """Yield the results of batches, in their order, each computed by one of `hands` threads.

    `inside` threads are torch's within an operation of each; 0 if they are as many as it has, and
    one hand, which is this thread.
    """
    import torch

    if inside == 0:
        yield from map(run, batches)
        return
    held = torch.get_num_threads()
    pool = ThreadPoolExecutor(hands, initializer=partial(torch.set_num_threads, inside))
    try:
        # Set around all threads: it is one switch for all of them.
        with untransformed():
            yield from pool.map(run, batches)
    finally:
        # Who interrupts does not wait for batches that have not begun.
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(held)
