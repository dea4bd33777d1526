r"""The families of the Neuromorphic Intermediate Representation, in forward Euler steps.

NIR (Pedersen et al., 2024, doi:10.1038/s41467-024-52259-9, and the docstrings of ``nir.ir.neuron``)
gives differential equations,

.. math::

    \tau_{syn} \dot u = w_{in} x - u, \qquad \tau_{mem} \dot v = (v_{leak} - v) + r u

and leaves the step to the reader. As most readers do, a step goes forward by dt, the synaptic
current first, so that a spike reaches the membrane in its own step; with
:math:`\alpha = dt / \tau`. A neuron fires where ``v > v_threshold``, strictly, as in NIR's
equations; then, by `reset`, ``v = v_reset`` ("zero") or ``v = v - v_threshold`` ("subtract").
The potential of leaky neurons starts at ``v_leak``, where it stays without input, and that of
integrators at ``v_reset``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, State, Where

__all__ = ["IF", "LI", "LIF", "CubaLI", "CubaLIF", "Threshold"]


def _dynamics(
    alpha_v: FloatArray, v_leak: FloatArray, gain: FloatArray, alpha_u: FloatArray | None = None
) -> LinearDynamics:
    wide = alpha_v.astype(np.float64)
    return LinearDynamics(
        decay_u=None if alpha_u is None else 1.0 - alpha_u.astype(np.float64),
        decay_v=1.0 - wide,
        gain=wide * gain,
        drive=wide * v_leak,
    )


def _fire(reset: str, p: State, v: Any, where: Where) -> tuple[Any, Any]:
    """Return the spikes, and the potential after the reset."""
    s = v > p["v_threshold"]
    return s, where(s, v - p["v_threshold"] if reset == "subtract" else p["v_reset"], v)


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """Integrate-and-fire: ``v = v + gain x`` with ``gain = dt r``."""

    gain: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str = "zero"

    equation: ClassVar[str] = "v += gain x"

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(None, one, self.gain.astype(np.float64), zero)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        s, v = _fire(self.reset, p, state["v"] + p["gain"] * x, where)
        return s, {"v": v}


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """Leaky integrate-and-fire: ``v = v + alpha_v ((v_leak - v) + r x)``."""

    alpha_v: FloatArray
    r: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str = "zero"

    equation: ClassVar[str] = "v += alpha_v (v_leak - v + r x)"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return _dynamics(self.alpha_v, self.v_leak, self.r)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        s, v = _fire(self.reset, p, v + p["alpha_v"] * ((p["v_leak"] - v) + p["r"] * x), where)
        return s, {"v": v}


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """Leaky integrate-and-fire with a synaptic current (current-based).

    ``u = u + alpha_u (w_in x - u)``; ``v = v + alpha_v ((v_leak - v) + r u)``.
    """

    alpha_u: FloatArray
    alpha_v: FloatArray
    w_in: FloatArray
    r: FloatArray
    v_leak: FloatArray
    v_threshold: FloatArray
    v_reset: FloatArray
    reset: str = "zero"

    equation: ClassVar[str] = "u += alpha_u (w_in x - u); v += alpha_v (v_leak - v + r u)"

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        gain = self.r * (self.alpha_u.astype(np.float64) * self.w_in)
        return _dynamics(self.alpha_v, self.v_leak, gain, self.alpha_u)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u, v = state["u"], state["v"]
        u = u + p["alpha_u"] * (p["w_in"] * x - u)
        s, v = _fire(self.reset, p, v + p["alpha_v"] * ((p["v_leak"] - v) + p["r"] * u), where)
        return s, {"u": u, "v": v}


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """Leaky integrator: :class:`LIF` that never fires."""

    alpha_v: FloatArray
    r: FloatArray
    v_leak: FloatArray

    spiking: ClassVar[bool] = False
    equation: ClassVar[str] = LIF.equation

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        return _dynamics(self.alpha_v, self.v_leak, self.r)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        v = state["v"]
        v = v + p["alpha_v"] * ((p["v_leak"] - v) + p["r"] * x)
        return v, {"v": v}


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """Leaky integrator with a synaptic current: :class:`CubaLIF` that never fires."""

    alpha_u: FloatArray
    alpha_v: FloatArray
    w_in: FloatArray
    r: FloatArray
    v_leak: FloatArray

    spiking: ClassVar[bool] = False
    equation: ClassVar[str] = CubaLIF.equation

    @property
    def v_init(self) -> FloatArray:
        return self.v_leak

    def dynamics(self) -> LinearDynamics:
        gain = self.r * (self.alpha_u.astype(np.float64) * self.w_in)
        return _dynamics(self.alpha_v, self.v_leak, gain, self.alpha_u)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u, v = state["u"], state["v"]
        u = u + p["alpha_u"] * (p["w_in"] * x - u)
        v = v + p["alpha_v"] * ((p["v_leak"] - v) + p["r"] * u)
        return v, {"u": u, "v": v}


@dataclass(frozen=True, eq=False)
class Threshold(Neuron):
    """Fires in every step in which its input exceeds the threshold, and remembers nothing."""

    v_threshold: FloatArray
    v_reset: FloatArray

    equation: ClassVar[str] = "v = x"
    memoryless: ClassVar[bool] = True

    @property
    def v_init(self) -> FloatArray:
        return self.v_reset

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(None, zero, one, zero)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        s = x > p["v_threshold"]
        return s, {"v": where(s, p["v_reset"], x)}
