"""Compilation of inner loops (numba)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


class _Cache(FunctionCache):
    """Machine code on disk, as far as the disk takes it: a full one costs time, no run."""

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def compiled(function: F) -> F:
    """Compile a function; machine code is cached between runs where there is a place for it.

    The interpreter's lock is not held, so several threads may run it. Arithmetic is that of the
    source: terms are neither reordered nor contracted, so every processor rounds alike.
    """
    made = numba.njit(function, nogil=True)
    # numba raises where no folder can be written, such as in a read-only container.
    with suppress(RuntimeError):
        made._cache = _Cache(function)  # type: ignore[no-untyped-call]
    result: F = made
    return result
