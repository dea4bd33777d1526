"""Options with a notation of their own: which outputs give a class, what is removed together."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from osbc_deploy.errors import UsageError

__all__ = ["InputKind", "Readout", "outputs_per_class", "parsed_pattern", "removed_by"]

InputKind: TypeAlias = Literal["spikes", "integers", "values"]
"""What samples hold: 0 and 1, whole numbers such as event counts, or real values."""

Readout: TypeAlias = str
"""``sum``, ``last`` or ``max`` of each output over time, or ``vote:N``: the sum over time and over
N outputs in a row, which stand for one class together (SpikingJelly's VotingLayer, a population
code of snnTorch)."""


def outputs_per_class(readout: Readout) -> int:
    """Return how many outputs a readout lets vote for one class; 1 without a vote.

    Raises
    ------
    UsageError
        When it is not a readout.
    """
    if readout in ("sum", "last", "max"):
        return 1
    found = re.fullmatch(r"vote:([0-9]{1,6})", readout) if isinstance(readout, str) else None
    if not found or int(found[1]) < 2:
        raise UsageError(
            f"readout: {str(readout)[:40]!r} is not one of sum, last, max, or vote:N with N "
            "outputs for each class, 2 or more, such as vote:10."
        )
    return int(found[1])


def parsed_pattern(text: str) -> tuple[str, int, int]:
    """Return kind, N and M of ``weights``, ``inputs``, ``outputs`` or N:M such as ``2:4``.

    Raises
    ------
    UsageError
        When it is not one of them.
    """
    if text in ("weights", "inputs", "outputs"):
        return text, 0, 0
    found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", text)
    if not found or not 0 < int(found[1]) < int(found[2]):
        raise UsageError(
            f"pattern: {text[:80]!r} is not one of weights, inputs, outputs, or N:M with 0 < N < M "
            "of at most six digits, such as 2:4."
        )
    return "n:m", int(found[1]), int(found[2])


def removed_by(pattern: str) -> float | None:
    """Return the share of weights that N:M removes; None for a pattern that leaves it open."""
    kind, stay, of = parsed_pattern(pattern)
    return (of - stay) / of if kind == "n:m" else None
