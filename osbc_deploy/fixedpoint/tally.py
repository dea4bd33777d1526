"""What happens to populations while the compiled engine runs, counted for some samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy

import numpy as np

from osbc_deploy.fixedpoint.record import Activity
from osbc_deploy.fixedpoint.sites import Site

__all__ = ["Tally"]


class Tally:
    """What populations go through: peaks of u and v, wraps, saturations (S, 4), and spikes (n,)."""

    def __init__(self, sites: Mapping[str, Site], cells: Collection[str], samples: int) -> None:
        self.sites = sites
        self.seen = {name: np.zeros((samples, 4), np.int64) for name in cells}
        self.counts = {name: np.zeros(sites[name].size, np.int32) for name in cells}

    def of(self, rows: slice) -> Tally:
        """Return what some of the samples add to."""
        part = copy(self)
        part.seen = {name: seen[rows] for name, seen in self.seen.items()}
        return part

    def activity(self, steps: int) -> dict[str, Activity]:
        """Return what the populations went through in this many steps of each sample."""
        return {name: self._activity(name, steps) for name in self.seen}

    def _activity(self, name: str, steps: int) -> Activity:
        seen = self.seen[name]
        u_peak, v_peak = seen[:, :2].max(axis=0, initial=0)
        wraps, saturations = seen[:, 2:].sum(axis=0)
        counts = self.sites[name].there(self.counts[name]).astype(np.int64)
        return Activity(
            int(counts.sum()),
            counts.size * len(seen) * steps,
            int(u_peak),
            int(v_peak),
            int(wraps),
            int(saturations),
            counts,
        )
