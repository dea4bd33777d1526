"""Real handwritten digits, seen by a simulated event camera on three saccades.

scikit-learn's 1797 digits (Alpaydin, Kaynak 1998, 8x8 pixels) are drawn on a small sensor that
moves along the three sides of a triangle, as the camera that recorded N-MNIST did (Orchard,
Jayawant, Cohen, Thakor 2015). Each pixel compares the logarithm of its intensity with the level
of its last event and fires ON or OFF when the difference reaches its contrast threshold
(Lichtsteiner, Posch, Delbruck 2008); thresholds differ between pixels and there is background
activity. Events are binned into T binary frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, SpikeArray, frozen

__all__ = [
    "SENSOR",
    "SPLITS",
    "STEPS",
    "EventData",
    "calibration",
    "digits_events",
    "test",
    "train",
]

SPLITS = ("train", "calibration", "test")
STEPS = 15
SENSOR = (20, 20)

_CALIBRATION_PER_CLASS = 20
_TEST_PER_CLASS = 40
_SPLIT_SEED = 20150

_SUBSTEPS = 4
_PIXEL = 1.75
"""Sensor pixels per pixel of the digit."""
_AMPLITUDE = 2.0
"""Reach of a saccade in sensor pixels."""
_CORNERS = np.array([[-1.0, -0.5], [0.0, 1.0], [1.0, -0.5], [-1.0, -0.5]]) * _AMPLITUDE
_THRESHOLD = 0.35
"""Contrast threshold in units of log intensity."""
_MISMATCH = 0.05
_DARK = 0.1
"""Intensity of the background relative to full white."""
_NOISE = 0.001
"""Background events per pixel, polarity and frame."""
_GRID = 2.0**-20
"""Interpolation weights are multiples of it: the light is an exact sum, whoever adds it up."""
_DECIMALS = 6
"""Of the thresholds crossed. Where the sensor comes back to, their number is whole but for the last
bit of a logarithm, which no two processors agree on."""


@dataclass(frozen=True, eq=False)
class EventData:
    """Binned events.

    Attributes
    ----------
    spikes : ndarray of uint8 (n, T, 2, H, W)
        0 or 1; channel 0 is ON, 1 is OFF.
    labels : ndarray of int64 (n,)
        0 to 9.
    """

    spikes: SpikeArray
    labels: IntArray


def digits_events(split: str, seed: int = 0) -> EventData:
    """Return one of the three fixed, disjoint splits.

    Parameters
    ----------
    split : {"train", "calibration", "test"}
        Calibration has 20 and test 40 digits of every class, train the remaining 1197.
    seed : int
        Of the camera: pixel thresholds and background activity. The split does not depend on it.

    Raises
    ------
    ValueError
        For an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    return _recorded(split, seed)


def train() -> EventData:
    """Return the training split (for ``package.module:factory``)."""
    return digits_events("train")


def calibration() -> EventData:
    """Return the calibration split (for ``package.module:factory``)."""
    return digits_events("calibration")


def test() -> EventData:
    """Return the test split (for ``package.module:factory``)."""
    return digits_events("test")


@lru_cache(maxsize=len(SPLITS))
def _recorded(split: str, seed: int) -> EventData:
    images, labels = _digits()
    index = _split(labels)[split]
    return EventData(_events(images, index, seed), frozen(labels[index]))


def _digits() -> tuple[FloatArray, IntArray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.asarray(data.images) / 16.0, np.asarray(data.target, np.int64)


def _split(labels: IntArray) -> dict[str, IntArray]:
    rng = np.random.default_rng(_SPLIT_SEED)
    parts: dict[str, list[IntArray]] = {name: [] for name in SPLITS}
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        held = _CALIBRATION_PER_CLASS + _TEST_PER_CLASS
        parts["calibration"].append(members[:_CALIBRATION_PER_CLASS])
        parts["test"].append(members[_CALIBRATION_PER_CLASS:held])
        parts["train"].append(members[held:])
    # Mixed once more, so that the first samples of a split are not all of one class.
    return {name: rng.permutation(np.concatenate(part)) for name, part in parts.items()}


def _events(images: FloatArray, index: IntArray, seed: int) -> SpikeArray:
    """Return what the camera sees of some of the digits, which does not depend on the others."""
    threshold, background = _sensor(len(images), seed)
    images, spikes = images[index], background[index]
    path = _path()
    level = _log_intensity(images, path[0])
    for step, offset in enumerate(path[1:]):
        seen = _log_intensity(images, offset)
        crossings = np.trunc(np.round((seen - level) / threshold, _DECIMALS))
        level += crossings * threshold
        frame = step // _SUBSTEPS
        spikes[:, frame, 0] |= crossings > 0
        spikes[:, frame, 1] |= crossings < 0
    return frozen(spikes, np.uint8)


@lru_cache(maxsize=1)
def _sensor(count: int, seed: int) -> tuple[FloatArray, BoolArray]:
    """Return the thresholds (H, W) of the pixels and their background (n, T, 2, H, W)."""
    rng = np.random.default_rng(seed)
    threshold = _THRESHOLD * (1.0 + _MISMATCH * rng.standard_normal(SENSOR))
    return threshold, rng.random((count, STEPS, 2, *SENSOR), np.float32) < _NOISE


def _path() -> FloatArray:
    """Return the sensor's offsets (1 + T * substeps, 2) along the triangle, in pixels."""
    along = np.linspace(0.0, len(_CORNERS) - 1.0, STEPS * _SUBSTEPS + 1)
    stops = np.arange(len(_CORNERS))
    return np.stack([np.interp(along, stops, _CORNERS[:, axis]) for axis in (0, 1)], axis=1)


def _log_intensity(images: FloatArray, offset: FloatArray) -> FloatArray:
    """Return log intensity (n, H, W) of the digits moved by `offset` pixels."""
    rows, cols = (_interpolation(size, shift) for size, shift in zip(SENSOR, offset, strict=True))
    return np.asarray(
        np.log(_DARK + np.einsum("ya,nab,xb->nyx", rows, images, cols, optimize=True))
    )


def _interpolation(size: int, shift: float) -> FloatArray:
    """Return weights (size, 8) of linear interpolation from digit pixels to sensor pixels."""
    center = (np.arange(size) - (size - 1) / 2.0 - shift) / _PIXEL + 3.5
    distance = np.abs(center[:, None] - np.arange(8)[None])
    return np.asarray(np.rint(np.clip(1.0 - distance, 0.0, None) / _GRID) * _GRID)
