"""Whether HDF5 comes back from reading a file: tried in a process of its own first.

The HDF5 library trusts a file's inner addresses. In a damaged file they can send it round in
circles without end, in C, where neither a signal nor a time limit of ours reaches it, or out of its
memory. So another process reads the whole file first, with limits; this one only reads what that
one did. The process is started for the first file, in a fifth of a second, and kept for more.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from osbc_deploy.errors import ArtefactError
from osbc_deploy.limits import VARIABLE, Allowance, memory_limit

__all__ = ["check_readable", "serve"]

_COMPUTING = 20
"""Seconds of computing: several times what the largest file that is read takes."""

_ITSELF = 2**25
"""Bytes that reading takes, whatever the file."""

_SECONDS = 600.0
"""Seconds until the answer, where computing alone cannot be limited, on the busiest machine."""

# The folder we are in is not a place to import from, unless it is one here.
_CODE = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"

_READ, _NO_MEMORY = "read", "no memory"
"""Answers of the other process."""


def check_readable(path: Path) -> None:
    """Make sure that HDF5 can read a file to its end.

    Raises
    ------
    ArtefactError
        When it hangs, crashes, or takes too much memory.
    """
    with _Helper.lock:
        used = _Helper.process is not None
        answer = _ask(path)
        if answer != _READ and used:
            # Another damaged file before it may have left the library in disorder.
            _end()
            answer = _ask(path)
        if answer != _READ:
            _end()
    if answer != _READ:
        raise ArtefactError(f"{path}: is damaged: HDF5 {answer}. Write or copy it again.")


class _Helper:
    """The other process, while there is one, and whose it is."""

    lock = threading.Lock()
    process: subprocess.Popen[str] | None = None
    owner = 0


def _ask(path: Path) -> str:
    """Let the other process read a file; what HDF5 does with it, in words."""
    helper = _started()
    stdin, stdout = helper.stdin, helper.stdout
    if stdin is None or stdout is None:
        raise AssertionError("both are pipes")
    late = threading.Event()

    def stop() -> None:
        late.set()
        helper.kill()

    timer = threading.Timer(_SECONDS, stop)
    timer.daemon = True
    timer.start()
    try:
        with suppress(BrokenPipeError):
            stdin.write(json.dumps([os.path.abspath(path), memory_limit()]) + "\n")
            stdin.flush()
        answer = stdout.readline().strip()
    except BaseException:
        # An answer that nobody waits for would be taken for that to the next question.
        _end()
        raise
    finally:
        timer.cancel()
    if answer == _READ:
        return _READ
    if answer == _NO_MEMORY:
        return "asks for more memory than it may take"
    code = helper.wait()
    if late.is_set() or code == -getattr(signal, "SIGXCPU", 0):
        return "does not come to an end of it"
    return f"stops at it with exit code {code}"


def _started() -> subprocess.Popen[str]:
    """Return the other process, started if it is not there or belongs to who forked this one."""
    there = _Helper.process
    if there is None or _Helper.owner != os.getpid() or there.poll() is not None:
        _end()
        # Threads would count as memory.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        _Helper.process = there = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", _CODE, *sys.path], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        _Helper.owner = os.getpid()
    return there


@atexit.register
def _end() -> None:
    """End the other process; it also ends by itself when this one is gone."""
    helper, _Helper.process = _Helper.process, None
    if helper is None:
        return
    ours = _Helper.owner == os.getpid()
    if ours:
        helper.kill()
    for pipe in (helper.stdin, helper.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if ours:
        helper.wait()


def serve() -> None:
    """Read the files named on stdin, a line each, and answer with a line each."""
    # What these take themselves does not count.
    import h5py  # noqa: F401

    import osbc_deploy.formats.hdf5  # noqa: F401

    for line in sys.stdin:
        path, memory = json.loads(line)
        os.environ[VARIABLE] = str(memory)
        _limit(memory)
        sys.stdout.write(_read(Path(path)) + "\n")
        sys.stdout.flush()


def _read(path: Path) -> str:
    """Read everything in a file; what cannot be read is no matter, only what never ends."""
    from osbc_deploy.formats.hdf5 import open_here

    try:
        with open_here(path) as hdf5:
            _walk(hdf5, hdf5.file)
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # noqa: BLE001 - the reader says what is wrong with the file
        return _NO_MEMORY if _is_memory(error) else _READ
    return _READ


def _walk(hdf5: Any, group: Any) -> None:
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


def _limit(memory: int) -> None:
    """Let this process take this many bytes more and run a while longer, where that is possible."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        _at_most(resource.RLIMIT_CPU, spent + _COMPUTING)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        _at_most(resource.RLIMIT_AS, pages * resource.getpagesize() + _ITSELF + memory)


def _at_most(what: int, most: int) -> None:
    import resource

    _, hard = resource.getrlimit(what)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(what, (most, hard))
