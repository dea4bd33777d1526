r"""The Hessian of the membrane loss, from calibration spikes.

Changing the weights `w` of a neuron to `w'` changes the potential it would have without spiking
by :math:`M X (w - w')`, where `X (T, n_pre)` are its input spikes and `M (T, T)` is the causal
membrane kernel (Shi, Li, Ward-Cherrier 2025, arXiv 2506.03996). The squared change is quadratic
with the Hessian

.. math:: H = \mathrm{E}\,[2 (M X)^T (M X)].

Where the layers before are compressed already, the spikes `X'` that arrive are not those the
weights were trained for. The weights that bring the potential back,
:math:`\min_{w'} |M X' w' - M X w|^2`, need the cross term :math:`\mathrm{E}\,[2 (M X')^T (M X)]`
as well.

`M X` is not built as a matrix product: filtering the spikes with the neuron's own linear
dynamics is the same thing in T steps. Poolings and patches are linear and act after the filter.
With the identity in place of `M` this is the Hessian of the input current of Optimal Brain
Compression (Frantar, Singh, Alistarh 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from osbc_deploy.arrays import FloatArray, SpikeArray
from osbc_deploy.compress.rows import DEFAULT_MEMORY
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.network.graph import AvgPool, Conv, Dense, Projection
from osbc_deploy.network.neurons import LinearDynamics

__all__ = [
    "Moments",
    "groups_of",
    "membrane_kernel",
    "membrane_moments",
    "membrane_trace",
    "patches",
    "pooled",
    "shares_kernel",
]


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


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of what a module's weights see, filtered by its membrane kernel.

    With ``x (fan_in,)`` a filtered row of the inputs, ``y`` the same row in the float network, and
    ``m`` the filter's answer to a constant 1 (what a bias is multiplied with), averaged over
    samples, time steps and patch positions:

    Attributes
    ----------
    hessian : ndarray of float64 (groups, fan_in, fan_in)
        ``E[2 x x^T]``.
    cross : ndarray (groups, fan_in, fan_in) or None
        ``E[2 x y^T]``; None where x and y are the same.
    drift, float_drift : ndarray (groups, fan_in)
        ``E[2 m x]`` and ``E[2 m y]``.
    constant : float
        ``E[2 m m]``.
    rows : int
        How many rows were averaged.
    """

    hessian: FloatArray
    cross: FloatArray | None
    drift: FloatArray
    float_drift: FloatArray
    constant: float
    rows: int

    def __add__(self, other: Moments) -> Moments:
        """Return the moments over the rows of both."""
        rows = self.rows + other.rows
        a, b = self.rows / rows, other.rows / rows
        cross = None
        if self.cross is not None and other.cross is not None:
            cross = a * self.cross + b * other.cross
        return Moments(
            a * self.hessian + b * other.hessian,
            cross,
            a * self.drift + b * other.drift,
            a * self.float_drift + b * other.float_drift,
            a * self.constant + b * other.constant,
            rows,
        )

    def centred(self) -> tuple[FloatArray, FloatArray | None]:
        r"""Return `hessian` and `cross` less what a free bias can take.

        By completing the square: with `a` the drift, :math:`H - a a^T / E[2 m m]`.
        """
        drift = self.drift[:, :, None] / self.constant
        hessian = self.hessian - drift * self.drift[:, None, :]
        if self.cross is None:
            return hessian, None
        return hessian, self.cross - drift * self.float_drift[:, None, :]


