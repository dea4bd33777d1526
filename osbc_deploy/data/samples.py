"""Spike rasters and labels, checked once at the door."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray, SpikeArray, blocks, frozen
from osbc_deploy.data.npz import read_npz
from osbc_deploy.errors import ArtefactError, UsageError, reason
from osbc_deploy.limits import Allowance

__all__ = ["Samples", "check_samples", "load_npz", "samples_from_dataset"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked samples.

    Attributes
    ----------
    name : str
        Where they came from.
    spikes : ndarray of uint8 (n, T, ...)
        0 or 1; n and T at least 1.
    labels : ndarray of int64 (n,) or None
    """

    name: str
    spikes: SpikeArray
    labels: IntArray | None = None

    def __len__(self) -> int:
        return len(self.spikes)

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return int(self.spikes.shape[1])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one time step of one sample."""
        return tuple(self.spikes.shape[2:])

    def take(self, count: int) -> Samples:
        """Return the first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples(self.name, frozen(self.spikes[:count]), labels)

    def fingerprint(self) -> str:
        """Return a SHA-256 of shape, spikes and labels."""
        digest = hashlib.sha256(repr(self.spikes.shape).encode())
        if self.spikes.max(initial=0) > 1:
            # Packed bits would tell no count from a spike.
            for sample in self.spikes:
                digest.update(np.ascontiguousarray(sample, "<i8").tobytes())
        else:
            digest.update(np.packbits(self.spikes).tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


def check_samples(name: str, spikes: Any, labels: Any = None) -> Samples:
    """Check a raster and its labels and freeze them.

    Parameters
    ----------
    name : str
        What to call the data in an error.
    spikes : array_like (n, T, ...)
        Numbers or booleans, each 0 or 1.
    labels : array_like (n,), optional
        Whole numbers, 0 or more.

    Raises
    ------
    ArtefactError
        For data of the wrong kind, shape or range.
    """
    raster = np.asarray(spikes)
    if raster.dtype.kind not in "buif":
        raise ArtefactError(
            f"{name}: spikes are not numbers (dtype {raster.dtype}). Save a numeric array of 0 and "
            "1 with shape (n, T, ...)."
        )
    if raster.ndim < 3:
        raise ArtefactError(
            f"{name}: spikes have shape {raster.shape}, needed (n, T, ...) with at least 3 axes. "
            "Put samples first and time second."
        )
    if 0 in raster.shape:
        axis = ("n", "T")[raster.shape.index(0)] if raster.shape.index(0) < 2 else "a spatial axis"
        raise ArtefactError(
            f"{name}: spikes have shape {raster.shape}: {axis} is 0, at least 1 is needed."
        )
    if raster.dtype.kind == "f" and not all(np.isfinite(b).all() for b in blocks(raster)):
        raise ArtefactError(f"{name}: spikes hold NaN or infinite values. Bin the events again.")
    if any(((b != 0) & (b != 1)).any() for b in blocks(raster)):
        raise ArtefactError(
            f"{name}: spikes range from {raster.min():g} to {raster.max():g}, the chip takes 0 or "
            "1. Bin into finer steps or clip the counts, and train on the same input."
        )
    return Samples(name, frozen(raster, np.uint8), _check_labels(name, labels, len(raster)))


def _check_labels(name: str, labels: Any, count: int) -> IntArray | None:
    if labels is None:
        return None
    given = np.asarray(labels)
    if given.shape != (count,):
        raise ArtefactError(f"{name}: labels have shape {given.shape}, needed ({count},).")
    whole = given.dtype.kind in "bui" or (
        given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.rint(given)).all()
    )
    if not whole or given.min() < 0:
        raise ArtefactError(
            f"{name}: labels must be whole numbers, 0 or more (dtype {given.dtype})."
        )
    return frozen(given, np.int64)


def load_npz(path: Path) -> Samples:
    """Read ``spikes`` (n, T, ...) and optional ``labels`` (n,) from an .npz file.

    Raises
    ------
    UsageError
        When the file does not exist.
    ArtefactError
        When it is not an .npz, holds pickled objects, has no ``spikes``, or needs more memory
        than allowed (:mod:`osbc_deploy.limits`).
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file. Give an .npz with 'spikes' (n, T, ...), or "
            "package.module:factory for a dataset."
        )
    try:
        found, names = read_npz(path, ("spikes", "labels"))
    except ArtefactError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy each raise their own kinds for a damaged archive.
        raise ArtefactError(
            f"{path}: cannot be read as .npz without pickle ({reason(error)}). Save plain numeric "
            "arrays with numpy.savez."
        ) from error
    if "spikes" not in found:
        raise ArtefactError(
            f"{path}: holds no array 'spikes' (found: {', '.join(names[:20]) or 'nothing'}). Save "
            "it with numpy.savez(path, spikes=..., labels=...)."
        )
    return check_samples(str(path), found["spikes"], found.get("labels"))


def samples_from_dataset(name: str, dataset: Any, limit: int | None = None) -> Samples:
    """Collect samples of a torch Dataset of ``spikes (T, ...)`` or ``(spikes, label)`` items."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ArtefactError(
            f"{name}: a {type(dataset).__name__} is not a dataset; __len__ and __getitem__ are "
            "needed. Return a torch.utils.data.Dataset of (spikes (T, ...), label)."
        )
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count == 0:
        raise ArtefactError(f"{name}: the dataset is empty, at least 1 sample is needed.")
    allowance = Allowance(name, remedy="Give fewer samples")
    rasters: list[SpikeArray] = []
    labels = []
    for index in range(count):
        try:
            item = dataset[index]
        except Exception as error:
            # Whatever the user's own code raises belongs to that sample.
            raise ArtefactError(
                f"{name}: reading sample {index} failed ({type(error).__name__}: {error}). Items "
                "0 to len - 1 must be (spikes (T, ...), label)."
            ) from error
        raster, label = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        raster = np.asarray(raster)
        if not rasters:
            # Kept as bytes, one by one and then in one array; known before the second is read.
            allowance.take(2 * count * raster.size, raster.nbytes)
        rasters.append(check_samples(f"{name}, sample {index}", raster[None]).spikes[0])
        labels.append(label)
        if rasters[-1].shape != rasters[0].shape:
            raise ArtefactError(
                f"{name}: sample {index} has shape {rasters[-1].shape}, sample 0 "
                f"{rasters[0].shape}. Bin all samples to the same T."
            )
    known = [label for label in labels if label is not None]
    if known and len(known) != count:
        raise ArtefactError(f"{name}: {count - len(known)} of {count} samples have no label.")
    spikes = np.stack(rasters)
    spikes.flags.writeable = False
    return check_samples(name, spikes, np.asarray(known) if known else None)
