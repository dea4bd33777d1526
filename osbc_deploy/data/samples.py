"""Spike rasters and labels, checked once at the door."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray, SpikeArray, blocks, frozen
from osbc_deploy.data.npz import read_npz
from osbc_deploy.data.tensors import as_array
from osbc_deploy.errors import ArtefactError, UsageError, described, reason
from osbc_deploy.limits import Allowance

__all__ = ["Samples", "check_samples", "load_npz", "samples_from_dataset"]

_MOST_CLASSES = 2**31 - 1
_LIKE_LABELS = re.compile(
    r"(^|_)(y|gt|lbl|digits?)($|_)|label|target|class|truth|annot", re.IGNORECASE
)
"""Arrays of an archive that somebody may have meant as labels."""


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

    def shaped(self, shape: tuple[int, ...]) -> Samples:
        """Return the same samples with another shape of a time step, of as many inputs."""
        if shape == self.input_shape:
            return self
        spikes = self.spikes.reshape(*self.spikes.shape[:2], *shape)
        return Samples(self.name, frozen(spikes), self.labels)

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
    raster = as_array(f"{name}: spikes", spikes)
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
    given = as_array(f"{name}: labels", labels)
    if given.dtype.kind not in "buif":
        raise ArtefactError(
            f"{name}: labels are not numbers (dtype {given.dtype}). Number the classes from 0."
        )
    if given.shape != (count,):
        raise ArtefactError(
            f"{name}: labels have shape {given.shape}, needed ({count},), a class for each sample. "
            + _remedy(given, count)
        )
    wrong = ~np.isfinite(given) | (given != np.rint(given)) | (given < 0) | (given > _MOST_CLASSES)
    if wrong.any():
        first = int(wrong.argmax())
        raise ArtefactError(
            f"{name}: {int(wrong.sum())} of {count} labels are no class, such as {given[first]} of "
            f"sample {first}; whole numbers from 0 to {_MOST_CLASSES:,} are. Number the classes "
            "from 0, and leave samples without a class out."
        )
    return frozen(given, np.int64)


def _remedy(labels: NDArray[Any], count: int) -> str:
    if labels.shape[:1] != (count,) or labels.ndim != 2:
        return "Give as many labels as samples."
    if labels.shape[1] == 1:
        return "Leave the second axis out: labels[:, 0]."
    one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
    what = "They are one-hot" if one_hot else "If they are scores of the classes"
    return f"{what}: give labels.argmax(axis=1)."


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
    others = [key for key in names if _LIKE_LABELS.search(key.removesuffix(".npy"))]
    if "labels" not in found and others:
        raise ArtefactError(
            f"{path}: holds no array 'labels', but {', '.join(others[:20])}. Save the classes as "
            "'labels', or leave the other out."
        )
    return check_samples(str(path), found["spikes"], found.get("labels"))


def samples_from_dataset(name: str, dataset: Any, limit: int | None = None) -> Samples:
    """Collect samples of a torch Dataset.

    Items are ``spikes (T, ...)`` or ``(spikes, label)``; what a tuple holds behind the label, such
    as an index, is left out.

    Raises
    ------
    ArtefactError
        When it is no data set, an item cannot be read, or items do not belong together.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ArtefactError(
            f"{name}: a {type(dataset).__name__} is not a dataset; __len__ and __getitem__ are "
            "needed. Return a torch.utils.data.Dataset of (spikes (T, ...), label)."
        )
    try:
        length = len(dataset)
    except Exception as error:
        raise ArtefactError(
            f"{name}: its length cannot be told ({described(error)}). Return a "
            "torch.utils.data.Dataset with __len__ and __getitem__."
        ) from error
    count = length if limit is None else min(limit, length)
    if count == 0:
        raise ArtefactError(f"{name}: the dataset is empty, at least 1 sample is needed.")
    allowance = Allowance(name, remedy="Give fewer samples")
    rasters: list[SpikeArray] = []
    labels = []
    for index in range(count):
        try:
            item = dataset[index]
        except (Exception, SystemExit) as error:
            # Whatever the user's own code raises belongs to that sample.
            raise ArtefactError(
                f"{name}: reading sample {index} failed ({described(error)}). Items "
                "0 to len - 1 must be (spikes (T, ...), label)."
            ) from error
        raster, label = _parts(f"{name}, sample {index}", item)
        if not rasters:
            # Kept as bytes, one by one and then in one array; known before the second is read.
            allowance.take(2 * count * raster.size, raster.nbytes)
        rasters.append(check_samples(f"{name}, sample {index}", raster[None]).spikes[0])
        labels.append(None if label is None else as_array(f"{name}, label {index}", label))
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
    if len({label.shape for label in known}) > 1:
        raise ArtefactError(f"{name}: labels have shapes that differ. Give one class for each.")
    return check_samples(name, spikes, np.stack(known) if known else None)


def _parts(name: str, item: Any) -> tuple[NDArray[Any], Any]:
    """Return the spikes and the label of a sample; what a data set gives beside them is left."""
    if isinstance(item, tuple) or (isinstance(item, list) and len(item) == 2):
        if len(item) == 0:
            raise ArtefactError(f"{name}: is an empty tuple. Give (spikes (T, ...), label).")
        raster = as_array(name, item[0])
        label = item[1] if len(item) > 1 else None
        if isinstance(item, tuple) or label is None or np.ndim(label) < raster.ndim:
            return raster, label
    return as_array(name, item), None
