"""How output activity becomes a class."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import UsageError
from osbc_deploy.options.notation import Readout, outputs_per_class

__all__ = [
    "NO_ANSWER",
    "check_readout",
    "classes_of",
    "decode",
    "evidence",
    "readout_fault",
    "shared_answers",
]

NO_ANSWER = -1
"""Class of a sample that no output says anything about."""


def readout_fault(readout: Readout, outputs: int) -> str:
    """Return what is wrong with a readout of a network with this many outputs, "" if nothing is."""
    try:
        share = outputs_per_class(readout)
    except UsageError as error:
        return str(error)
    if outputs % share:
        return (
            f"readout: {readout} does not divide the network's {outputs} outputs. Give the number "
            "of outputs that stand for one class."
        )
    return ""


def check_readout(readout: Readout, outputs: int) -> None:
    """Refuse votes that do not divide the outputs among the classes.

    Raises
    ------
    UsageError
    """
    if fault := readout_fault(readout, outputs):
        raise UsageError(fault)


def classes_of(readout: Readout, outputs: int) -> int:
    """Return how many classes the outputs tell apart."""
    return outputs // outputs_per_class(readout)


def decode(output: FloatArray | IntArray, readout: Readout, *, spiking: bool) -> IntArray:
    """Turn output activity (n, T, outputs) into class numbers (n,).

    The class with the largest :func:`evidence` wins, the lower number on a tie. A sample without
    evidence gets :data:`NO_ANSWER`: its spiking outputs are silent wherever the readout looks, or
    the potentials of all outputs are one number. (A potential has no zero of its own, since rest
    and bias move it, so nothing but a difference between two outputs speaks for a class.)

    Parameters
    ----------
    output : ndarray (n, T, ...)
    readout : {"sum", "last", "max", "vote:N"}
    spiking : bool
        Whether `output` holds spikes; potentials otherwise.
    """
    found = evidence(output, readout)
    silent = (found == (0 if spiking else found[:, :1])).all(axis=1)
    # A single readout is the answer whatever its potential is.
    silent &= spiking or found.shape[1] > 1
    return np.where(silent, NO_ANSWER, found.argmax(axis=1))


def shared_answers(a: IntArray, b: IntArray) -> tuple[int, int]:
    """Compare the classes (n,) that two networks give the same samples.

    Returns
    -------
    same, answered : int
        Samples that get one class by both, and those that get a class by at least one: two
        networks that say nothing do not agree.
    """
    answered = (a != NO_ANSWER) | (b != NO_ANSWER)
    return int(np.count_nonzero(answered & (a == b))), int(np.count_nonzero(answered))


def evidence(output: FloatArray | IntArray, readout: Readout) -> FloatArray | IntArray:
    """Return what output activity (n, T, outputs) says for each class, (n, classes).

    The activity (spikes or membrane potential) is summed over time, taken at the last step, or
    its maximum over time is taken; votes are summed over time and the outputs of a class.
    """
    share = outputs_per_class(readout)
    flat = output.reshape(*output.shape[:2], -1)
    whole = np.issubdtype(output.dtype, np.integer)
    wide: FloatArray | IntArray = flat.astype(np.int64) if whole else flat.astype(np.float64)
    if readout == "last":
        return wide[:, -1]
    if readout == "max":
        return np.asarray(wide.max(axis=1))
    total = np.asarray(wide.sum(axis=1))
    return total if share == 1 else total.reshape(len(total), -1, share).sum(axis=2)
