"""What a sweep found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from osbc_deploy.options import SweepOptions
from osbc_deploy.results import Result
from osbc_deploy.sweeping.front import Summary, summaries
from osbc_deploy.sweeping.grid import Point, points_of
from osbc_deploy.sweeping.study import Failure

__all__ = ["SweepResult"]


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Result):
    """All points of a sweep, in the order of the grid.

    Attributes
    ----------
    options : SweepOptions
    points : dict of dict
        What is kept of each deployment, by point.
    failures : dict of Failure
        The points without one.
    computed : int
        How many points were computed now; the rest was in the ledger.
    provenance : dict
        What was asked for, when and where, and the fingerprints of model and data.
    """

    options: SweepOptions
    points: Mapping[Point, Mapping[str, Any]]
    failures: Mapping[Point, Failure]
    computed: int
    provenance: Mapping[str, Any]

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """The configurations over their draws, in the order of the grid."""
        return tuple(summaries((p, self.points.get(p)) for p in points_of(self.options)))

    @property
    def labelled(self) -> bool:
        """Whether scores are accuracies, and not agreements with the float network."""
        return bool(self.provenance["test"]["labels"])
