"""Published data sets of event cameras, read from their own files; nothing is downloaded.

=============  =========================================================================
nmnist         ``Train/<digit>/NNNNN.bin`` and ``Test/<digit>/NNNNN.bin``
cifar10dvs     ``<class>/cifar10_<class>_<number>.aedat`` (or ``.aedat4``)
dvs128gesture  ``user<NN>_<light>.aedat``, ``user<NN>_<light>_labels.csv``,
               ``trials_to_train.txt`` and ``trials_to_test.txt``
=============  =========================================================================

in the folder named or in one folder below it. N-MNIST and DVS128 Gesture come with a training and
a test part. CIFAR10-DVS does not: as in the literature, the first 90 % of every class train and the
last 10 % test, counted by the number in the file name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.data.events import (
    Events,
    bin_events,
    read_aedat2,
    read_aedat3,
    read_aedat4,
    read_nmnist,
)
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import DataError, NotFoundError, UsageError
from osbc_deploy.limits import HAND_WRITTEN, Allowance, array_bytes, read_text
from osbc_deploy.options import DatasetOptions
from osbc_deploy.plain_text import many
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["DATASETS", "DatasetRequest", "load_dataset"]

Part: TypeAlias = Literal["train", "test"]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
GESTURES = 11
_TRAIN_TENTHS = 9
"""Tenths of every class of CIFAR10-DVS that belong to the training part."""


@dataclass(frozen=True)
class Recording:
    """Where a sample is: a file, or an interval of one in microseconds."""

    path: Path
    interval: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """A data set: its sensor, its layout, and how its parts and recordings are found.

    Attributes
    ----------
    sensor : int
        Pixels along each side.
    layout : str
        What a folder must hold, for an error.
    holds : callable
        Whether a folder is the data set's.
    find : callable
        The recordings of a part, by class.
    read : callable
        The events of a file.
    """

    sensor: int
    layout: str
    holds: Callable[[Path], bool]
    find: Callable[[Path, Part], list[list[Recording]]]
    read: Callable[[Path], Events]


@dataclass(frozen=True)
class DatasetRequest(DatasetOptions):
    """What is asked of a data set.

    Attributes
    ----------
    name : str
        One of :data:`DATASETS`.
    root : Path
        Folder of its files.
    steps : int
        Time steps T of a sample.
    split : {"time", "number"}
        What they have the same of; see :func:`bin_events`.
    count_events : bool
        Count events; otherwise they are 1 where there is any.
    size : int or None
        Pixels along each side of a frame; the sensor's by default.
    samples_per_class : int or None
        Samples of each class for calibration, from the training part; None for all.
    test_samples_per_class : int or None
        The same from the test part.
    """

    name: str
    root: Path

    def _contradictions(self) -> Iterator[str]:
        if self.name not in DATASETS:
            yield f"dataset: {self.name!r} is not one of {', '.join(DATASETS)}."
            return
        sensor = DATASETS[self.name].sensor
        if self.size is not None and not 1 <= self.size <= sensor:
            yield f"size: {self.size} is outside 1 to {sensor}, the sensor of {self.name}."


def load_dataset(
    request: DatasetRequest, part: Part, *, seed: int = 0, progress: Progress = SILENT
) -> Samples:
    """Read samples of a data set, the same number of every class, from its files on disk.

    The classes take turns, so that the first samples are of all kinds. With a number per class,
    which ones are taken depends on `seed` alone; without, all are, in the order of their names.

    Parameters
    ----------
    request : DatasetRequest
    part : {"train", "test"}
    seed : int
    progress : Progress

    Returns
    -------
    Samples
        Spikes or counts (n, T, 2, size, size), OFF events before ON events, and labels.

    Raises
    ------
    UsageError
        When no class is there, one holds fewer recordings than asked, or tonic is missing. A folder
        that lacks some of the classes gives those it has.
    ArtefactError
        When a file is broken.
    """
    source = DATASETS[request.name]
    classes = source.find(_base(request, source), part)
    count = request.samples_per_class if part == "train" else request.test_samples_per_class
    chosen = _chosen(request.name, part, classes, count, seed)
    size = request.size or source.sensor
    shape = (len(chosen), request.steps, 2, size, size)
    asked = (
        f"{len(chosen)} {part} samples of {many(request.steps, 'step')} and {size} x {size} pixels"
    )
    remedy = "Ask for fewer steps, pixels or samples per class"
    Allowance(f"{request.name}: {asked}", error=UsageError, remedy=remedy).take(
        array_bytes(shape, 1)
    )
    spikes: IntArray = np.zeros(shape, np.int8 if request.count_events else np.uint8)
    labels = np.zeros(len(chosen), np.int64)
    # Several samples may lie in one file; each is read once.
    places: dict[Path, list[int]] = {}
    for place, (label, recording) in enumerate(chosen):
        places.setdefault(recording.path, []).append(place)
        labels[place] = label
    with task(progress, f"read {request.name} {part}", len(chosen)):
        for path, there in places.items():
            events = source.read(path)
            for place in there:
                interval = chosen[place][1].interval
                frames = bin_events(
                    events, request.steps, source.sensor, size, interval,
                    split=request.split, count=request.count_events,
                )  # fmt: skip
                if request.count_events and frames.max() > np.iinfo(spikes.dtype).max:
                    spikes = spikes.astype(np.int32)
                spikes[place] = frames
                progress.advance()
    spikes.flags.writeable = False
    return check_samples(f"{request.name}/{part}", spikes, labels)


def _base(request: DatasetRequest, source: Source) -> Path:
    root = request.root
    if not root.is_dir():
        raise NotFoundError(f"{root}: no such folder. Give the folder of {request.name}.")
    below = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *below):
        if source.holds(folder):
            return folder
    raise UsageError(
        f"{root}: is not the folder of {request.name}; needed in it, or in a folder below it: "
        f"{source.layout}. Extract the archives of the data set there."
    )


def _chosen(
    name: str, part: Part, classes: Sequence[Sequence[Recording]], count: int | None, seed: int
) -> list[tuple[int, Recording]]:
    if not any(classes):
        raise UsageError(f"{name}: the {part} part has no recordings. Extract it again.")
    # A copy may have some of the classes alone.
    least = count or 0
    short = [f"{k} holds {len(c)}" for k, c in enumerate(classes) if 0 < len(c) < least]
    if short:
        raise UsageError(
            f"{name}: the {part} part has too few recordings of a class ({', '.join(short)}), "
            f"{least} of each are needed. Ask for fewer samples per class."
        )
    picked = []
    for label, found in enumerate(classes):
        order = list(range(len(found)))
        if count is not None:
            rng = np.random.default_rng([seed % 2**32, label])
            order = sorted(rng.permutation(len(found))[:count].tolist())
        picked.append([(label, found[k]) for k in order])
    turns = zip_longest(*picked)
    return [sample for turn in turns for sample in turn if sample is not None]


def _nmnist(base: Path, part: Part) -> list[list[Recording]]:
    folders = [base / part.capitalize() / str(digit) for digit in range(10)]
    _present(folders)
    return [[Recording(path) for path in sorted(f.glob("*.bin"))] for f in folders]


def _cifar10dvs(base: Path, part: Part) -> list[list[Recording]]:
    folders = [base / name for name in CIFAR10_CLASSES]
    _present(folders)
    classes = []
    for folder in folders:
        found = sorted(folder.glob("*.aedat"), key=_number) or sorted(
            folder.glob("*.aedat4"), key=_number
        )
        border = len(found) * _TRAIN_TENTHS // 10
        kept = found[:border] if part == "train" else found[border:]
        classes.append([Recording(path) for path in kept])
    return classes


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else -1, path.name)


def _read_cifar10dvs(path: Path) -> Events:
    return read_aedat4(path) if path.suffix == ".aedat4" else read_aedat2(path)


def _gestures(base: Path, part: Part) -> list[list[Recording]]:
    listing = base / f"trials_to_{part}.txt"
    names = [line.strip() for line in _lines(listing) if line.strip()]
    files = [base / name for name in names]
    labels = [path.with_name(f"{path.stem}_labels.csv") for path in files]
    missing = [str(p) for p in (*files, *labels) if not _is_file(p)]
    if missing or not names:
        what = ", ".join(name[:200] for name in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise UsageError(
            f"{listing}: names {len(names)} recordings, {len(missing)} of their files are missing"
            f"{f' ({what})' if what else ''}. Extract the archive of the data set again."
        )
    classes: list[list[Recording]] = [[] for _ in range(GESTURES)]
    for path, csv in zip(files, labels, strict=True):
        for gesture, interval in _trials(csv):
            classes[gesture].append(Recording(path, interval))
    return classes


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # Such as a name that is too long.
        return False


def _trials(csv: Path) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield class, from 0, and interval of every line of a labels file after its title."""
    for number, line in enumerate(_lines(csv)[1:], start=2):
        if not line.strip():
            continue
        cells = line.split(",")
        whole = len(cells) == 3 and all(re.fullmatch("[0-9]{1,18}", c.strip()) for c in cells)
        gesture, start, stop = map(int, cells) if whole else (0, 0, 0)
        if not (1 <= gesture <= GESTURES and start < stop):
            raise DataError(
                f"{csv}: line {number} is {line.strip()[:80]!r}, needed class (1 to {GESTURES}), "
                "start and a later end in microseconds. Extract the archive of the data set again."
            )
        yield gesture - 1, (start, stop)


def _lines(path: Path) -> list[str]:
    try:
        text = read_text(path, most=HAND_WRITTEN)
        return text.removeprefix("\ufeff").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from error


def _present(folders: Sequence[Path]) -> None:
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if len(missing) == len(folders):
        raise NotFoundError(
            f"{', '.join(missing)}: no such folder. Extract the archives of the data set again."
        )


DATASETS = {
    "nmnist": Source(
        34,
        "Train/0 to Train/9 and Test/0 to Test/9 with .bin files",
        lambda folder: (folder / "Train").is_dir() or (folder / "Test").is_dir(),
        _nmnist,
        read_nmnist,
    ),
    "cifar10dvs": Source(
        128,
        "airplane, automobile, ... truck with .aedat files",
        lambda folder: any((folder / name).is_dir() for name in CIFAR10_CLASSES),
        _cifar10dvs,
        _read_cifar10dvs,
    ),
    "dvs128gesture": Source(
        128,
        "trials_to_train.txt, trials_to_test.txt and the .aedat and _labels.csv files they name",
        lambda folder: any((folder / f"trials_to_{p}.txt").is_file() for p in ("train", "test")),
        _gestures,
        read_aedat3,
    ),
}
"""Data sets by name."""
