"""The families of SpikingJelly, with the equations of their steps in the order it computes them.

Source of the equations: ``spikingjelly/activation_based/neuron`` and the reference implementations
in ``spikingjelly/_ops`` of SpikingJelly 2.0.0. A neuron fires where ``v - v_threshold >= 0``, so
also exactly at the threshold, and is reset in the same step: to `v_reset` (a hard reset), or by
the threshold where its ``v_reset`` is None (a soft reset). The leak goes towards `v_reset`, that of
a CUBALIFNode towards 0. Each family but that has an integrator beside it, which never fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, State, Where

__all__ = [
    "CUBALIFNode",
    "IFIntegrator",
    "IFNode",
    "LIFIntegrator",
    "LIFNode",
    "ParametricLIFIntegrator",
    "ParametricLIFNode",
]


class _Charging(Neuron):
    """What has a potential that charges, and then fires or not."""

    states: ClassVar[tuple[str, ...]] = ("v",)

    def _charged(self, p: State, v: Any, x: Any) -> Any:
        """Return the potential after a step's input."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class _Node(_Charging):
    """What all nodes share; `v_reset` is 0 where the reset subtracts."""

    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str

    fires_at_threshold: ClassVar[bool] = True

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def _fired(self, p: State, v: Any, where: Where) -> tuple[Any, State]:
        s = v - p["v_threshold"] >= 0
        after = v - p["v_threshold"] if self.reset == "subtract" else p["v_reset"]
        return s, {"v": where(s, after, v)}

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        return self._fired(p, self._charged(p, state["v"], x), where)


@dataclass(frozen=True, eq=False)
class _Integrator(_Charging):
    """What never fires, so that its potential is the answer."""

    v_reset: FloatArray

    spiking: ClassVar[bool] = False

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = self._charged(p, state["v"], x)
        return v, {"v": v}


class _IF:
    """No leak: ``v = v + x``."""

    equation: ClassVar[str] = "v += x"

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(decay_u=None, decay_v=one, gain=one, drive=zero)

    def _charged(self, p: State, v: Any, x: Any) -> Any:
        return v + x


class _Leaky:
    """A leak towards `v_reset`, of the input as well where that is "decayed"."""

    v_reset: FloatArray
    input: str

    def _leaked(self, p: State, difference: Any) -> Any:
        """Return what of a difference is gone after a step."""
        raise NotImplementedError

    def _charged(self, p: State, v: Any, x: Any) -> Any:
        if self.input == "decayed":
            return v + self._leaked(p, x - (v - p["v_reset"]))
        return v - self._leaked(p, v - p["v_reset"]) + x


class _LIF(_Leaky):
    """A fixed time constant; see :class:`LIFNode`."""

    tau: FloatArray

    equation: ClassVar[str] = "v += (x - (v - v_reset)) / tau"

    def dynamics(self) -> LinearDynamics:
        return _leak(1.0 / self.tau.astype(np.float64), self.v_reset, self.input)

    def _leaked(self, p: State, difference: Any) -> Any:
        return difference / p["tau"]


class _ParametricLIF(_Leaky):
    """A learned leak; see :class:`ParametricLIFNode`."""

    leak: FloatArray

    equation: ClassVar[str] = "v += (x - (v - v_reset)) leak"

    def dynamics(self) -> LinearDynamics:
        return _leak(self.leak.astype(np.float64), self.v_reset, self.input)

    def _leaked(self, p: State, difference: Any) -> Any:
        return difference * p["leak"]


@dataclass(frozen=True, eq=False)
class IFNode(_IF, _Node):
    """Integrate-and-fire without leak: ``v = v + x``."""


@dataclass(frozen=True, eq=False)
class LIFNode(_LIF, _Node):
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


@dataclass(frozen=True, eq=False)
class ParametricLIFNode(_ParametricLIF, _Node):
    """Leaky integrate-and-fire with a learned leak: :class:`LIFNode` times `leak`, not over tau.

    Attributes
    ----------
    leak : ndarray
        The logistic function of the learned parameter: what leaks per step, in (0, 1).
    input : {"decayed", "added"}
    """

    leak: FloatArray
    input: str


@dataclass(frozen=True, eq=False)
class CUBALIFNode(_Node):
    """Leaky integrate-and-fire with a synaptic current (current-based).

    ``u = c_decay u + x``; ``v = v_decay v + u``.

    Attributes
    ----------
    c_decay, v_decay : ndarray
        What is kept of current and potential per step, in [0, 1].
    """

    c_decay: FloatArray
    v_decay: FloatArray

    states: ClassVar[tuple[str, ...]] = ("u", "v")
    equation: ClassVar[str] = "u = c_decay u + x; v = v_decay v + u"

    def dynamics(self) -> LinearDynamics:
        kept, one = self.v_decay.astype(np.float64), np.ones(())
        return LinearDynamics(self.c_decay.astype(np.float64), kept, one, np.zeros(()))

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = state["u"] * p["c_decay"] + x
        s, after = self._fired(p, state["v"] * p["v_decay"] + u, where)
        return s, {"u": u, **after}


@dataclass(frozen=True, eq=False)
class IFIntegrator(_IF, _Integrator):
    """An :class:`IFNode` that never fires (NonSpikingIFNode)."""


@dataclass(frozen=True, eq=False)
class LIFIntegrator(_LIF, _Integrator):
    """A :class:`LIFNode` that never fires (NonSpikingLIFNode)."""

    tau: FloatArray
    input: str


@dataclass(frozen=True, eq=False)
class ParametricLIFIntegrator(_ParametricLIF, _Integrator):
    """A :class:`ParametricLIFNode` that never fires."""

    leak: FloatArray
    input: str


def _leak(leak: FloatArray, v_reset: FloatArray, how: str) -> LinearDynamics:
    gain = leak if how == "decayed" else np.ones(())
    return LinearDynamics(None, 1.0 - leak, gain, leak * v_reset.astype(np.float64))
