"""What a forward may make of its output over time, and which readout that is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.options.notation import Readout

__all__ = ["apart", "found_in", "readout_of"]

_READOUTS = {"each": "", "sum": "sum", "mean": "sum", "max": "max", "last": "last"}
"""How the classes are read, by the way in which an answer decodes the output."""


def found_in(
    answer: Sequence[FloatArray], output: FloatArray, constant: FloatArray, tolerance: float
) -> set[tuple[int, int, str]]:
    """Find an output (T, n, ...) in a forward's answer.

    Returns
    -------
    set of (part, axis, way)
        Which part of the answer it is, with which axis first, decoded how.
    """
    wanted = dict(_ways(output, constant))
    same = set()
    for part, values in enumerate(answer):
        turned = [values.swapaxes(0, 1)] if values.ndim > 1 else []
        turned += [np.moveaxis(values, -1, 0)] if values.ndim > 2 else []
        for axis, found in enumerate((values, *turned)):
            for way, expected in wanted.items():
                lead = 2 if way == "each" else 1
                if found.size != expected.size or not _alike(found, expected, lead):
                    continue
                given = _scaled(found) if way.endswith(":scaled") else found
                if not apart(given.reshape(expected.shape), expected, tolerance).any():
                    same.add((part, axis, way))
    return same


def apart(theirs: FloatArray, ours: FloatArray, tolerance: float) -> BoolArray:
    """Tell where values differ by more than a part of the largest."""
    scale = float(np.abs(ours).max(initial=0.0))
    return np.asarray(~(np.abs(theirs - ours) <= tolerance * scale))


def _alike(found: FloatArray, expected: FloatArray, lead: int) -> bool:
    """Tell whether two arrays have the same shape, one with axes of 1 between, or samples flat."""
    if [s for s in found.shape if s != 1] == [s for s in expected.shape if s != 1]:
        return True
    return found.shape[:lead] == expected.shape[:lead]


def _scaled(values: FloatArray) -> FloatArray:
    """Return values as parts of the largest."""
    return np.asarray(values / (np.abs(values).max(initial=0.0) or 1.0))


def _ways(output: FloatArray, constant: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield what an output (T, n, ...) could be decoded to, by name.

    What a layer adds once to a sum is in each step. A sum that is scaled so that its largest value
    is 1 stands for all multiples of it. Probabilities belong to the same class as what they are
    made of, and so does what a sigmoid or tanh makes of each value; so does a sum of logarithms of
    probabilities over time, which in each step are the outputs less what these have in common.
    """
    total = output.sum(0) - (len(output) - 1) * constant.astype(output.dtype)
    found = {
        "each": output,
        "sum": total,
        "mean": total / len(output),
        "max": output.max(0),
        "last": output[-1],
    }
    yield from found.items()
    yield "sum:scaled", _scaled(total)
    for way, values in found.items():
        if way != "each":
            yield f"{way}:sigmoid", 0.5 + 0.5 * np.tanh(0.5 * values)
            yield f"{way}:tanh", np.tanh(values)
    if output.ndim != 3:
        return
    for way, values in found.items():
        logarithms = _logarithms(values)
        yield f"{way}:log", logarithms
        yield f"{way}:softmax", np.exp(logarithms)
    steps = _logarithms(output)
    yield "sum:logs", steps.sum(0)
    yield "mean:logs", steps.mean(0)


def readout_of(found: Collection[str]) -> Readout:
    """Return how classes are read from an answer that is all of these; empty for all steps."""
    ways = {way.partition(":")[0] for way in found}
    return next((readout for way, readout in _READOUTS.items() if way in ways), "")


def _logarithms(values: FloatArray) -> FloatArray:
    """Return the logarithms of what a softmax over the last axis gives."""
    wide = values.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))
