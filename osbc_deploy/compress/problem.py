"""The problem of the weights into one population: what to approximate, and what an error costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.compress.damping import DampedHessian, damp
from osbc_deploy.compress.exact import product
from osbc_deploy.compress.hessian import groups_of
from osbc_deploy.compress.kernels import factorized, solve_many
from osbc_deploy.compress.moments import Moments
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.compress.support import least_squares, loss
from osbc_deploy.deviations import Deviation
from osbc_deploy.model.graph import Population, Projection

__all__ = ["LayerProblem", "pose", "settled_bias", "stacked_weights"]

_STILL = 1e-9
"""Share of an input's mean square that must be variation for it to be more than a bias."""


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """Weights to be approximated, with the Hessian of what they see.

    Attributes
    ----------
    afferents : tuple of Projection
        Into one population; their inputs are stacked.
    spiking : bool
        Whether the neurons behind them fire; a readout's potentials must share one scale.
    method : str
        "osbc", "obc" or "magnitude".
    blocks : ndarray of float64 (groups, rows, fan_in)
        What to approximate, one block for each group of a convolution; 0 where `original` is.
    hessian : ndarray (groups, fan_in, fan_in)
    damped : tuple of DampedHessian
    moments : Moments
    original : ndarray (groups, rows, fan_in)
        The float weights; other than `blocks` under the cross term.
    free_bias : bool
        Whether the bias makes up for what the weights leave.
    pull : float
        See :func:`pose`.
    deviations : tuple of Deviation
    full : bool
        Whether codes are all that two's complement holds, one more below zero than above.
    hold : float
        How many times the damping holds codes to the weights they stand for.
    """

    afferents: tuple[Projection, ...]
    spiking: bool
    method: str
    blocks: FloatArray
    hessian: FloatArray
    damped: tuple[DampedHessian, ...]
    moments: Moments
    original: FloatArray
    free_bias: bool
    pull: float
    deviations: tuple[Deviation, ...]
    full: bool = False
    hold: float = 1.0

    @property
    def name(self) -> str:
        """Names of the projections."""
        return " + ".join(p.name for p in self.afferents)

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(self.blocks.size)

    @property
    def compressible(self) -> bool:
        """Whether these weights were trained."""
        return all(p.compressible for p in self.afferents)

    @cached_property
    def given(self) -> BoolArray:
        """Which weights there are (groups, rows, fan_in): those that are 0 in the model stay so."""
        return np.not_equal(self.original, 0)

    @cached_property
    def targets(self) -> tuple[FloatArray, ...]:
        """Correlations of the live inputs with the potential, ``W H`` (rows, live), by group."""
        pairs = zip(self.blocks, self.damped, strict=True)
        return tuple(product(W[:, d.live], d.H) for W, d in pairs)

    @cached_property
    def whole(self) -> float:
        """The loss of removing all weights, damping included."""
        found = zip(self.blocks, self.damped, self.targets, strict=True)
        return sum((float((target * W[:, d.live]).sum()) for W, d, target in found), 0.0)

    @cached_property
    def undamped(self) -> float:
        """The loss of removing all weights, without what the damping adds."""
        found = zip(self.blocks, self.hessian, self.damped, strict=True)
        pulled = (float((_added(d, H) * W[:, d.live] ** 2).sum()) for W, H, d in found)
        return max(0.0, self.whole - sum(pulled))

    def lost(self, changed: Sequence[FloatArray] | FloatArray) -> float:
        """Return the loss of other weights, by group, relative to that of removing all."""
        total = 0.0
        for W, V, H, d, target in zip(
            self.blocks, changed, self.hessian, self.damped, self.targets, strict=True
        ):
            undamped = np.zeros_like(W)
            undamped[:, d.live] = target - _added(d, H) * W[:, d.live]
            total += float(loss(W, V, H, undamped).sum())
        return total / self.undamped if self.undamped > 0 else 0.0


def stacked_weights(afferents: Sequence[Projection]) -> FloatArray:
    """Return the weights into one population, (groups, rows, fan_in) in double precision."""
    groups = groups_of(afferents)
    return np.concatenate(
        [
            p.connection.weight.astype(np.float64).reshape(
                groups, len(p.connection.weight) // groups, -1
            )
            for p in afferents
        ],
        axis=2,
    )


