"""How output activity becomes a class."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import UsageError

__all__ = [
    "NO_ANSWER",
    "READOUTS",
    "Readout",
    "check_readout",
    "classes_of",
    "decode",
    "evidence",
    "readout_fault",
    "shared_answers",
    "votes",
]

Readout: TypeAlias = str
"""``sum``, ``last`` or ``max`` of each output over time, or ``vote:N``: the sum over time and over
N outputs in a row, which stand for one class together (SpikingJelly's VotingLayer, a population
code of snnTorch)."""

READOUTS = ("sum", "last", "max", "vote:N")

NO_ANSWER = -1
"""Class of a sample that no output says anything about."""


def readout_fault(readout: object, outputs: int | None = None) -> str:
    """Return what is wrong with a readout, of a network with so many outputs; "" if nothing is."""
    if readout in ("sum", "last", "max"):
        return ""
    kind, _, number = readout.partition(":") if isinstance(readout, str) else ("", "", "")
    if kind != "vote" or not (number.isascii() and number.isdigit() and len(number) <= 6):
        return f"readout: {str(readout)[:40]!r} must be one of {', '.join(READOUTS)}"
    if int(number) < 2:
        return f"readout: {readout} lets {int(number)} outputs vote for a class, at least 2 can"
    if outputs is not None and outputs % int(number):
        return f"readout: {readout} does not divide the network's {outputs} outputs"
    return ""


def check_readout(readout: Readout, outputs: int | None = None) -> None:
    """Refuse what is no readout, and votes that do not divide the outputs among the classes.

    Raises
    ------
    UsageError
    """
    if fault := readout_fault(readout, outputs):
        raise UsageError(f"{fault}. N is the number of outputs that stand for one class.")


def votes(readout: Readout) -> int:
    """Return how many outputs stand for one class; 1 unless they vote."""
    return int(readout.partition(":")[2] or 1)


def classes_of(readout: Readout, outputs: int) -> int:
    """Return how many classes the outputs tell apart."""
    return outputs // votes(readout)


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
    share = votes(readout)
    flat = output.reshape(*output.shape[:2], -1)
    whole = np.issubdtype(output.dtype, np.integer)
    wide: FloatArray | IntArray = flat.astype(np.int64) if whole else flat.astype(np.float64)
    if readout == "last":
        return wide[:, -1]
    if readout == "max":
        return np.asarray(wide.max(axis=1))
    total = np.asarray(wide.sum(axis=1))
    return total if share == 1 else total.reshape(len(total), -1, share).sum(axis=2)