def membrane_moments(
    afferents: Sequence[Projection],
    dynamics: LinearDynamics | None,
    spikes: Sequence[SpikeArray],
    reference: Sequence[SpikeArray] | None = None,
    *,
    batch_size: int = 16,
    memory: int = DEFAULT_MEMORY,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> Moments:
    """Accumulate the moments of all weights into one population, a batch of samples at a time.

    Parameters
    ----------
    afferents : sequence of Projection
        The projections into the population; their inputs are stacked in this order.
    dynamics : LinearDynamics or None
        Of the postsynaptic neurons (OSBC); None for the input current (OBC).
    spikes : sequence of ndarray of uint8, each (n, T, *pre shape)
        Presynaptic spikes of each afferent (those of a recurrent one a step late).
    reference : like `spikes`, optional
        The same in the float network, for the cross term.
    batch_size : int
        Samples filtered at a time.
    memory : int
        Bytes that the unfolded rows may take.
    on_batch : callable
        Told the number of samples after each batch.

    Returns
    -------
    Moments
    """
    groups = groups_of(afferents)
    fan_in = sum(p.connection.fan_in for p in afferents)
    hessian = np.zeros((groups, fan_in, fan_in))
    cross = None if reference is None else np.zeros_like(hessian)
    drift, float_drift = np.zeros((2, groups, fan_in))
    samples, steps = spikes[0].shape[:2]
    # A constant input at every step, seen through the membrane.
    ones = membrane_trace(dynamics, np.ones((1, steps)))[0]
    constant, rows = 0.0, 0
    for start in range(0, samples, batch_size):
        part = slice(start, min(start + batch_size, samples))
        seen = [membrane_trace(dynamics, s[part]) for s in spikes]
        meant = (
            None if reference is None else [membrane_trace(dynamics, s[part]) for s in reference]
        )
        weight = np.tile(ones, part.stop - start)
        for frames in _frame_batches(afferents, seen, memory):
            x = _stacked(afferents, seen, frames)
            positions = x.shape[1] // (frames.stop - frames.start)
            m = np.repeat(weight[frames], positions)
            rows += x.shape[1]
            constant += 2.0 * float(m @ m)
            y = x if meant is None else _stacked(afferents, meant, frames)
            for group in range(groups):
                hessian[group] += 2.0 * (x[group].T @ x[group])
                drift[group] += 2.0 * (m @ x[group])
                if cross is not None:
                    cross[group] += 2.0 * (x[group].T @ y[group])
                    float_drift[group] += 2.0 * (m @ y[group])
        on_batch(part.stop - start)
    if reference is None:
        float_drift = drift
    return Moments(
        hessian / rows,
        None if cross is None else cross / rows,
        drift / rows,
        float_drift / rows,
        constant / rows,
        rows,
    )


def groups_of(afferents: Sequence[Projection]) -> int:
    """Return the groups of outputs whose inputs are apart: those of a grouped convolution.

    Raises
    ------
    UnsupportedModelError
        When projections into one population share their weights differently.
    """
    found = {
        (isinstance(p.connection, Conv), getattr(p.connection, "groups", 1)) for p in afferents
    }
    if len(found) > 1:
        raise UnsupportedModelError(
            f"{afferents[0].post}: convolutions of different groups, or a convolution and a dense "
            "map, end in one population",
            [p.name for p in afferents],
            "Give it projections of one kind.",
        )
    return found.pop()[1]


def _frame_batches(
    afferents: Sequence[Projection], traces: Sequence[FloatArray], memory: int
) -> Iterator[slice]:
    """Cut the time steps of a batch so that their unfolded rows stay within memory."""
    frames = traces[0].shape[0] * traces[0].shape[1]
    wide = 0
    for projection, trace in zip(afferents, traces, strict=True):
        connection, shape = projection.connection, trace.shape[2:]
        if isinstance(connection, Dense):
            wide += 8 * connection.fan_in
        else:
            if projection.pool is not None:
                shape = projection.pool.output_shape(shape)
            _, height, width = connection.output_shape(shape)
            wide += 8 * connection.groups * connection.fan_in * height * width
    # Two copies while stacking, and two sides of the cross term.
    step = max(1, memory // (4 * wide))
    return (slice(start, min(start + step, frames)) for start in range(0, frames, step))


def _stacked(
    afferents: Sequence[Projection], traces: Sequence[FloatArray], frames: slice
) -> FloatArray:
    """Return the rows (groups, m, fan_in) that the weights of all afferents are multiplied with."""
    parts = [
        _inputs(p, trace.reshape(-1, *trace.shape[2:])[frames])
        for p, trace in zip(afferents, traces, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _inputs(projection: Projection, frames: FloatArray) -> FloatArray:
    """Return the rows (groups, m, fan_in) the weights are multiplied with."""
    if projection.pool is not None:
        frames = pooled(projection.pool, frames)
    connection = projection.connection
    if isinstance(connection, Dense):
        return frames.reshape(1, len(frames), -1)
    return patches(connection, frames)
