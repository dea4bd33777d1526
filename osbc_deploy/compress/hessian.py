r"""The Hessian of the membrane loss, from calibration spikes.

Changing the weights `w` of a neuron to `w'` changes the potential it would have without spiking
by :math:`M X (w - w')`, where `X (T, n_pre)` are its input spikes and `M (T, T)` is the causal
membrane kernel (Shi, Li, Ward-Cherrier 2025, arXiv 2506.03996). The squared change is quadratic
with the Hessian

.. math:: H = \mathrm{E}\,[2 (M X)^T (M X)].

`M X` is not built as a matrix product: filtering the spikes with the neuron's own linear
dynamics is the same thing in T steps. Poolings and patches are linear and act after the filter.
With the identity in place of `M` this is the Hessian of the input current of Optimal Brain
Compression (Frantar, Singh, Alistarh 2022).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.network.graph import AvgPool, Conv, Dense, Projection
from osbc_deploy.network.neurons import LinearDynamics

__all__ = ["membrane_hessian", "membrane_kernel", "membrane_trace", "patches", "pooled"]


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
    decay_u = 0.0 if dynamics.decay_u is None else float(np.mean(dynamics.decay_u))
    decay_v = float(np.mean(dynamics.decay_v))
    gain = float(np.mean(dynamics.gain))
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


def pooled(pool: AvgPool, maps: FloatArray) -> FloatArray:
    """Average-pool maps (m, C, H, W)."""
    (kh, kw), (sh, sw), (ph, pw) = pool.kernel, pool.stride, pool.padding
    padded = np.pad(maps, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    windows = sliding_window_view(padded, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]
    return np.asarray(windows.sum(axis=(-2, -1)) / pool.divisor)


def patches(conv: Conv, maps: FloatArray) -> FloatArray:
    """Unfold maps (m, C, H, W) into (groups, m * positions, fan_in), in the weights' order."""
    _, per_group, kh, kw = conv.weight.shape
    (sh, sw), (ph, pw), (dh, dw) = conv.stride, conv.padding, conv.dilation
    padded = np.pad(maps, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    reach = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    windows = sliding_window_view(padded, reach, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    m, channels, rows, cols = windows.shape[:4]
    grouped = windows.reshape(m, channels // per_group, per_group, rows, cols, kh, kw)
    ordered = grouped.transpose(1, 0, 3, 4, 2, 5, 6)
    return np.asarray(ordered.reshape(channels // per_group, m * rows * cols, -1))


def membrane_hessian(
    projection: Projection,
    dynamics: LinearDynamics | None,
    spikes: SpikeArray,
    *,
    batch_size: int = 16,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> FloatArray:
    """Accumulate the Hessian of one projection over calibration samples.

    Parameters
    ----------
    projection : Projection
    dynamics : LinearDynamics or None
        Of the postsynaptic neurons (OSBC); None for the input current (OBC).
    spikes : ndarray of uint8 (n, T, *pre shape)
        Presynaptic spikes.
    batch_size : int
        Samples held in floating point at a time.
    on_batch : callable
        Told the number of samples after each batch.

    Returns
    -------
    ndarray of float64 (groups, fan_in, fan_in)
        ``2 (M X)^T (M X)``, averaged over samples, time steps and patch positions.
    """
    connection = projection.connection
    groups = connection.groups if isinstance(connection, Conv) else 1
    hessian = np.zeros((groups, connection.fan_in, connection.fan_in))
    rows = 0
    for start in range(0, len(spikes), batch_size):
        trace = membrane_trace(dynamics, spikes[start : start + batch_size])
        x = _inputs(projection, trace.reshape(-1, *spikes.shape[2:]))
        rows += x.shape[1]
        for group in range(groups):
            hessian[group] += 2.0 * (x[group].T @ x[group])
        on_batch(min(batch_size, len(spikes) - start))
    return hessian / rows


def _inputs(projection: Projection, frames: FloatArray) -> FloatArray:
    """Return the rows (groups, m, fan_in) the weights are multiplied with."""
    if projection.pool is not None:
        frames = pooled(projection.pool, frames)
    connection = projection.connection
    if isinstance(connection, Dense):
        return frames.reshape(1, len(frames), -1)
    return patches(connection, frames)
