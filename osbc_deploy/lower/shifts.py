r"""Decays by a shift, chosen for the least error of the membrane.

A chip whose states lose :math:`2^{-k}` of themselves in a step answers to a spike with the kernel
:math:`c_{kl}(t) = \sum_{i \le t} q_k^{i+1} q_l^{t-i}`, :math:`q_k = 1 - 2^{-k}`: the current decays
before the membrane takes it, so one that keeps nothing passes nothing on. To its own spike, which
takes the threshold away, it answers with :math:`r_l(t) = q_l^t`. Of all pairs of shifts the one is
taken for which both together are closest to the float neuron's, each relative to its size, in the
mean square; c up to a gain, which thresholds take up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.model.graph import Population
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["Shifts", "shifts_for"]

_STEPS = 256
"""Steps over which kernels are compared."""
_DECIMALS = 9
"""Of an error: libraries differ in the last bits of a sum."""


@dataclass(frozen=True, eq=False)
class Shifts:
    """The shifts of a population, each array (n,).

    Attributes
    ----------
    current, membrane : ndarray of int
        k and l.
    gain : ndarray of float64
        What the chip's kernel is multiplied by to be the float neuron's.
    error, reset_error : ndarray of float64
        What is left between the two, and between the answers to a reset, relative to the float
        neuron's (root mean square).
    """

    current: IntArray
    membrane: IntArray
    gain: FloatArray
    error: FloatArray
    reset_error: FloatArray

    @property
    def dynamics(self) -> LinearDynamics:
        """The chip's own linear system."""
        kept = _kept(self.current)
        return LinearDynamics(kept, _kept(self.membrane), self.gain * kept, np.zeros(len(kept)))


def shifts_for(population: Population, most: int) -> Shifts:
    """Return the shifts, of 0 to `most`, that are closest to a float population."""
    own = population.neuron.dynamics()
    parts = [own.decay_v, own.gain] + ([] if own.decay_u is None else [own.decay_u])
    wide = [population.spread(p) for p in parts]
    kinds, which = np.unique(np.stack(wide), axis=1, return_inverse=True)
    found = [_closest(_kernel(*kind), _kernel(kind[0], 1.0), most) for kind in kinds.T]
    return Shifts(*(np.array(x)[which.ravel()] for x in zip(*found, strict=True)))


def _kept(shift: IntArray) -> FloatArray:
    return np.asarray(1.0 - 2.0 ** -shift.astype(np.float64))


def _kernel(decay_v: float, gain: float, decay_u: float | None = None) -> FloatArray:
    """Return the answer (T,) of a membrane to one spike."""
    u, v, answer = 1.0, 0.0, []
    for _ in range(_STEPS):
        v = decay_v * v + gain * u
        u = 0.0 if decay_u is None else decay_u * u
        answer.append(v)
    return np.array(answer)


def _closest(
    kernel: FloatArray, reset: FloatArray, most: int
) -> tuple[int, int, float, float, float]:
    """Return both shifts, the gain, and the relative errors of the closest kernels."""
    pairs, kernels, resets = _candidates(most)
    size, of_reset = math.fsum(kernel**2), math.fsum(reset**2)
    left = 1.0 - (kernels @ kernel) ** 2 / ((kernels**2).sum(axis=1) * size)
    left += ((resets - reset) ** 2).sum(axis=1) / of_reset
    best = int(np.round(left, _DECIMALS).argmin())
    mine = kernels[best]
    gain = math.fsum(kernel * mine) / math.fsum(mine**2)
    error = math.sqrt(math.fsum((kernel - gain * mine) ** 2) / size)
    return *pairs[best], gain, error, math.sqrt(math.fsum((reset - resets[best]) ** 2) / of_reset)


@cache
def _candidates(most: int) -> tuple[list[tuple[int, int]], FloatArray, FloatArray]:
    """Return all pairs of shifts, their answers to a spike and to a reset."""
    pairs = [(k, membrane) for k in range(1, most + 1) for membrane in range(most + 1)]
    kept = [(1.0 - 2.0**-k, 1.0 - 2.0**-membrane) for k, membrane in pairs]
    return (
        pairs,
        np.stack([_kernel(v, u, u) for u, v in kept]),
        np.stack([_kernel(v, 1.0) for _, v in kept]),
    )