def pose(
    afferents: Sequence[Projection],
    population: Population,
    moments: Moments,
    *,
    method: str = "osbc",
    damping: float = 0.03,
    free_bias: bool = False,
    pull: float = 1.0,
    space: Workspace | None = None,
) -> LayerProblem:
    r"""State the problem of one population's weights.

    Without a cross term the weights themselves are approximated. With it, what is approximated is
    :math:`w^* = (H' + \lambda)^{-1} (C + \lambda) w`, the weights that bring the float network's
    potential back from the spikes that arrive now, held to those there were; weights that are 0
    have no part in that. A free bias leaves the problem by completing the square
    (:meth:`.Moments.centred`).

    Parameters
    ----------
    afferents : sequence of Projection
    population : Population
        The neurons behind them.
    moments : Moments
    method : str
    damping : float
        Relative to the mean diagonal.
    free_bias : bool
        Whether the bias may be changed with the weights.
    pull : float
        :math:`\lambda` under the cross term, relative to the damping.
    space : Workspace
    """
    stacked = stacked_weights(afferents)
    hessian, cross = moments.centred() if free_bias else (moments.hessian, moments.cross)
    if free_bias:
        # An input that never varies leaves nothing but rounding: the bias can take its place.
        left, whole = (np.diagonal(H, axis1=1, axis2=2) for H in (hessian, moments.hessian))
        still = left <= _STILL * whole
        hessian[still[:, :, None] | still[:, None, :]] = 0.0
    damped = tuple(damp(H, damping) for H in hessian)
    blocks = stacked
    if cross is not None and method != "magnitude":
        blocks = np.stack(
            [
                _centre(W, C, H, d, pull, space)
                for W, C, H, d in zip(stacked, cross, hessian, damped, strict=True)
            ]
        )
    deviations = [
        Deviation(
            "compress",
            afferents[0].name,
            f"Hessian not positive definite; damping raised to {entry.damping:g}",
        )
        for entry in damped
        if entry.attempts > 1
    ]
    trained = [p.connection.weight for p in afferents if p.compressible]
    size = sum(weight.size for weight in trained)
    if zeros := size - sum(np.count_nonzero(weight) for weight in trained):
        text = f"{zeros:,} of {size:,} weights are zero in the model and stay zero"
        deviations.append(Deviation("compress", afferents[0].name, text))
    if moments.rows < moments.of:
        text = f"Hessian from {moments.rows:,} of {moments.of:,} rows, drawn with a seed"
        deviations.append(Deviation("compress", afferents[0].name, text))
    return LayerProblem(
        tuple(afferents),
        population.neuron.spiking,
        method,
        blocks,
        hessian,
        damped,
        moments,
        stacked,
        free_bias,
        pull,
        tuple(deviations),
    )


def _centre(
    W: FloatArray,
    C: FloatArray,
    H: FloatArray,
    d: DampedHessian,
    pull: float,
    space: Workspace | None,
) -> FloatArray:
    centre = np.array(W, np.float64)
    # What damping added pulls towards the weights as they were.
    added = _added(d, H)
    right = np.ascontiguousarray(product(C, W.T)[d.live] + (pull * added * W[:, d.live]).T)
    left = d.H + np.diag((pull - 1.0) * added)
    given = W[:, d.live] != 0
    if given.all():
        solve_many(factorized(left), right)
        centre[:, d.live] = right.T
    else:
        centre[:, d.live] = least_squares(W[:, d.live], left, given, space, right.T)
    return centre


def _added(d: DampedHessian, H: FloatArray) -> FloatArray:
    """Return what damping added to the diagonal of the live inputs."""
    return np.asarray(np.diagonal(d.H) - np.diagonal(H)[d.live])


def settled_bias(problem: LayerProblem, weights: FloatArray) -> FloatArray | None:
    """Return the bias that leaves no drift between the potentials, or None where it is fixed."""
    if not problem.free_bias:
        return None
    moments = problem.moments
    drift = (problem.original * moments.float_drift[:, None]).sum(axis=2)
    drift -= (weights * moments.drift[:, None]).sum(axis=2)
    own = problem.afferents[0].connection.bias
    start = 0.0 if own is None else own.astype(np.float64)
    return np.asarray(start + drift.reshape(-1) / moments.constant)
