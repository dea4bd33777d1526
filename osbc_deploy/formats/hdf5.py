"""What is read of an HDF5 file: members that lie in it, numbers and text, each size known before.

A file can point out of itself, hold a group within itself, declare an array of any size that takes
no place in it, store a chunk that expands without end, and let any number of texts be one long
one. All of that is refused here, before HDF5 allocates anything for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.formats.hdf5_probe import check_readable
from osbc_deploy.limits import Allowance, array_bytes

__all__ = ["Hdf5", "open_hdf5", "open_here"]

_MEMBER = 2000
"""Bytes that a group or dataset takes as Python objects, roughly; so their number is bounded."""

_TEXT = 128
"""The same for a text, beside its letters."""

_DEEP = 32
"""How deep groups may lie within each other."""

_PART = 2**20

_SHUFFLE, _DEFLATE, _FLETCHER = 2, 1, 3
"""Filters that are read, in the order in which they are applied; others have no known bound."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5]:
    """Open a file to read, after another process has read it.

    Raises
    ------
    ArtefactError
        When HDF5 hangs or crashes on it.
    Exception
        Of h5py, when it is damaged.
    """
    check_readable(path)
    with open_here(path) as hdf5:
        yield hdf5


@contextmanager
def open_here(path: Path) -> Iterator[Hdf5]:
    """Open a file to read in this process, whatever HDF5 makes of it."""
    import h5py

    with h5py.File(path, "r") as file:
        yield Hdf5(file, path.stat().st_size, Allowance(str(path), remedy="Give a smaller file"))


class Hdf5:
    """An open file, and the memory that what is read of it may take.

    All methods raise the errors of h5py and ValueError, KeyError or TypeError for what is not
    taken, and ArtefactError for what needs more memory than allowed.
    """

    def __init__(self, file: Any, size: int, allowance: Allowance) -> None:
        self.file, self.size, self.allowance = file, size, allowance
        self._entered: set[tuple[int, int]] = set()

    def member(self, group: Any, key: str) -> Any:
        """Return a group or dataset that lies in this file; a group only once."""
        import h5py

        place = f"{group.name.rstrip('/')}/{key}"
        self.allowance.take(_MEMBER)
        link = group.get(key, getlink=True)
        if link is None:
            raise KeyError(f"{place} is missing")
        if not isinstance(link, h5py.HardLink):
            raise TypeError(f"{place} is a link to somewhere else")
        found = group[key]
        if isinstance(found, h5py.Group):
            about = h5py.h5o.get_info(found.id)
            if (about.fileno, about.addr) in self._entered:
                raise ValueError(f"{place} is a group that is also somewhere else in the file")
            self._entered.add((about.fileno, about.addr))
            if found.name is not None and found.name.count("/") > _DEEP:
                raise ValueError(f"{place} lies more than {_DEEP} groups deep")
        elif not isinstance(found, h5py.Dataset):
            raise TypeError(f"{place} is neither a group nor values")
        return found

    def numbers(self, dataset: Any, beside: int = 0) -> NDArray[Any]:
        """Return numbers in the dtype of the file.

        Parameters
        ----------
        dataset : h5py.Dataset
        beside : int
            Bytes that are made of each number later.
        """
        if dataset.dtype.kind not in "iufb":
            raise TypeError(f"{dataset.name} holds neither numbers nor text")
        count = self._check(dataset)
        width = max(dataset.dtype.itemsize, dataset.id.get_type().get_size())
        self.allowance.take(count * (width + beside), at=dataset.name)
        self._check_chunks(dataset)
        return np.asarray(dataset[()])

    def texts(self, dataset: Any) -> NDArray[np.object_]:
        """Return texts, as str, in the shape they have."""
        import h5py

        if dataset.dtype.kind != "S" and h5py.check_string_dtype(dataset.dtype) is None:
            raise TypeError(f"{dataset.name} does not hold text")
        count = self._check(dataset)
        self.allowance.take(count * _TEXT, at=dataset.name)
        self._check_chunks(dataset)
        shape = tuple(dataset.shape)
        # What a text of variable length points at is anywhere, and all of them may be one: only
        # so many at a time as would fit if each were as long as the file.
        longest = dataset.dtype.itemsize if dataset.dtype.kind == "S" else self.size
        found = np.empty(shape, object)
        for place in _pieces(shape, max(1, self.allowance.left // (4 * max(1, longest)))):
            self.allowance.take(0, 3 * longest, dataset.name)
            piece = np.asarray(dataset[place], object)
            texts = [x.decode("utf-8") if isinstance(x, bytes) else str(x) for x in piece.flat]
            self.allowance.take(4 * sum(map(len, texts)), at=dataset.name)
            found[place] = np.array(texts, object).reshape(piece.shape) if shape else texts[0]
        return found

    def _check(self, dataset: Any) -> int:
        if dataset.shape is None:
            raise ValueError(f"{dataset.name} holds nothing")
        if dataset.is_virtual or dataset.external:
            raise TypeError(f"{dataset.name} is stored in another file")
        return array_bytes(dataset.shape, 1)

    def _check_chunks(self, dataset: Any) -> None:
        """Make sure that no chunk is, or expands to, more than is declared."""
        if dataset.chunks is None:
            return
        chunk = array_bytes(dataset.chunks, dataset.id.get_type().get_size())
        self.allowance.take(0, 3 * chunk + 2 * min(chunk, self.size), dataset.name)
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        if filters != [f for f in (_SHUFFLE, _DEFLATE, _FLETCHER) if f in filters]:
            raise ValueError(f"{dataset.name} is stored with filters {filters}; gzip is read")
        if _DEFLATE not in filters:
            return
        bit = 1 << filters.index(_DEFLATE)
        for offset, mask, stored in _chunks(dataset):
            if stored > self.size:
                raise ValueError(f"{dataset.name} has a chunk of {stored:,} bytes")
            self.allowance.take(0, stored + 2 * chunk, dataset.name)
            if not mask & bit:
                _check_deflated(dataset, dataset.id.read_direct_chunk(offset)[1], chunk)


def _check_deflated(dataset: Any, content: bytes, chunk: int) -> None:
    stream, size = zlib.decompressobj(), 0
    while not stream.eof:
        try:
            part = stream.decompress(content, _PART)
        except zlib.error as error:
            raise ValueError(f"{dataset.name} has a chunk that is damaged ({error})") from error
        content = stream.unconsumed_tail
        size += len(part)
        if size > chunk:
            raise ValueError(
                f"{dataset.name} has a chunk that expands to more than {chunk:,} bytes"
            )
        if not part and not content:
            break


def _chunks(dataset: Any) -> list[tuple[tuple[int, ...], int, int]]:
    """Return place, filters left out and stored size of every chunk."""
    found: list[tuple[tuple[int, ...], int, int]] = []
    dataset.id.chunk_iter(
        lambda about: found.append((about.chunk_offset, about.filter_mask, about.size))
    )
    return found


def _pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield selections of at most this many elements that cover an array of this shape."""
    if not shape:
        yield ()
        return
    row = array_bytes(shape[1:], 1)
    if row > most and row:
        for index in range(shape[0]):
            for rest in _pieces(shape[1:], most):
                yield (index, *rest)
        return
    step = max(1, most // max(1, row))
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])),)
