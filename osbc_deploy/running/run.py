"""Samples run on an image: outputs, classes, and how many are right, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from osbc_deploy.accuracy import check_labels
from osbc_deploy.arrays import IntArray, frozen
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import UsageError
from osbc_deploy.firmware import payloads_of
from osbc_deploy.firmware.machine import MACHINES, built
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.model.readout import NO_ANSWER, classes_of, decode
from osbc_deploy.options import RunOptions
from osbc_deploy.progress import SILENT, Progress, task
from osbc_deploy.running.runnable import Image

__all__ = ["ENGINE", "Ran", "picked", "places", "run_image"]

ENGINE = "engine"


@dataclass(frozen=True, eq=False)
class Ran:
    """What an image answered.

    Attributes
    ----------
    image : Image
    on : str
        ``engine``, or the name of a machine.
    samples : Samples
        Those that were run.
    payloads : ndarray of int (n, T, *input_shape)
        The same as the network's input takes them.
    output : ndarray of int32 (n, T, outputs)
        Spikes of the output, or its potentials.
    classes : ndarray of int (n,)
        ``NO_ANSWER`` where nothing speaks for any.
    differ : int or None
        Numbers of the output that are not the engine's; None where the engine ran.
    """

    image: Image
    on: str
    samples: Samples
    payloads: IntArray
    output: IntArray
    classes: IntArray
    differ: int | None = None

    @property
    def confusion(self) -> IntArray | None:
        """Samples by their label and the class they got, (classes, classes + 1).

        The last column counts those without an answer; None where the data have no labels.
        """
        labels, network = self.samples.labels, self.image.network
        if labels is None:
            return None
        known = classes_of(network.readout, network.output.size)
        found = np.zeros((known, known + 1), np.int64)
        # NO_ANSWER is the last column.
        np.add.at(found, (labels, self.classes), 1)
        return found

    @property
    def accuracy(self) -> float | None:
        """Share of samples that got their label; None where the data have none."""
        labels = self.samples.labels
        return None if labels is None else float(np.mean(self.classes == labels))

    @property
    def silent(self) -> int:
        """Samples without an answer."""
        return int(np.count_nonzero(self.classes == NO_ANSWER))


def run_image(
    image: Image,
    samples: Samples,
    on: str = ENGINE,
    *,
    time_limit: float = 1800.0,
    progress: Progress = SILENT,
) -> Ran:
    """Run samples on an image; a machine's outputs are compared with the engine's as well.

    Parameters
    ----------
    image : Image
    samples : Samples
    on : str
        ``engine``, or a machine of :data:`osbc_deploy.firmware.machine.MACHINES`.
    time_limit : float
        Seconds that a machine may take.
    progress : Progress

    Raises
    ------
    UsageError
        For samples that the network does not take, and a time limit that is none.
    ArtefactError
        For labels that no output stands for.
    BackendError
        For a machine that something is missing for, that fails, or is out of time.
    FidelityError
        When a current leaves the chip's range.
    """
    RunOptions(time_limit=time_limit)
    network = image.network
    payloads = payloads_of(network, samples)
    check_labels([samples], classes_of(network.readout, network.output.size))
    if on == ENGINE:
        output = run(network, payloads, progress=progress, title="run on the engine").output
        return _ran(image, on, samples, payloads, output)
    # What is missing here is reported before any work.
    with built(MACHINES[on]) as program:
        expected = run(network, payloads, progress=progress, title="run on the engine").output
        with task(progress, f"run on {on}", 1):
            output = program.run(image.loaded(), payloads, time_limit=time_limit).output
            progress.advance()
    return _ran(image, on, samples, payloads, output, int(np.count_nonzero(output != expected)))


def _ran(
    image: Image, on: str, samples: Samples, payloads: IntArray, output: IntArray,
    differ: int | None = None,
) -> Ran:  # fmt: skip
    network = image.network
    classes = decode(output, network.readout, spiking=network.output.spiking)
    return Ran(image, on, samples, payloads, output, classes, differ)


def places(text: str, count: int) -> list[int]:
    """Return the numbers of samples that a text such as ``0-9,17`` names, in its order.

    Raises
    ------
    UsageError
        When it is none, or names samples that are not there, or one of them twice.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash) and len(part) < 20):
            raise UsageError(
                f"pick: {part.strip()[:40]!r} is neither a sample's number nor a range. Give, "
                "for example, 0-9,17."
            )
        start, stop = int(first), int(last or first)
        if not start <= stop < count:
            raise UsageError(
                f"pick: {part.strip()} is outside 0 to {count - 1}, the samples given. Give "
                "numbers of samples, the smaller one of a range first."
            )
        found += range(start, stop + 1)
    if twice := [number for number, times in Counter(found).items() if times > 1]:
        # Each would count twice in every figure.
        raise UsageError(
            f"pick: {text[:40]} names sample {twice[0]} more than once. Name each sample once."
        )
    return found


def picked(samples: Samples, numbers: Sequence[int]) -> Samples:
    """Return some of the samples, in their order."""
    rows = np.asarray(numbers, np.int64)
    labels = None if samples.labels is None else frozen(samples.labels[rows])
    return Samples(samples.name, frozen(samples.spikes[rows]), labels)
