"""The 10,000 test digits of MNIST, seen by a camera like the one that saccade-MNIST was made with.

1250 test samples tell networks apart to half a point at best. These are eight times as many, and
no network was chosen by them. What that camera did is not written down: the path of this one was
fitted to 60 calibration samples whose digits could be recognized, and its threshold then raised
until as many events come as in all of those. Its pixels follow Lichtsteiner, Posch, Delbruck 2008,
as those of :mod:`osbc_deploy.bundled.digits` do.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

__all__ = ["mnist_events"]

STEPS = 15
SENSOR = 34

_CORNERS = np.array([[1.5, 1.1], [-1.5, -0.4], [1.5, -1.9], [1.4, 1.1]])
"""Of the triangle that the digit moves along, in pixels, rows first; one side takes 5 steps."""
_SUBSTEPS = 6
_THRESHOLD = 0.42
"""Of log intensity."""
_MISMATCH = 0.15
_DARK = 0.16
"""Intensity of the background relative to full white."""
_JITTER = 1.2
"""Digits lie up to so many pixels off the center."""
_NOISE = 0.001
"""Background events per pixel and step, all of them ON."""
_BATCH = 500


def mnist_events(folder: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return binary frames (10000, 15, 2312) and labels.

    Parameters
    ----------
    folder : Path
        With ``MNIST/raw/t10k-*``, as torchvision keeps them (LeCun, Cortes, Burges 1998).
    seed : int
        Of the camera, and of where the digits lie.
    """
    from torchvision.datasets import MNIST

    data = MNIST(str(folder), train=False)
    images = data.data.numpy().astype(np.float64) / 255.0
    rng = np.random.default_rng(seed)
    threshold = _THRESHOLD * (1.0 + _MISMATCH * rng.standard_normal((SENSOR, SENSOR)))
    offsets = rng.uniform(-_JITTER, _JITTER, (len(images), 2))
    frames = np.empty((len(images), STEPS, 2, SENSOR, SENSOR), np.uint8)
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        frames[part] = _seen(images[part], offsets[part], threshold)
        frames[part, :, 0] |= rng.random(frames[part, :, 0].shape) < _NOISE
    return frames.reshape(len(frames), STEPS, -1), data.targets.numpy()


def _seen(images: np.ndarray, offsets: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    frames = np.zeros((len(images), STEPS, 2, SENSOR, SENSOR), np.uint8)
    path = _path()
    level = _log_intensity(images, offsets + path[0])
    for step, moved in enumerate(path[1:]):
        crossings = np.trunc((_log_intensity(images, offsets + moved) - level) / threshold)
        level += crossings * threshold
        frames[:, step // _SUBSTEPS, 0] |= crossings > 0
        frames[:, step // _SUBSTEPS, 1] |= crossings < 0
    return frames


def _path() -> np.ndarray:
    """Return the digit's places (1 + T * substeps, 2): it starts and ends each side at rest."""
    sides = len(_CORNERS) - 1
    time = np.arange(1, STEPS * _SUBSTEPS // sides + 1) / (STEPS * _SUBSTEPS // sides)
    along = (1.0 - np.cos(np.pi * time)) / 2.0
    places = [_CORNERS[:1]]
    for start, stop in pairwise(_CORNERS):
        places.append(start + along[:, None] * (stop - start))
    return np.concatenate(places)


def _log_intensity(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return log intensity (n, H, W) of digits, each moved by its own offset (n, 2)."""
    rows, columns = (_interpolation(images.shape[1], offsets[:, axis]) for axis in (0, 1))
    return np.asarray(np.log(_DARK + rows @ images @ columns.transpose(0, 2, 1)))


def _interpolation(size: int, offsets: np.ndarray) -> np.ndarray:
    """Return weights (n, SENSOR, size) of linear interpolation."""
    center = np.arange(SENSOR)[None] - (SENSOR - size) / 2.0 - offsets[:, None]
    return np.asarray(np.clip(1.0 - np.abs(center[:, :, None] - np.arange(size)), 0.0, None))
