"""How much memory what is read may take, known before any of it is allocated.

A file of some kilobytes can declare, or expand to, gigabytes. Every reader therefore adds up what
a file will take, from its size and from what it declares, and takes it from an
:class:`Allowance` first. The limit holds for each input (a file, a folder, a data set); it is
:data:`DEFAULT`, or what the environment variable :data:`VARIABLE` says. Sizes are Python integers:
the product of a declared shape never overflows.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from osbc_deploy.errors import ArtefactError, OsbcError, UsageError

__all__ = [
    "DEFAULT",
    "HAND_WRITTEN",
    "NO_SIZE",
    "PARSED",
    "VARIABLE",
    "Allowance",
    "array_bytes",
    "check_tensors",
    "is_there",
    "memory_limit",
    "parsed_size",
    "read_bytes",
    "read_text",
    "shown",
]

_IRREGULAR = "is not a regular file. Save what it holds to one."

VARIABLE = "OSBC_DEPLOY_MEMORY"
DEFAULT = 2**30
"""Bytes that reading one input may take."""

HAND_WRITTEN = 2**20
"""Bytes of a text file that people write: a budget, a target, a configuration."""

PARSED = 40
"""Bytes of Python objects that a byte of JSON can become: nested empty lists are the worst."""

_TENSOR_HEADER = 20
"""The same for the header of a safetensors file."""

NO_SIZE = (
    "is no whole number of bytes. Give one, such as 220000, 220KB (1000 B each), 256KiB or 256K "
    "(1024 B each)."
)
"""What is said of a text that :func:`parsed_size` does not take."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([KMGT])(i?B)?|B)?", re.ASCII | re.IGNORECASE)


def parsed_size(text: str) -> int | None:
    """Return the whole number of bytes that a text means, with a unit or without; None if none.

    KB is 1000 B and KiB 1024 B (IEC 80000-13), so what was meant otherwise is never more. K alone
    is 1024 B, as in linker scripts.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    base = 1000 if (found[3] or "").upper() == "B" else 1024
    size = Decimal(found[1]) * base ** " KMGT".index((found[2] or " ").upper())
    return int(size) if size == int(size) else None


def memory_limit() -> int:
    """Return the bytes that reading one input may take.

    Raises
    ------
    UsageError
        When the environment variable holds no size.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return DEFAULT
    if not (size := parsed_size(text)):
        raise UsageError(
            f"{VARIABLE}: {text!r} is not a size. Give bytes, or a size such as 4G, or unset it."
        )
    return size


def shown(size: int) -> str:
    """Return a size in bytes for people, never less than it is."""
    if size >= 2**63:
        return f"more than 2^{size.bit_length() - 1} B"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{math.ceil(100 * size / unit) / 100:,.2f} {name}"
    return f"{size} B"


def array_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Return what an array takes; of any size, as a Python integer."""
    return math.prod(int(size) for size in shape) * int(itemsize)


class Allowance:
    """The memory that one input may still take.

    Parameters
    ----------
    name : str
        What is read, as a user knows it.
    error : type of OsbcError
        What is raised when it needs more.
    remedy : str
        What to do about it, beside raising the limit.
    """

    def __init__(
        self, name: str, *, error: type[OsbcError] = ArtefactError, remedy: str = "Give less"
    ) -> None:
        self.name, self.error, self.remedy = name, error, remedy
        self.limit, self.taken = memory_limit(), 0

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return self.limit - self.taken

    def take(self, kept: int, passing: int = 0, at: str = "") -> None:
        """Take memory before it is allocated.

        Parameters
        ----------
        kept : int
            Bytes that stay.
        passing : int
            Bytes beside them that are given back right away.
        at : str
            The part of the input that takes them.

        Raises
        ------
        OsbcError
            Of the kind given, when that is more than is left.
        """
        # A negative size is some other fault, and frees nothing.
        kept = max(kept, 0)
        needed = self.taken + kept + max(passing, 0)
        if needed > self.limit:
            raise self.error(
                f"{self.name}: {at + ' ' if at else ''}needs {shown(needed)} of memory, the limit "
                f"is {shown(self.limit)}. "
                f"{self.remedy}, or raise the limit with the environment variable {VARIABLE}."
            )
        self.taken += kept


def is_there(path: Path) -> bool:
    """Tell whether there is a file.

    Raises
    ------
    UsageError
        When there is a folder.
    ArtefactError
        When there is something else.
    """
    if path.is_file():
        return True
    if path.is_dir():
        raise UsageError(f"{path}: is a folder. Name a file.")
    if path.exists():
        raise ArtefactError(f"{path}: {_IRREGULAR}")
    return False


def read_bytes(
    path: Path,
    *,
    each: int = 1,
    most: int | None = None,
    error: type[OsbcError] = ArtefactError,
) -> bytes:
    """Return what a regular file holds.

    Parameters
    ----------
    path : Path
    each : int
        Bytes of memory that a byte of the file takes, together with what becomes of it.
    most : int, optional
        Bytes the file may have at all.
    error : type of OsbcError
        What is raised when it is too large, or no regular file.

    Raises
    ------
    OSError
        When it cannot be read.
    OsbcError
        Of the kind given.
    """
    with _regular(path, error) as (file, declared):
        allowance = Allowance(str(path), error=error, remedy="Give a smaller file")
        largest = allowance.limit // each if most is None else min(most, allowance.limit // each)
        # A file of /proc has no size, and any file may grow: never more than allowed is read.
        content = file.read(min(largest, declared or largest) + 1)
        size = max(len(content), declared)
    if most is not None and size > most:
        raise error(
            f"{path}: has {shown(size)}, a file of its kind may have {shown(most)}. Give the file "
            "that was meant."
        )
    allowance.take(size * each)
    return content


def read_text(
    path: Path,
    *,
    each: int = 1,
    most: int | None = None,
    error: type[OsbcError] = ArtefactError,
) -> str:
    """Return a text in UTF-8; parameters and errors are those of :func:`read_bytes`.

    Raises
    ------
    UnicodeDecodeError
        When it is not UTF-8.
    """
    # Lines end as Python's own text files do.
    text = read_bytes(path, each=each, most=most, error=error).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_tensors(path: Path) -> None:
    """Make sure that a safetensors file may be read: header, arrays, and a copy of them.

    Raises
    ------
    OSError
        When it cannot be read.
    ArtefactError
        When it needs more memory than allowed, or is not a regular file.
    """
    with _regular(path, ArtefactError) as (file, size):
        header = min(int.from_bytes(file.read(8), "little"), size)
    allowance = Allowance(str(path), remedy="Give a smaller file")
    allowance.take(2 * size + _TENSOR_HEADER * header)


@contextmanager
def _regular(path: Path, error: type[OsbcError]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file; yield it and the size that the file system declares."""
    # Opened first, so that the file that is checked is the one that is read; a FIFO does not block.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise error(f"{path}: {_IRREGULAR}")
        yield file, state.st_size
