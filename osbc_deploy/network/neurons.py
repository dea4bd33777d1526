r"""Neuron models of the float network.

One family per class, each with the equation of its step in the order the arithmetic is done;
that order matters, because a spike may hang on the last bit. With input `x[t]`, synaptic
current `u`, membrane potential `v` and spike `s`, every family is an instance of

.. math::

    u[t] &= (1 - \alpha_u)\, u[t-1] + x[t] \\
    v[t] &= (1 - \alpha_v)\, v[t-1] + g\, u[t] + \alpha_v v_{leak} \\
    s[t] &= v[t] > v_{threshold}, \qquad v[t] \leftarrow v_{reset} \text{ where } s[t]

which :meth:`Neuron.dynamics` returns for the stages that need the linear system only (the
membrane kernel of the Hessian, the lowering to integers).

Parameters are arrays that broadcast to the shape of the population; the time step is already
in them (:math:`\alpha = dt / \tau`). The steps use arithmetic operators only, so they run on
torch tensors and on numpy arrays alike; `where` is the select function of the array library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from typing_extensions import Self

from osbc_deploy.arrays import FloatArray, frozen

__all__ = ["IF", "LI", "LIF", "CubaLI", "CubaLIF", "LinearDynamics", "Neuron", "State"]

State = dict[str, Any]
Where = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, eq=False)
class LinearDynamics:
    """The linear part of a neuron: ``u = decay_u u + x``, ``v = decay_v v + gain u + drive``.

    Attributes
    ----------
    decay_u : ndarray or None
        Factor kept of the synaptic current per step, in [0, 1]; None where ``u = x``.
    decay_v : ndarray
        Factor kept of the membrane potential per step, in [0, 1].
    gain : ndarray
        Weight of the current in the membrane update.
    drive : ndarray
        Constant added to the membrane each step (leak towards a potential that is not 0).
    """

    decay_u: FloatArray | None
    decay_v: FloatArray
    gain: FloatArray
    drive: FloatArray


@dataclass(frozen=True, eq=False)
class Neuron:
    """Base of all neuron families; see the module's equations."""

    spiking: ClassVar[bool] = True
    equation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                object.__setattr__(self, field.name, frozen(value))

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """The numeric parameters by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, str)}

    @property
    def v_init(self) -> FloatArray:
        """Membrane potential before the first step."""
        raise NotImplementedError

    def with_threshold(self, factor: float) -> Self:
        """Return these neurons with the distance from reset to threshold times `factor`."""
        p = self.parameters
        threshold = p["v_reset"] + factor * (p["v_threshold"] - p["v_reset"])
        return replace(self, v_threshold=threshold)  # type: ignore[call-arg]

    def dynamics(self) -> LinearDynamics:
        """Return the linear system of this neuron."""
        raise NotImplementedError

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        """Advance one time step.

        Parameters
        ----------
        p : dict
            The parameters, converted to the array library in use.
        state : dict
            ``u`` and ``v`` after the last step, as far as the family has them.
        x : array
            Input current of this step.
        where : callable
            ``where(condition, a, b)`` of the array library.

        Returns
        -------
        output : array
            Spikes (bool) of a spiking family, the membrane potential of an integrator.
        state : dict
            The new state.
        """
        raise NotImplementedError


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
        return _leaky(None, self.alpha_v, self.v_leak)

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
        return _leaky(self.alpha_u, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = state["u"] + x
        v = state["v"] + p["alpha_v"] * ((p["v_leak"] - state["v"]) + u)
        s = v > p["v_threshold"]
        return s, {"u": u - p["alpha_u"] * u, "v": where(s, p["v_reset"], v)}


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
        return _leaky(None, self.alpha_v, self.v_leak)

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
        return _leaky(self.alpha_u, self.alpha_v, self.v_leak)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        u = state["u"] + x
        v = state["v"] + p["alpha_v"] * ((p["v_leak"] - state["v"]) + u)
        return v, {"u": u - p["alpha_u"] * u, "v": v}


def _leaky(alpha_u: FloatArray | None, alpha_v: FloatArray, v_leak: FloatArray) -> LinearDynamics:
    alpha_v = alpha_v.astype(np.float64)
    return LinearDynamics(
        decay_u=None if alpha_u is None else 1.0 - alpha_u.astype(np.float64),
        decay_v=1.0 - alpha_v,
        gain=alpha_v,
        drive=alpha_v * v_leak.astype(np.float64),
    )
