"""How fast this machine is now: operations a second of each kind, from a tenth of a second each.

Nothing is decided from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from osbc_deploy.cluster.spread import cores
from osbc_deploy.compress.kernels import subtract
from osbc_deploy.compress.work import Work

__all__ = ["measured_pace"]

_SECONDS = 0.03
"""That each kind is repeated for; the best counts."""


@lru_cache(maxsize=4)
def measured_pace(threads: int) -> Work:
    """Return the operations of each kind that all threads together do in a second.

    Parameters
    ----------
    threads : int
        That rows are spread over; 0 for one per core.
    """
    shared = threads or cores()
    return Work(
        currents=_currents(),
        passes=_passes(),
        products=_products(),
        loops=_loops() * shared,
    )


def _best(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes, when nothing comes between."""
    work()
    spent, least = 0.0, float("inf")
    while spent < _SECONDS:
        start = time.perf_counter()
        work()
        each = time.perf_counter() - start
        spent, least = spent + each, min(least, each)
    return max(least, 1e-9)


def _currents() -> float:
    import torch

    x, w = torch.ones((2, 64, 64, 64)), torch.ones((128, 64, 3, 3))
    with torch.no_grad():
        seconds = _best(lambda: torch.nn.functional.conv2d(x, w, padding=1))
    return 2 * 64 * 64 * w.numel() / seconds


def _passes() -> float:
    x = np.ones(2**23, np.float32)
    return x.size / _best(lambda: x * x)


def _products() -> float:
    a = np.ones((512, 512))
    return 512**3 / _best(lambda: a @ a)


def _loops() -> float:
    n = 384
    a, c = np.ones((64, n)), np.zeros((n, n))
    return 64 * n * n / _best(lambda: subtract(c, a, a, 0, n, 0, 64, 0, n, False))
