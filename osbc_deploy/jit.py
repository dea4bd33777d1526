"""Compilation of inner loops (numba)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled"]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function; machine code is cached between runs.

    The interpreter's lock is not held, so several threads may run it. Arithmetic is that of the
    source: terms are neither reordered nor contracted, so every processor rounds alike.
    """
    made: F = numba.njit(function, nogil=True, cache=True)
    return made
