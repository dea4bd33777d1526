"""Arrays of an .npz archive, every size known before anything is allocated.

An archive may claim anything: millions of entries, an entry that expands a thousandfold, an array
of other bytes than its entry holds. What numpy writes is taken (stored or deflated ``.npy``
entries of numbers), in blocks, and nothing else.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.errors import DataError
from osbc_deploy.limits import Allowance, array_bytes

__all__ = ["read_npz"]

_BLOCK = 2**20
"""Bytes read at a time; a directory of that size names ten thousand arrays and more."""

_HEADER = 10_000
"""Bytes of an array's header, as in numpy."""


class _InBlocks(io.BufferedIOBase):
    """A file of which nobody can ask for much at once; zipfile reads a directory in one go."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        wanted = _BLOCK + 1 if size is None or size < 0 else size
        content = self._file.read(min(wanted, _BLOCK + 1))
        if len(content) > _BLOCK:
            raise ValueError(f"its list of arrays has more than {_BLOCK} bytes")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def read_npz(path: Path, wanted: Collection[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the arrays of these names that an archive holds, and the names of all it holds.

    Raises
    ------
    ArtefactError
        When it is not an .npz archive, or needs more memory than allowed.
    Exception
        Of zipfile, zlib or numpy, when it is damaged.
    """
    allowance = Allowance(str(path), remedy="Save fewer samples or steps, as uint8")
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path}: not an .npz archive. Save it with numpy.savez(path, spikes=..., "
                "labels=...)."
            )
        with zipfile.ZipFile(_InBlocks(file)) as archive:
            entries = {e.filename.removesuffix(".npy"): e for e in archive.infolist()}
            found = {
                name: _array(archive, entries[name], allowance)
                for name in wanted
                if name in entries
            }
    return found, list(entries)


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, allowance: Allowance) -> NDArray[Any]:
    # Other methods expand without a bound on what one step yields.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed in a way that numpy does not write")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        width = {(1, 0): 2, (2, 0): 4}.get(version)
        if width is None:
            raise ValueError(f"{entry.filename} has a header of version {version}")
        # Its length is read here, since numpy would read a header of any length.
        length = file.read(width)
        size = int.from_bytes(length, "little")
        if size > _HEADER:
            raise ValueError(f"{entry.filename} has a header of {size} bytes")
        header = io.BytesIO(length + file.read(size))
        read = np.lib.format.read_array_header_1_0 if width == 2 else (
            np.lib.format.read_array_header_2_0)  # fmt: skip
        shape, fortran, dtype = read(header)
        if dtype.kind not in "buif" or any(n < 0 for n in shape):
            name = entry.filename.removesuffix(".npy")
            raise ValueError(f"{name} are not numbers (dtype {dtype}, shape {shape})")
        needed = array_bytes(shape, dtype.itemsize)
        # Spikes of another type are copied into bytes, and those of another order once more.
        copies = (dtype != np.uint8) + fortran
        allowance.take(needed + copies * array_bytes(shape, 1), 2 * _BLOCK)
        if needed != entry.file_size - file.tell():
            raise ValueError(
                f"{entry.filename} declares {needed:,} bytes and holds "
                f"{entry.file_size - file.tell():,}"
            )
        order: Literal["C", "F"] = "F" if fortran else "C"
        array: NDArray[Any] = np.empty(shape, dtype, order)
        content = array.reshape(-1, order=order).view(np.uint8)
        at = 0
        while at < needed:
            part = np.frombuffer(file.read(min(_BLOCK, needed - at)), np.uint8)
            if not len(part):
                raise ValueError(f"{entry.filename} ends early")
            content[at : at + len(part)] = part
            at += len(part)
        # The checksum is compared at the end.
        file.read(1)
    array.flags.writeable = False
    return array
