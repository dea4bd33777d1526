"""Input and labels, validated once on input: spikes, whole numbers such as counts, real values."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import InputArray, IntArray, blocks, frozen
from osbc_deploy.data.npz import read_npz
from osbc_deploy.data.tensors import as_array
from osbc_deploy.errors import (
    ArtefactError,
    DataError,
    NotFoundError,
    UsageError,
    described,
    reason,
)
from osbc_deploy.limits import Allowance, array_bytes, is_there
from osbc_deploy.options.notation import InputKind

__all__ = ["Samples", "check_npz", "check_samples", "kind_of", "load_npz", "samples_from_dataset"]

_MOST_CLASSES = 2**31 - 1
_LARGEST = 2**24
"""Whole numbers up to here are exact in single precision, in which most models compute."""
_KINDS: dict[str, InputKind] = {"u": "spikes", "i": "integers", "f": "values"}
STATIC = "for images and the like without time, --repeat T (repeat=T) shows each for T steps"
"""What to do about data without time, as the end of a remedy."""
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
    spikes : ndarray (n, T, ...)
        n and T at least 1. Of uint8 where all are 0 or 1, of the smallest signed type where all
        are whole numbers, such as event counts, otherwise of float32.
    labels : ndarray of int64 (n,) or None
    """

    name: str
    spikes: InputArray
    labels: IntArray | None = None

    def __len__(self) -> int:
        return len(self.spikes)

    @property
    def kind(self) -> InputKind:
        """What the samples hold."""
        return kind_of(self.spikes)

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
        if self.kind == "spikes" and self.spikes.max(initial=0) <= 1:
            digest.update(np.packbits(self.spikes).tobytes())
        else:
            # Packed bits would tell no count from a spike.
            wide = "<f4" if self.kind == "values" else "<i8"
            for sample in self.spikes:
                digest.update(np.ascontiguousarray(sample, wide).tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


def kind_of(samples: InputArray) -> InputKind:
    """Return what checked samples hold, which their type tells."""
    return _KINDS[samples.dtype.kind]


def check_samples(name: str, spikes: Any, labels: Any = None, repeat: int | None = None) -> Samples:
    """Check samples and their labels and freeze them.

    Parameters
    ----------
    name : str
        What to call the data in an error.
    spikes : array_like (n, T, ...), or (n, ...) to be repeated
        Numbers or booleans, finite; whole numbers up to 2^24.
    labels : array_like (n,), optional
        Whole numbers, 0 or more.
    repeat : int, optional
        Time steps T for which samples without a time axis are shown ("direct coding").

    Raises
    ------
    ArtefactError
        For data of the wrong kind, shape or range.
    """
    raster = as_array(f"{name}: spikes", spikes)
    if raster.dtype.kind not in "buif":
        raise DataError(
            f"{name}: spikes are not numbers (dtype {raster.dtype}). Save a numeric array with "
            "shape (n, T, ...): 0 and 1, counts, or real values."
        )
    if repeat is not None and raster.ndim > 1:
        raster = _repeated(name, raster, repeat)
    if raster.ndim < 3:
        raise DataError(
            f"{name}: spikes have shape {raster.shape}, needed (n, T, ...) with at least 3 axes. "
            f"Put samples first and time second; {STATIC}."
        )
    if 0 in raster.shape:
        axis = ("n", "T")[raster.shape.index(0)] if raster.shape.index(0) < 2 else "a spatial axis"
        raise DataError(
            f"{name}: spikes have shape {raster.shape}: {axis} is 0, at least 1 is needed."
        )
    held = np.dtype(_smallest(name, raster))
    if held != np.uint8:
        # Beside what was given.
        remedy = "Give fewer samples or steps"
        Allowance(name, remedy=remedy).take(raster.nbytes, array_bytes(raster.shape, held.itemsize))
    return Samples(name, frozen(raster, held), _check_labels(name, labels, len(raster)))


def _repeated(name: str, raster: NDArray[Any], steps: int) -> NDArray[Any]:
    """Return samples (n, ...) shown again in every step: (n, T, ...)."""
    if not isinstance(steps, int) or steps < 1:
        raise UsageError(f"repeat: {steps!r} time steps, a whole number from 1 is needed.")
    shape = (len(raster), steps, *raster.shape[1:])
    # Kept in 4 bytes at most.
    Allowance(name, remedy="Give fewer samples or steps").take(array_bytes(shape, 4))
    return np.broadcast_to(raster[:, None], shape)


def _smallest(name: str, raster: NDArray[Any]) -> Any:
    """Return the type that tells what samples hold; see :class:`Samples`."""
    if raster.dtype.kind == "f" and not all(np.isfinite(b).all() for b in blocks(raster)):
        raise DataError(f"{name}: spikes hold NaN or infinite values. Bin the events again.")
    low, high = raster.min(), raster.max()
    whole = raster.dtype.kind != "f" or all((b == np.rint(b)).all() for b in blocks(raster))
    if whole and low >= 0 and high <= 1:
        return np.uint8
    if whole and low >= -_LARGEST and high <= _LARGEST:
        return next(t for t in (np.int8, np.int16, np.int32) if _holds(t, int(low), int(high)))
    largest = _LARGEST if whole else float(np.finfo(np.float32).max)
    if max(-float(low), float(high)) > largest:
        raise DataError(
            f"{name}: spikes range from {low:g} to {high:g}, "
            f"{'whole numbers' if whole else 'values'} to {largest:g} are taken. Scale them, and "
            "train on the same."
        )
    return np.float32


def _holds(kind: type[np.signedinteger[Any]], low: int, high: int) -> bool:
    return bool(np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def _check_labels(name: str, labels: Any, count: int) -> IntArray | None:
    if labels is None:
        return None
    given = as_array(f"{name}: labels", labels)
    if given.dtype.kind not in "buif":
        raise DataError(
            f"{name}: labels are not numbers (dtype {given.dtype}). Number the classes from 0."
        )
    if given.shape != (count,):
        raise DataError(
            f"{name}: labels have shape {given.shape}, needed ({count},), a class for each sample. "
            + _remedy(given, count)
        )
    wrong = ~np.isfinite(given) | (given != np.rint(given)) | (given < 0) | (given > _MOST_CLASSES)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{name}: {int(wrong.sum())} of {count} labels are not classes, such as {given[first]} "
            f"of sample {first}; a class is a whole number from 0 to {_MOST_CLASSES:,}. Number the "
            "classes from 0, and leave samples without a class out."
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


def check_npz(path: Path) -> None:
    """Refuse a file of samples that is not there.

    Raises
    ------
    NotFoundError
        When there is no such file.
    """
    if not is_there(path):
        raise NotFoundError(
            f"{path}: no such file. Give an .npz with 'spikes' (n, T, ...), or "
            "package.module:factory for a dataset."
        )


def load_npz(path: Path, repeat: int | None = None) -> Samples:
    """Read ``spikes`` (n, T, ...) and optional ``labels`` (n,) from an .npz file.

    Samples without a time axis are shown for `repeat` steps.

    Raises
    ------
    UsageError
        When the file does not exist.
    ArtefactError
        When it is not an .npz, holds pickled objects, has no ``spikes``, or needs more memory
        than allowed (:mod:`osbc_deploy.limits`).
    """
    check_npz(path)
    try:
        found, names = read_npz(path, ("spikes", "labels"))
    except ArtefactError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy each raise their own kinds for a damaged archive.
        raise DataError(
            f"{path}: cannot be read as .npz without pickle ({reason(error)}). Save plain numeric "
            "arrays with numpy.savez."
        ) from error
    if "spikes" not in found:
        raise DataError(
            f"{path}: holds no array 'spikes' (found: {', '.join(names[:20]) or 'nothing'}). Save "
            "it with numpy.savez(path, spikes=..., labels=...)."
        )
    others = [key for key in names if _LIKE_LABELS.search(key.removesuffix(".npy"))]
    if "labels" not in found and others:
        raise DataError(
            f"{path}: holds no array 'labels', but {', '.join(others[:20])}. Save the classes as "
            "'labels', or leave the others out."
        )
    return check_samples(str(path), found["spikes"], found.get("labels"), repeat)


def samples_from_dataset(name: str, dataset: Any, repeat: int | None = None) -> Samples:
    """Collect samples of a torch Dataset.

    Items are ``spikes (T, ...)`` or ``(spikes, label)``; what a tuple holds behind the label, such
    as an index, is left out. Spikes without a time axis are shown for `repeat` steps.

    Raises
    ------
    ArtefactError
        When it is no data set, an item cannot be read, or items do not belong together.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{name}: a {type(dataset).__name__} is not a dataset; __len__ and __getitem__ are "
            "needed. Return a torch.utils.data.Dataset of (spikes (T, ...), label)."
        )
    try:
        count = len(dataset)
    except Exception as error:
        raise DataError(
            f"{name}: its length cannot be told ({described(error)}). Return a "
            "torch.utils.data.Dataset with __len__ and __getitem__."
        ) from error
    if count == 0:
        raise DataError(f"{name}: the dataset is empty, at least 1 sample is needed.")
    allowance = Allowance(name, remedy="Give fewer samples")
    rasters: list[InputArray] = []
    labels = []
    width = 0
    for index in range(count):
        try:
            item = dataset[index]
        except (Exception, SystemExit) as error:
            # Whatever the user's own code raises belongs to that sample.
            raise DataError(
                f"{name}: reading sample {index} failed ({described(error)}). Items "
                "0 to len - 1 must be (spikes (T, ...), label)."
            ) from error
        raster, label = _parts(f"{name}, sample {index}", item)
        whose = f"{name}, sample {index}"
        checked = check_samples(whose, raster[None], repeat=None if repeat is None else 1)
        # Kept one by one and then in one array; known before the next is read.
        growth = max(0, checked.spikes.itemsize - width)
        allowance.take(2 * count * raster.size * growth, raster.nbytes)
        width += growth
        rasters.append(checked.spikes[0] if repeat is None else checked.spikes[0, 0])
        labels.append(None if label is None else as_array(f"{name}, label {index}", label))
        if rasters[-1].shape != rasters[0].shape:
            raise DataError(
                f"{name}: sample {index} has shape {rasters[-1].shape}, sample 0 "
                f"{rasters[0].shape}. Bin all samples to the same T and size."
            )
    known = [label for label in labels if label is not None]
    if known and len(known) != count:
        raise DataError(f"{name}: {count - len(known)} of {count} samples have no label.")
    spikes = np.stack(rasters)
    spikes.flags.writeable = False
    if len({label.shape for label in known}) > 1:
        raise DataError(f"{name}: labels have shapes that differ. Give one class for each.")
    return check_samples(name, spikes, np.stack(known) if known else None, repeat)


def _parts(name: str, item: Any) -> tuple[NDArray[Any], Any]:
    """Return the spikes and the label of a sample; what a data set gives beside them is left."""
    if isinstance(item, tuple) or (isinstance(item, list) and len(item) == 2):
        if len(item) == 0:
            raise DataError(f"{name}: is an empty tuple. Give (spikes (T, ...), label).")
        raster = as_array(name, item[0])
        label = item[1] if len(item) > 1 else None
        if isinstance(item, tuple) or label is None or np.ndim(label) < raster.ndim:
            return raster, label
    return as_array(name, item), None
