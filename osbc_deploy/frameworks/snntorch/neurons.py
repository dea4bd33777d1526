"""The families of snnTorch, each with the equation of its step in the order snnTorch computes it.

Source of the equations: ``snntorch/_neurons`` of snnTorch 1.0.0. A neuron fires where
``mem - threshold > 0``. Its reset acts one step late, from the potential that fired, unless
``reset_delay`` is off; by subtraction the threshold then comes off the potential that has decayed
once more. Where a reset to zero is late, most families clear the potential after the input of that
step was added to it, so that input is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from typing_extensions import Self

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, Reset, State, Where

__all__ = [
    "Lapicque",
    "Leaky",
    "LeakyIntegrator",
    "RLeaky",
    "RSynaptic",
    "Synaptic",
    "SynapticIntegrator",
]

_LOST_INPUT = (
    "snnTorch sets the potential to 0 one step late and loses the input of that step with it"
)
_AT_ONCE = (
    "where the potential is still above the threshold after a reset, snnTorch takes the threshold "
    "off once more, or gives it back if the neuron does not fire again"
)
_NO_MEMORY = (
    "where nothing is kept of the potential (beta is 0), snnTorch takes the threshold off the next "
    "step's input"
)


def _zero() -> FloatArray:
    return np.zeros(())


@dataclass(frozen=True, eq=False)
class _Late(Neuron):
    """What the spiking families share: the order of a step, and the reset as the chip does it."""

    @property
    def v_init(self) -> FloatArray:
        return np.zeros(())

    def with_threshold(self, factor: float) -> Self:
        p = self.parameters
        changed = {name: factor * p[name] for name in ("v_threshold", "v_subtract")}
        return replace(self, **changed)

    def _rule(self, reset: str, when: str, threshold: FloatArray, *, lost: bool) -> Reset:
        """Return the reset; `lost` says whether a late one to zero takes the input with it."""
        if reset == "none":
            return Reset("none")
        if reset == "zero":
            return Reset("zero", differs=_LOST_INPUT if lost and when == "late" else "")
        if when == "at once":
            return Reset("subtract", threshold, differs=_AT_ONCE)
        kept = self.dynamics().decay_v
        threshold = threshold.astype(np.float64)
        kept, threshold = np.broadcast_arrays(kept, threshold)
        amount = np.divide(threshold, kept, out=threshold.copy(), where=kept > 0)
        return Reset("subtract", amount, differs="" if (kept > 0).all() else _NO_MEMORY)

    def _fired(self, p: State, v: Any) -> Any:
        return v - p["v_threshold"] > 0

    def _lowered(self, p: State, before: Any, v: Any, where: Where) -> Any:
        """Return the new potential after the late reset of those that fired a step before."""
        options = self.options
        if options["reset"] == "subtract":
            return where(before, v - p["v_subtract"], v)
        return where(before, 0.0 * v, v) if options["reset"] == "zero" else v

    def _after(self, p: State, before: Any, v: Any, where: Where) -> tuple[Any, State]:
        """Return the spikes, and the potential after a reset without delay."""
        s = self._fired(p, v)
        options = self.options
        if options.get("when") != "at once" or options["reset"] == "none":
            return s, {"v": v}
        taken = p["v_subtract"] if options["reset"] == "subtract" else v
        return s, {"v": where(s & ~before, v - taken, where(before & ~s, v + taken, v))}


def _added(v: Any, x: tuple[Any, Any]) -> Any:
    """Add what comes forward, then what feeds back, as far as there is any."""
    for current in x:
        v = v if current is None else v + current
    return v


@dataclass(frozen=True, eq=False)
class Leaky(_Late):
    """First-order leaky integrate-and-fire (snnTorch's Leaky).

    ``v = beta v + x - r v_subtract`` with ``r`` the spike of the step before, or, with the reset
    "zero", ``v = beta (1 - r) v + x``; spike where ``v - v_threshold > 0``. With `when` "at once"
    the difference between this spike and ``r`` is then taken off as well.

    Attributes
    ----------
    beta : ndarray
        Part of the potential that is kept per step, in [0, 1].
    v_threshold : ndarray
    v_subtract : ndarray
        What a late subtraction takes off: the threshold, which snnTorch rounds to single precision
        in a model of double precision.
    v_reset : ndarray
        Always 0.
    reset : {"subtract", "zero", "none"}
    when : {"late", "at once"}
    """

    beta: FloatArray
    v_threshold: FloatArray
    v_subtract: FloatArray
    reset: str = "subtract"
    when: str = "late"
    v_reset: FloatArray = field(default_factory=_zero)

    states: ClassVar[tuple[str, ...]] = ("v",)
    equation: ClassVar[str] = "v = beta v + x - r v_threshold"

    def dynamics(self) -> LinearDynamics:
        one = np.ones(())
        return LinearDynamics(None, self.beta.astype(np.float64), one, np.zeros(()))

    def reset_rule(self) -> Reset:
        return self._rule(self.reset, self.when, self.v_threshold, lost=False)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        before = self._fired(p, v)
        if self.reset == "zero":
            v = p["beta"] * where(before, 0.0 * v, v) + x
        else:
            v = self._lowered(p, before, p["beta"] * v + x, where)
        return self._after(p, before, v, where)


@dataclass(frozen=True, eq=False)
class RLeaky(Leaky):
    """:class:`Leaky` that hears itself (snnTorch's RLeaky).

    ``v = beta v + x + feedback - r v_subtract``; the reset "zero" gives ``v = 0`` in the step after
    a spike.
    """

    feedback_apart: ClassVar[bool] = True
    equation: ClassVar[str] = "v = beta v + x + feedback - r v_threshold"

    def reset_rule(self) -> Reset:
        return self._rule(self.reset, self.when, self.v_threshold, lost=True)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        before = self._fired(p, state["v"])
        v = self._lowered(p, before, _added(p["beta"] * state["v"], x), where)
        return self._after(p, before, v, where)


@dataclass(frozen=True, eq=False)
class Synaptic(_Late):
    """Second-order leaky integrate-and-fire (snnTorch's Synaptic).

    ``u = alpha u + x``; ``v = beta v + u - r v_subtract``, or ``v = 0`` where ``r`` with the reset
    "zero"; otherwise as :class:`Leaky`.
    """

    alpha: FloatArray
    beta: FloatArray
    v_threshold: FloatArray
    v_subtract: FloatArray
    reset: str = "subtract"
    when: str = "late"
    v_reset: FloatArray = field(default_factory=_zero)

    equation: ClassVar[str] = "u = alpha u + x; v = beta v + u - r v_threshold"

    def dynamics(self) -> LinearDynamics:
        return LinearDynamics(
            self.alpha.astype(np.float64),
            self.beta.astype(np.float64),
            np.ones(()),
            np.zeros(()),
        )

    def reset_rule(self) -> Reset:
        return self._rule(self.reset, self.when, self.v_threshold, lost=True)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        before = self._fired(p, state["v"])
        u = _added(p["alpha"] * state["u"], x if self.feedback_apart else (x, None))
        v = self._lowered(p, before, p["beta"] * state["v"] + u, where)
        s, after = self._after(p, before, v, where)
        return s, {"u": u, **after}


@dataclass(frozen=True, eq=False)
class RSynaptic(Synaptic):
    """:class:`Synaptic` that hears itself (snnTorch's RSynaptic).

    ``u = alpha u + x + feedback``.
    """

    feedback_apart: ClassVar[bool] = True
    equation: ClassVar[str] = "u = alpha u + x + feedback; v = beta v + u - r v_threshold"


@dataclass(frozen=True, eq=False)
class Lapicque(_Late):
    """Integrate-and-fire of an RC circuit (snnTorch's Lapicque).

    ``v = x R (1 / RC) dt + (1 - dt / RC) v - r v_subtract``, or ``v = 0`` where ``r`` with the
    reset "zero"; the reset is always late.

    Attributes
    ----------
    resistance : ndarray
        R.
    conductance : ndarray
        ``1 / (R C)``, as snnTorch rounds it.
    time_step : ndarray
        dt.
    kept : ndarray
        ``1 - dt / (R C)``, as snnTorch rounds it.
    """

    resistance: FloatArray
    conductance: FloatArray
    time_step: FloatArray
    kept: FloatArray
    v_threshold: FloatArray
    v_subtract: FloatArray
    reset: str = "subtract"
    v_reset: FloatArray = field(default_factory=_zero)

    states: ClassVar[tuple[str, ...]] = ("v",)
    equation: ClassVar[str] = "v = (dt / C) x + (1 - dt / RC) v - r v_threshold"

    def dynamics(self) -> LinearDynamics:
        gain = self.resistance.astype(np.float64) * self.conductance * self.time_step
        return LinearDynamics(None, self.kept.astype(np.float64), gain, np.zeros(()))

    def reset_rule(self) -> Reset:
        return self._rule(self.reset, "late", self.v_threshold, lost=True)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        before = self._fired(p, state["v"])
        driven = x * p["resistance"] * p["conductance"] * p["time_step"]
        v = self._lowered(p, before, driven + p["kept"] * state["v"], where)
        return self._after(p, before, v, where)


@dataclass(frozen=True, eq=False)
class LeakyIntegrator(Neuron):
    """A :class:`Leaky` whose potential is the answer: ``v = beta v + x``, and no reset."""

    beta: FloatArray

    spiking: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = ("v",)
    equation: ClassVar[str] = "v = beta v + x"

    @property
    def v_init(self) -> FloatArray:
        return np.zeros(())

    def dynamics(self) -> LinearDynamics:
        one = np.ones(())
        return LinearDynamics(None, self.beta.astype(np.float64), one, np.zeros(()))

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = p["beta"] * state["v"] + x
        return v, {"v": v}


@dataclass(frozen=True, eq=False)
class SynapticIntegrator(Neuron):
    """A :class:`Synaptic` whose potential is the answer: ``u = alpha u + x; v = beta v + u``."""

    alpha: FloatArray
    beta: FloatArray

    spiking: ClassVar[bool] = False
    equation: ClassVar[str] = "u = alpha u + x; v = beta v + u"

    @property
    def v_init(self) -> FloatArray:
        return np.zeros(())

    def dynamics(self) -> LinearDynamics:
        return LinearDynamics(
            self.alpha.astype(np.float64),
            self.beta.astype(np.float64),
            np.ones(()),
            np.zeros(()),
        )

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = p["alpha"] * state["u"] + x
        v = p["beta"] * state["v"] + u
        return v, {"u": u, "v": v}
