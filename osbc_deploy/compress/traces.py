"""Spikes as a membrane sees them: filtered with the neuron's own linear dynamics."""

from __future__ import annotations

import numpy as np

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.sampling import constants
from osbc_deploy.model.neurons import LinearDynamics

__all__ = ["membrane_kernel", "membrane_trace", "shares_kernel"]


def membrane_kernel(dynamics: LinearDynamics, steps: int) -> FloatArray:
    """Return M (T, T): the potential at t caused by a unit input at s is ``M[t, s]``."""
    pulses = np.eye(steps)[:, :, None]
    return np.ascontiguousarray(membrane_trace(dynamics, pulses)[:, :, 0].T)


def membrane_trace(dynamics: LinearDynamics | None, spikes: FloatArray | SpikeArray) -> FloatArray:
    """Filter spikes (n, T, ...) with a neuron's linear dynamics: ``M X``.

    Neurons of one population share the filter; where their parameters differ, the mean is used
    (see :func:`shares_kernel`). None is the identity.
    """
    if dynamics is None:
        return spikes.astype(np.float64)
    decay_u, decay_v, gain = constants(dynamics)
    trace = np.empty(spikes.shape, np.float64)
    u = np.zeros(spikes.shape[:1] + spikes.shape[2:])
    v = np.zeros_like(u)
    for t in range(spikes.shape[1]):
        u = decay_u * u + spikes[:, t]
        v = decay_v * v + gain * u
        trace[:, t] = v
    return trace


def shares_kernel(dynamics: LinearDynamics) -> bool:
    """Tell whether all neurons of the population have the same membrane kernel."""
    parts = (dynamics.decay_u, dynamics.decay_v, dynamics.gain)
    return all(part is None or np.ptp(part) == 0 for part in parts)
