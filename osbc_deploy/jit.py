"""Compilation of inner loops (numba)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from osbc_deploy.errors import UsageError

try:
    import numba
    import numba.core.config
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ValueError as error:
    raise UsageError(
        f"NUMBA_*: an environment variable is not valid ({error}). Correct it, or unset it."
    ) from error

__all__ = ["compiled"]

if numba.core.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise UsageError(
        "NUMBA_DISABLE_JIT: is set, and the compiled loops cannot be interpreted. Unset it."
    )

F = TypeVar("F", bound=Callable[..., Any])


@lru_cache
def _stamp(folder: Path) -> str:
    """Return a SHA-256 of the sources of a folder, and of what builds vector instructions."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.py")), Path(__file__).with_name("vectors.py")]:
        digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class _Cache(FunctionCache):
    """Machine code on disk, if there is room: a full disk costs time, but no run.

    It is that of a function with all that it calls, and with the constants it found. They lie in
    modules of the same folder and in `vectors.py`, so machine code is good as long as none of these
    changes; numba itself looks at the function's own module alone.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = IndexDataCacheFile(  # type: ignore[no-untyped-call]
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(
                self._impl.locator.get_source_stamp(),
                _stamp(Path(function.__code__.co_filename).parent),
            ),
        )

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
        made._cache = _Cache(function)
    result: F = made
    return result
