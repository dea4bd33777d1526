"""The compiled engine's plans, kept as long as their networks, and laid out anew where that pays.

How spikes are best delivered depends on how often neurons fire, which is not known before a network
has run. Results do not hang on it.
"""

from __future__ import annotations

import time
from threading import Lock
from weakref import WeakKeyDictionary, ref

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.compiled import EnginePlan
from osbc_deploy.fixedpoint.maps import saved
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork
from osbc_deploy.fixedpoint.record import Activity, Traces

__all__ = ["LearningPlan", "plan_of"]

_PLANS: WeakKeyDictionary[
    FixedPointNetwork, dict[tuple[int, frozenset[str], bool], LearningPlan]
] = WeakKeyDictionary()


def plan_of(
    network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool
) -> LearningPlan:
    """Return the plan of a network, made once as long as the network lives."""
    plans = _PLANS.setdefault(network, {})
    if (peak, given, strict) not in plans:
        plans[peak, given, strict] = LearningPlan(network, peak, given, strict=strict)
    return plans[peak, given, strict]


class LearningPlan:
    """A plan that is made again when its network turns out to fire at another rate than assumed.

    Parameters
    ----------
    network, peak, given, strict
        As for :class:`.compiled.EnginePlan`.
    """

    def __init__(
        self, network: FixedPointNetwork, peak: int, given: frozenset[str], *, strict: bool
    ) -> None:
        # A plan is kept as long as its network, so it must not keep the network.
        self._network = ref(network)
        self._peak, self._given, self._strict = peak, given, strict
        begin = time.thread_time()
        self.plan = EnginePlan(network, peak, given, strict=strict)
        self._price = time.thread_time() - begin
        self._lost = 0.0
        self._learns = any(trade.spikes for trades in self.plan.trades.values() for trade in trades)
        self._lock = Lock()

    def batch(self, steps: int, most: int) -> int:
        """Return how many samples of this many steps are run in one call, `most` at most."""
        return self.plan.batch(steps, most)

    def run(self, signal: IntArray, traces: Traces) -> dict[str, Activity]:
        """Run samples (S, T, input size) and fill in what is wanted."""
        seen = self.plan.run(signal, traces)
        if self._learns and self._lock.acquire(blocking=False):
            try:
                self._learn(signal, traces, seen)
            finally:
                self._lock.release()
        return seen

    def _learn(self, signal: IntArray, traces: Traces, seen: dict[str, Activity]) -> None:
        """Make another plan once this one has lost the time that it takes to make one."""
        rates = {name: activity.rate for name, activity in seen.items()}
        rates |= {name: _rate(traces.spikes[name]) for name in traces.given}
        rates[INPUT] = _rate(signal)
        gains = {name: saved(trades, rates) for name, trades in self.plan.trades.items()}
        lost = sum(
            abs(gain) for name, gain in gains.items() if (gain > 0) != (name in self.plan.by_maps)
        )
        self._lost += 1e-9 * lost * signal.shape[0] * signal.shape[1]
        network = self._network()
        if network is not None and self._lost > self._price:
            self.plan = EnginePlan(
                network, self._peak, self._given, strict=self._strict, rates=rates
            )
            self._learns = False


def _rate(spikes: IntArray) -> float:
    return float(np.count_nonzero(spikes) / max(spikes.size, 1))
