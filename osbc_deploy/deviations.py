"""Deviations: whatever was done differently from the plain request, for the report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Deviation"]


@dataclass(frozen=True)
class Deviation:
    """One thing a stage did that the user would want to know.

    Attributes
    ----------
    stage : str
        "import", "compress", "lower", "map" or "run".
    subject : str
        Layer, population or option concerned.
    message : str
        What happened, with numbers.
    """

    stage: str
    subject: str
    message: str
