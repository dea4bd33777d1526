"""What the solver may use: rows and samples are independent, and spread over cores and workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from osbc_deploy.cluster.spread import Crew, Part, cores
from osbc_deploy.model.threads import batches_of
from osbc_deploy.options import Compression

__all__ = ["DEFAULT_MEMORY", "Workspace"]

T = TypeVar("T")

DEFAULT_MEMORY = Compression.solver_memory
"""Bytes of working memory, unless told otherwise."""

_PARTS = 8
"""Batches per thread: more for progress and for a fair share, fewer for fewer calls."""

_MOST_ROWS = 256

WORTH = 2e9
"""Multiplications that are worth sending their matrices to another process: about a second."""

_INLINE = 3e6
"""Multiplications that are done before threads would have started: some milliseconds."""

_SHARES = 4
"""Parts of the rows for each worker: some rows take longer."""


@dataclass(frozen=True)
class Workspace:
    """What the solver may use of the machine, and of others.

    Attributes
    ----------
    memory : int
        Bytes that all threads together may take for the matrices of their rows. At least one row
        is worked on, so a single row that is larger exceeds it.
    threads : int
        0 for one per core.
    on_rows : callable
        Told the number of rows after each batch; called from several threads.
    crew : Crew or None
        Other processes, which get what is worth sending.
    device : str or None
        Where torch sums moments; None for NumPy.
    """

    memory: int = DEFAULT_MEMORY
    threads: int = 0
    on_rows: Callable[[int], None] = lambda rows: None
    crew: Crew | None = None
    device: str | None = None

    def crew_for(self, cost: float, items: int) -> Crew | None:
        """Return the other processes if it is worth sending them this many multiplications."""
        return self.crew if cost > WORTH and items > 1 else None

    def batches(
        self, work: Callable[[slice], T], rows: int, row_bytes: int, cost: float = 0.0
    ) -> list[T]:
        """Run `work` on batches of rows and return the results in the rows' order.

        `work` goes from row to row and takes `row_bytes` for one of them. Rows do not know of each
        other and libraries are called single-threaded, so neither the number of threads nor the
        size of the batches changes a result, nor the process that computes it.

        Parameters
        ----------
        work : callable
            For other processes, a module's function or a partial one.
        rows : int
        row_bytes : int
        cost : float
            Multiplications of all rows; unless it says so, they are not worth sending. Where they
            are few, and no number of threads is asked for, they are done by this one.
        """
        if crew := self.crew_for(cost, rows):
            shares = Part.cut(rows, _SHARES * crew.hands, "rows")
            common = (work, self.memory, row_bytes)
            return [r for share in crew.each(_share, common, shares) for r in share]
        threads = max(1, min(self.threads or cores(), self.memory // max(1, row_bytes)))
        size = max(1, min(_MOST_ROWS, rows // (_PARTS * threads)))
        if not self.threads and 0.0 < cost < _INLINE:
            threads, size = 1, _MOST_ROWS
        parts = batches_of(rows, size) or [slice(0, 0)]

        def run(part: slice) -> T:
            result = work(part)
            self.on_rows(part.stop - part.start)
            return result

        with _libraries().limit(limits=1, user_api="blas"):
            if threads == 1 or len(parts) == 1:
                return [run(part) for part in parts]
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(run, parts))


def _share(common: tuple[Callable[[slice], T], int, int], share: Part, threads: int) -> list[T]:
    """Run batches of some of the rows, in whatever process."""
    work, memory, row_bytes = common

    def shifted(part: slice) -> T:
        return work(slice(share.start + part.start, share.start + part.stop))

    return Workspace(memory, threads).batches(shifted, share.stop - share.start, row_bytes)


@cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that are loaded, NumPy's among them: looking for them takes 3 ms."""
    return ThreadpoolController()
