"""The families of norse, each with the equation of its step in the order norse computes it.

That order matters, because a spike may hang on the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, State, Where, leaky

__all__ = ["IF", "LI", "LIF", "CubaLI", "CubaLIF", "RecurrentLIF"]


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Leaky integrate-and-fire without synaptic current (norse's LIFBox).

    ``v = v + alpha_v ((x + v_leak) - v)``; spike where ``v > v_threshold``; then, by `reset`,
    ``v = v_reset`` ("zero") or ``v = v - v_threshold`` ("subtract").
    """

    alpha_v: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str = "zero"

    equation: ClassVar[str] = "v += alpha_v (x + v_leak - v)"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return leaky(None, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        v = v + p["alpha_v"] * (x + p["v_leak"] - v)
        s = v > p["v_threshold"]
        after = v - p["v_threshold"] if self.reset == "subtract" else p["v_reset"]
        return s, {"v": where(s, after, v)}


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """Leaky integrate-and-fire with a synaptic current (current-based; norse's LIF).

    ``u = u + x``; ``v = v + alpha_v ((v_leak - v) + u)``; spike where ``v > v_threshold``, then
    ``v = v_reset``; at the end of the step ``u = u - alpha_u u``.
    """

    alpha_u: FloatArray
    alpha_v: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray

    equation: ClassVar[str] = "u += x; v += alpha_v (v_leak - v + u); u -= alpha_u u"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return leaky(self.alpha_u, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = state["u"] + x
        v = state["v"] + p["alpha_v"] * ((p["v_leak"] - state["v"]) + u)
        s = v > p["v_threshold"]
        return s, {"u": u - p["alpha_u"] * u, "v": where(s, p["v_reset"], v)}


@dataclass(frozen=True, eq=False)
class RecurrentLIF(CubaLIF):
    """:class:`CubaLIF` that hears itself (norse's LIFRecurrent): ``u = (u + x) + feedback``."""

    feedback_apart: ClassVar[bool] = True
    equation: ClassVar[str] = "u += x + feedback; v += alpha_v (v_leak - v + u); u -= alpha_u u"

    def step(self, p: State, state: State, x: tuple[Any, Any], where: Where) -> tuple[Any, State]:
        u = state["u"]
        for current in x:
            u = u if current is None else u + current
        return super().step(p, {**state, "u": u}, 0.0, where)


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """Integrate-and-fire without leak: ``v = v + x``; spike where ``v > v_threshold``."""

    v_threshold: FloatArray
    v_reset: FloatArray

    equation: ClassVar[str] = "v += x"

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(decay_u=None, decay_v=one, gain=one, drive=zero)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"] + x
        s = v > p["v_threshold"]
        return s, {"v": where(s, p["v_reset"], v)}


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """Leaky integrator without synaptic current: ``v = v + alpha_v ((v_leak - v) + x)``."""

    alpha_v: FloatArray
    v_leak: FloatArray

    spiking: ClassVar[bool] = False
    equation: ClassVar[str] = "v += alpha_v (v_leak - v + x)"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return leaky(None, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"] + p["alpha_v"] * ((p["v_leak"] - state["v"]) + x)
        return v, {"v": v}


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """Leaky integrator with a synaptic current: :class:`CubaLIF` that never fires."""

    alpha_u: FloatArray
    alpha_v: FloatArray
    v_leak: FloatArray

    spiking: ClassVar[bool] = False
    equation: ClassVar[str] = "u += x; v += alpha_v (v_leak - v + u); u -= alpha_u u"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return leaky(self.alpha_u, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = state["u"] + x
        v = state["v"] + p["alpha_v"] * ((p["v_leak"] - state["v"]) + u)
        return v, {"u": u - p["alpha_u"] * u, "v": v}
