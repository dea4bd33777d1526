"""The families of SpikingJelly, with the equations of their steps in the order it computes them.

Source of the equations: ``spikingjelly/activation_based/neuron`` and the reference implementations
in ``spikingjelly/_ops`` of SpikingJelly 2.0.0. A neuron fires where ``v - v_threshold >= 0``, so
also exactly at the threshold, and is reset in the same step: to `v_reset` (a hard reset), or by
the threshold where its ``v_reset`` is None (a soft reset). The leak goes towards `v_reset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, Reset, State, Where

__all__ = ["IFNode", "LIFNode", "ParametricLIFNode"]


@dataclass(frozen=True, eq=False)
class _Node(Neuron):
    """What all nodes share; `v_reset` is 0 where the reset subtracts."""

    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str

    states: ClassVar[tuple[str, ...]] = ("v",)
    fires_at_threshold: ClassVar[bool] = True

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def reset_rule(self) -> Reset:
        return Reset("subtract", self.v_threshold) if self.reset == "subtract" else Reset()

    def _fired(self, p: State, v: Any, where: Where) -> tuple[Any, State]:
        s = v - p["v_threshold"] >= 0
        after = v - p["v_threshold"] if self.reset == "subtract" else p["v_reset"]
        return s, {"v": where(s, after, v)}


@dataclass(frozen=True, eq=False)
class IFNode(_Node):
    """Integrate-and-fire without leak: ``v = v + x``."""

    equation: ClassVar[str] = "v += x"

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(decay_u=None, decay_v=one, gain=one, drive=zero)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        return self._fired(p, state["v"] + x, where)


@dataclass(frozen=True, eq=False)
class LIFNode(_Node):
    """Leaky integrate-and-fire with a fixed time constant.

    ``v = v + (x - (v - v_reset)) / tau`` with the input "decayed", and
    ``v = v - (v - v_reset) / tau + x`` with the input "added".

    Attributes
    ----------
    tau : ndarray
        Time constant in steps.
    input : {"decayed", "added"}
    """

    tau: FloatArray
    input: str

    equation: ClassVar[str] = "v += (x - (v - v_reset)) / tau"

    def dynamics(self) -> LinearDynamics:
        return _leak(1.0 / self.tau.astype(np.float64), self.v_reset, self.input)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        if self.input == "decayed":
            v = v + (x - (v - p["v_reset"])) / p["tau"]
        else:
            v = v - (v - p["v_reset"]) / p["tau"] + x
        return self._fired(p, v, where)


@dataclass(frozen=True, eq=False)
class ParametricLIFNode(_Node):
    """Leaky integrate-and-fire with a learned leak: :class:`LIFNode` times `leak`, not over tau.

    Attributes
    ----------
    leak : ndarray
        The logistic function of the learned parameter: what leaks per step, in (0, 1).
    input : {"decayed", "added"}
    """

    leak: FloatArray
    input: str

    equation: ClassVar[str] = "v += (x - (v - v_reset)) leak"

    def dynamics(self) -> LinearDynamics:
        return _leak(self.leak.astype(np.float64), self.v_reset, self.input)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        if self.input == "decayed":
            v = v + (x - (v - p["v_reset"])) * p["leak"]
        else:
            v = v - (v - p["v_reset"]) * p["leak"] + x
        return self._fired(p, v, where)


def _leak(leak: FloatArray, v_reset: FloatArray, how: str) -> LinearDynamics:
    gain = leak if how == "decayed" else np.ones(())
    return LinearDynamics(None, 1.0 - leak, gain, leak * v_reset.astype(np.float64))
