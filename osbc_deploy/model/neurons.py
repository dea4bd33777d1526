r"""What every neuron of the float network is: a linear system with a threshold.

With input `x[t]`, synaptic current `u`, membrane potential `v` and spike `s`, every family is an
instance of

.. math::

    u[t] &= (1 - \alpha_u)\, u[t-1] + x[t] \\
    v[t] &= (1 - \alpha_v)\, v[t-1] + g\, u[t] + \alpha_v v_{leak} \\
    s[t] &= v[t] > v_{threshold}, \qquad v[t] \leftarrow v_{reset} \text{ where } s[t]

which :meth:`Neuron.dynamics` and :meth:`Neuron.reset_rule` return for the stages that need the
equations only (the membrane kernel of the Hessian, the lowering to integers).

Parameters are arrays that broadcast to the shape of the population; the time step is already
in them (:math:`\alpha = dt / \tau`). The steps use arithmetic operators only, so they run on
torch tensors and on numpy arrays alike; `where` is the select function of the array library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from typing_extensions import Self

from osbc_deploy.arrays import FloatArray, frozen
from osbc_deploy.options.notation import Readout

__all__ = ["LinearDynamics", "Neuron", "Reset", "State", "Where", "leaky"]

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
class Reset:
    """What a spike does to the potential, right after it.

    Attributes
    ----------
    kind : {"zero", "subtract", "none"}
        Set it to ``v_reset``, take something away, or leave it as it is (which no chip can do: a
        population that needs it is simulated, never lowered).
    amount : ndarray or None
        What is taken away. A reset that acts one step late takes the threshold off the decayed
        potential, which is the threshold over ``decay_v`` right after the spike.
    differs : str
        Where the family's own reset is not exactly that: how, in a sentence. Empty if it is.
    """

    kind: Literal["zero", "subtract", "none"] = "zero"
    amount: FloatArray | None = None
    differs: str = ""


@dataclass(frozen=True, eq=False)
class Neuron:
    """Base of all neuron families; see the module's equations."""

    spiking: ClassVar[bool] = True
    equation: ClassVar[str] = ""
    states: ClassVar[tuple[str, ...]] = ("u", "v")
    """Names of the state arrays; `v` starts at `v_init`, all others at 0."""
    fires_at_threshold: ClassVar[bool] = False
    """Whether it fires at the threshold too, and not only above it."""
    memoryless: ClassVar[bool] = False
    """Whether a step leaves nothing for the next one, so that a reset makes no difference."""
    feedback_apart: ClassVar[bool] = False
    """Whether `step` takes a pair: the current of what comes forward, and of what feeds back. The
    two are added to the state one after the other where the framework does, since the order of a
    sum of three decides its last bit."""
    exact: ClassVar[bool] = False
    """Whether the weights into it are whole numbers that nothing may change."""

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
    def options(self) -> dict[str, str]:
        """What is chosen by a word, such as the kind of reset, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, str)}

    @property
    def v_init(self) -> FloatArray:
        """Membrane potential before the first step."""
        raise NotImplementedError

    def read_by(self, readout: Readout) -> tuple[Neuron, Readout]:
        """Return neurons that hold what a readout asks of their answer, and how these are read."""
        return self, readout

    def with_threshold(self, factor: float) -> Self:
        """Return these neurons with the distance from reset to threshold times `factor`."""
        p = self.parameters
        threshold = p["v_reset"] + factor * (p["v_threshold"] - p["v_reset"])
        return replace(self, v_threshold=threshold)  # type: ignore[call-arg]

    def dynamics(self) -> LinearDynamics:
        """Return the linear system of this neuron."""
        raise NotImplementedError

    def reset_rule(self) -> Reset:
        """Return what a spike does to the potential, as an option `reset` says; zero without."""
        if self.options.get("reset") == "subtract":
            return Reset("subtract", self.parameters["v_threshold"])
        return Reset()

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        """Advance one time step.

        Parameters
        ----------
        p : dict
            The parameters, converted to the array library in use.
        state : dict
            ``u`` and ``v`` after the last step, if the family has them.
        x : array
            Input current of this step; a pair of arrays if the currents of feedback stay apart.
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


def leaky(alpha_u: FloatArray | None, alpha_v: FloatArray, v_leak: FloatArray) -> LinearDynamics:
    """Return the dynamics of a neuron that leaks by `alpha_v` and takes as much of its input."""
    alpha_v = alpha_v.astype(np.float64)
    return LinearDynamics(
        decay_u=None if alpha_u is None else 1.0 - alpha_u.astype(np.float64),
        decay_v=1.0 - alpha_v,
        gain=alpha_v,
        drive=alpha_v * v_leak.astype(np.float64),
    )
