"""Rows of a layer are independent problems: spread over the cores, within the solver's memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from osbc_deploy.cluster.spread import cores
from osbc_deploy.options import Compression

__all__ = ["DEFAULT_MEMORY", "Workspace"]

T = TypeVar("T")

DEFAULT_MEMORY = Compression.solver_memory
"""Bytes of working memory, unless told otherwise."""

_PARTS = 8
"""Batches per thread: more for progress and for a fair share, fewer for fewer calls."""

_MOST_ROWS = 256


@dataclass(frozen=True)
class Workspace:
    """What the solver may use of the machine.

    Attributes
    ----------
    memory : int
        Bytes that all threads together may take for the matrices of their rows. At least one row
        is worked on, so a single row that is larger exceeds it.
    threads : int
        0 for one per core.
    on_rows : callable
        Told the number of rows after each batch; called from several threads.
    """

    memory: int = DEFAULT_MEMORY
    threads: int = 0
    on_rows: Callable[[int], None] = lambda rows: None

    def batches(self, work: Callable[[slice], T], rows: int, row_bytes: int) -> list[T]:
        """Run `work` on batches of rows and return the results in the rows' order.

        `work` goes from row to row and takes `row_bytes` for one of them. Rows do not know of each
        other and libraries are called single-threaded, so neither the number of threads nor the
        size of the batches changes a result.
        """
        threads = max(1, min(self.threads or cores(), self.memory // max(1, row_bytes)))
        size = max(1, min(_MOST_ROWS, rows // (_PARTS * threads)))
        parts = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]

        def run(part: slice) -> T:
            result = work(part)
            self.on_rows(part.stop - part.start)
            return result

        with _libraries().limit(limits=1, user_api="blas"):
            if threads == 1 or len(parts) == 1:
                return [run(part) for part in parts]
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(run, parts))


@cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that are loaded, NumPy's among them: looking for them takes 3 ms."""
    return ThreadpoolController()
