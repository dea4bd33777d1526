"""What a store is kept in: bytes that are erased in sectors and then written once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.release.journal import BLANK
from osbc_deploy.release.manifest import ALIGNMENT

__all__ = ["ANEW", "FileStorage", "Geometry", "Storage", "open_storage"]

ANEW = (
    "Where there is none, move the store's folder away and make it anew with 'osbc-deploy release "
    "create'; it takes every version again then."
)
"""What to do about a store that cannot be mended."""

_PATIENCE = 10.0
"""Seconds that a store in use by another process is waited for."""


@dataclass(frozen=True)
class Geometry:
    """How a store is laid out: a sector for each of two records, then two slots.

    Attributes
    ----------
    sector : int
        Bytes that are erased at once.
    slot : int
        Bytes of a slot, a whole number of sectors.

    Raises
    ------
    UsageError
    """

    sector: int
    slot: int

    def __post_init__(self) -> None:
        if not 0 < self.sector <= 2**24 or self.sector % ALIGNMENT:
            raise UsageError(
                f"sector: {self.sector} is not a multiple of {ALIGNMENT} up to {2**24}. Give the "
                "bytes that the storage erases at once."
            )
        if self.slot <= 0 or self.slot % self.sector or self.bytes >= 2**31:
            raise UsageError(
                f"slot: {self.slot} is not a multiple of the sector ({self.sector}) below 1 GiB. "
                "Give the bytes of one of the two slots."
            )

    @property
    def bytes(self) -> int:
        """Bytes of the whole store."""
        return 2 * self.sector + 2 * self.slot

    def record_at(self, place: int) -> int:
        """Return where a record begins."""
        return place * self.sector

    def slot_at(self, number: int) -> int:
        """Return where a slot begins."""
        return 2 * self.sector + number * self.slot


class Storage(Protocol):
    """Four operations; what is written must have been erased before."""

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes where all is blank."""

    def erase(self, offset: int, count: int) -> None:
        """Make a sector blank."""

    def sync(self) -> None:
        """Return when all that was written will survive a power cut."""


class FileStorage:
    """A store in a file of fixed size, as it would lie in flash."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes."""
        return os.pread(self._handle, count, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        done = 0
        while done < len(data):
            done += os.pwrite(self._handle, data[done:], offset + done)

    def erase(self, offset: int, count: int) -> None:
        """Make bytes blank."""
        self.write(offset, bytes([BLANK]) * count)

    def sync(self) -> None:
        """Wait for the disk."""
        os.fsync(self._handle)


@contextmanager
def open_storage(path: Path, geometry: Geometry, *, change: bool) -> Iterator[FileStorage]:
    """Yield the storage in a file, to itself as long as it changes it.

    Raises
    ------
    UsageError
        When it cannot be opened, or another process goes on using it.
    ArtefactError
        When its size is not that of the store.
    """
    try:
        handle = os.open(path, os.O_RDWR if change else os.O_RDONLY)
    except OSError as error:
        remedy = f"Restore it from a copy. {ANEW}"
        if isinstance(error, PermissionError):
            remedy = f"Let this user {'read and write' if change else 'read'} it."
        raise UsageError(f"{path}: cannot be opened ({error.strerror}). {remedy}") from error
    try:
        _lock(handle, path, fcntl.LOCK_EX if change else fcntl.LOCK_SH)
        if (size := os.fstat(handle).st_size) != geometry.bytes:
            raise ArtefactError(
                f"{path}: has {size:,} B, a store of this layout has {geometry.bytes:,}. Restore "
                f"it from a copy. {ANEW}"
            )
        yield FileStorage(handle)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read or written ({error.strerror}). Free or mend the disk and try "
            "again; what was confirmed is still there."
        ) from error
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, kind: int) -> None:
    """Lock a file; wait for others, who use a store for a moment only."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise UsageError(
                    f"{path}: is in use by another process, and was for {_PATIENCE:g} seconds. Try "
                    "again when it is done."
                ) from error
        time.sleep(0.05)
