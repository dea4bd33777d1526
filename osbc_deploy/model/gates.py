"""Neurons that remember nothing: logic gates of spikes.

The sum of what arrives in a step decides whether a gate fires in that step. With whole weights that
is a Boolean function: an input or more of several (OR, which a max pooling of spikes is), all of
them (AND), some of them unless others fire (AND-NOT), none of them (NOR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from typing_extensions import Self

from osbc_deploy.arrays import FloatArray
from osbc_deploy.model.neurons import LinearDynamics, Neuron, State, Where

__all__ = ["Gate"]


@dataclass(frozen=True, eq=False)
class Gate(Neuron):
    """Fires in every step in which what arrives in it reaches the threshold.

    The weights into gates are whole numbers that mean what they are: nothing compresses them.

    Attributes
    ----------
    v_threshold : ndarray
        A whole number: how many inputs must fire more than inhibit. From 0 down, a gate fires when
        nothing arrives.
    """

    v_threshold: FloatArray

    equation: ClassVar[str] = "v = x"
    states: ClassVar[tuple[str, ...]] = ("v",)
    fires_at_threshold: ClassVar[bool] = True
    memoryless: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    @property
    def v_init(self) -> FloatArray:
        return np.zeros(())

    def with_threshold(self, factor: float) -> Self:
        return self

    def dynamics(self) -> LinearDynamics:
        one, zero = np.ones(()), np.zeros(())
        return LinearDynamics(None, zero, one, zero)

    def step(self, p: State, state: State, x: Any, where: Where) -> tuple[Any, State]:
        s = x >= p["v_threshold"]
        return s, {"v": where(s, 0 * x, x)}
