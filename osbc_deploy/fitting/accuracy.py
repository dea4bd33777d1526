"""Plans that lose no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from osbc_deploy.accuracy import lost_share
from osbc_deploy.arrays import IntArray
from osbc_deploy.data.samples import Samples
from osbc_deploy.errors import FidelityError, FitError
from osbc_deploy.fitting.search import Plan, front_over
from osbc_deploy.job import Job
from osbc_deploy.model.graph import Network
from osbc_deploy.model.readout import NO_ANSWER, decode
from osbc_deploy.model.simulate import simulate
from osbc_deploy.plain_text import many
from osbc_deploy.progress import Progress, task

__all__ = ["AccuracyLimit", "smallest"]


class AccuracyLimit:
    """Whether a network loses no more samples than allowed.

    The calibration samples and the evaluated ones must both keep it.

    Raises
    ------
    FidelityError
        When the float network classifies nothing that could be lost.
    """

    def __init__(self, job: Job, allowed: float) -> None:
        self.allowed = allowed + 1e-9
        self._job = job
        self._data = list({id(s): s for s in (job.typical, job.evaluated)}.values())
        self._before = [self._classes(job.network, s) for s in self._data]
        pairs = zip(self._data, self._before, strict=True)
        silent = [s.name for s, was in pairs if (was == NO_ANSWER).all()]
        if silent:
            raise FidelityError(
                f"accuracy drop: the float network gives no class to any sample of "
                f"{', '.join(silent)}, so none can be lost. Check its weights and data, or leave "
                "the limit out."
            )

    def _classes(self, network: Network, samples: Samples) -> IntArray:
        output = simulate(network, samples.spikes, exact=True).output
        return decode(output, self._job.readout, spiking=network.output.neuron.spiking)

    def drop(self, network: Network) -> float:
        """Return the share of samples that a network loses, of those that lose more."""
        return max(
            lost_share(was, self._classes(network, s), s.labels)
            for s, was in zip(self._data, self._before, strict=True)
        )


def smallest(
    feasible: Sequence[Plan], drop: Callable[[Plan], float], allowed: float, progress: Progress
) -> Plan:
    """Return the plan with the fewest words that loses no more accuracy than allowed.

    It is found by bisection, taking accuracy to grow as loss falls.

    Raises
    ------
    FitError
        When even the plan of least loss loses more.
    """
    front = front_over(feasible, "words")
    with task(progress, "accuracy", int(np.ceil(np.log2(len(front)))) + 1):
        best = drop(front[-1])
        progress.advance()
        if best > allowed:
            raise FitError(
                f"the best plan within the budget loses {best:.2%} of the samples, "
                f"{allowed:.2%} are allowed ({best - allowed:.2%} over{front[-1].fewer}). It takes "
                f"{many(front[-1].cores, 'core')}; allow more cores or memory, more bits, or a "
                "larger drop.",
                best - allowed,
            )
        low, high = -1, len(front) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if drop(front[middle]) <= allowed:
                high = middle
            else:
                low = middle
            progress.advance()
    return front[high]
