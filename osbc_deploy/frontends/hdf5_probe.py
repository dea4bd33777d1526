"""Whether HDF5 comes back from reading a file: tried in a process of its own first.

The HDF5 library trusts a file's inner addresses. In a damaged file they can send it round in
circles without end, in C, where neither a signal nor a time limit of ours reaches it, or out of its
memory. So another process reads the whole file first, with limits; this one only reads what that
one did. That costs the start of an interpreter, a fifth of a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError

__all__ = ["check_readable", "main"]

_SECONDS = 60.0
"""More than a file of the size that is read at all takes on a slow and busy machine."""

_CODE = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    f"from {__name__} import main; sys.exit(main(sys.argv[1]))"
)

_NO_MEMORY = 3
"""Exit code of the other process."""


def check_readable(path: Path) -> None:
    """Make sure that HDF5 can read a file to its end.

    Raises
    ------
    ArtefactError
        When it hangs, crashes, or takes too much memory.
    """
    # Threads would count as memory.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # The folder we are in is no place to import from, unless it is one here.
    command = [sys.executable, "-c", _CODE, os.path.abspath(path), *sys.path]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_SECONDS, check=False, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        problem = f"HDF5 does not come to an end of it in {_SECONDS:g} s"
    else:
        if done.returncode == 0:
            return
        problem = f"HDF5 stops at it with signal {-done.returncode}"
        if done.returncode == _NO_MEMORY:
            problem = "HDF5 asks for more memory than the file can need"
        elif done.returncode > 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            problem = f"the process that reads it first failed ({said[-1] if said else 'silently'})"
    raise ArtefactError(f"{path}: is damaged: {problem}. Write or copy it again.")


def main(path: str) -> int:
    """Read everything in a file; what cannot be read is no matter, only what never ends."""
    _limit_memory()
    from osbc_deploy.frontends.hdf5 import open_here

    try:
        with open_here(Path(path)) as hdf5:
            _walk(hdf5, hdf5.file)
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # noqa: BLE001 - the reader says what is wrong with the file
        return _NO_MEMORY if _is_memory(error) else 0
    return 0


def _walk(hdf5: Any, group: Any) -> None:
    from osbc_deploy.limits import Allowance

    for key in group:
        # Whatever order the reader goes in, it asks for no more than this at a time.
        hdf5.allowance = Allowance(str(group.name))
        try:
            item = hdf5.member(group, key)
            if hasattr(item, "keys"):
                _walk(hdf5, item)
            elif item.dtype.kind in "OS":
                hdf5.texts(item)
            else:
                hdf5.numbers(item)
        except MemoryError:
            raise
        except Exception as error:
            if _is_memory(error):
                raise MemoryError from error


def _is_memory(error: Exception) -> bool:
    return "alloc" in str(error) and not isinstance(error, ArtefactError)


def _limit_memory() -> None:
    from osbc_deploy.limits import memory_limit

    with suppress(ImportError, ValueError, OSError):
        import resource

        import h5py  # noqa: F401 - what it takes itself does not count

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * resource.getpagesize() + memory_limit()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
