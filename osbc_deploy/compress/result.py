"""What the compression returns: codes and scales, and the network they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray, IntArray, frozen
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.work import Spent
from osbc_deploy.deviations import Deviation
from osbc_deploy.model.graph import Network

__all__ = ["CompressedNetwork", "CompressedProjection", "adapted"]


@dataclass(frozen=True, eq=False)
class CompressedProjection:
    """The compressed weights of one projection: ``weight = scale * codes``.

    Attributes
    ----------
    name : str
    codes : ndarray of int8, shape of the weight
        0 where pruned or rounded to zero.
    scale : ndarray of float64 (n_post or c_out,)
    bits : int
    kept : int
        Weights kept by pruning (a few of them may have the code 0).
    relative_loss : dict
        Loss over that of removing all weights: "pruned", and "total" after quantization. Empty
        where none was measured.
    selection : str
        How the mask was chosen: "none", "magnitude", "elimination", "hybrid", "forward", or the
        pattern it has.
    dead_inputs : int
        Inputs (of one output) never active in calibration.
    damping : float
        Added to the Hessian's diagonal, relative to its mean.
    curve : tuple of (float, float)
        Sparsity and relative loss predicted for it, as deep as the selection ranked; empty where
        nothing was selected.
    bias : ndarray of float64 (n_post or c_out,) or None
        In place of the projection's own, where it was recalibrated.
    threshold : float
        What the distance from reset to threshold of the neurons behind it is multiplied by.
    tried : dict of float
        Error of the network's output on held-out calibration samples, by variant tried; the first
        is the plain one.
    chosen : str
        The variant taken.
    pruned : ndarray, shape and dtype of the weight, or None
        The weights after pruning and before quantization, where they were kept.
    """

    name: str
    codes: IntArray
    scale: FloatArray
    bits: int
    kept: int
    relative_loss: Mapping[str, float]
    selection: str
    dead_inputs: int
    damping: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()
    bias: FloatArray | None = None
    threshold: float = 1.0
    tried: Mapping[str, float] = field(default_factory=dict)
    chosen: str = "plain"
    pruned: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", frozen(self.codes, np.int8))
        object.__setattr__(self, "scale", frozen(self.scale, np.float64))
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen(self.bias, np.float64))
        if self.pruned is not None:
            object.__setattr__(self, "pruned", frozen(self.pruned))

    @property
    def weight(self) -> FloatArray:
        """The weights the codes stand for."""
        shape = (-1,) + (1,) * (self.codes.ndim - 1)
        return self.codes * self.scale.reshape(shape)

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.codes))


@dataclass(frozen=True, eq=False)
class CompressedNetwork:
    """A float network with compressed weights.

    Attributes
    ----------
    original : Network
    projections : dict of CompressedProjection
        By projection name.
    options : CompressionOptions
    deviations : tuple of Deviation
    rates : dict of float
        Mean spikes per neuron and step in calibration, by population.
    spent : Spent or None
        What it was expected to take, and took; None where layers were put together afterwards.
    removed : dict of ndarray of bool (units,)
        By population, channels or neurons that were removed before weights were pruned.
    """

    original: Network
    projections: Mapping[str, CompressedProjection]
    options: CompressionOptions
    deviations: tuple[Deviation, ...]
    rates: Mapping[str, float]
    spent: Spent | None = None
    removed: Mapping[str, BoolArray] = field(default_factory=dict)

    @cached_property
    def network(self) -> Network:
        """The float network with the compressed weights, biases and thresholds."""
        return adapted(self.original, self.projections)

    @property
    def sparsity(self) -> float:
        """Share of all weights that are 0."""
        nonzero = sum(p.nonzero for p in self.projections.values())
        return 1.0 - nonzero / self.original.weights


def adapted(network: Network, layers: Mapping[str, CompressedProjection]) -> Network:
    """Return a network with the compressed weights, biases and thresholds of some projections."""
    changed = network.with_weights(
        {name: p.weight.astype(network.dtype) for name, p in layers.items()},
        {n: p.bias.astype(network.dtype) for n, p in layers.items() if p.bias is not None},
    )
    factors = {q.post: layers[q.name].threshold for q in network.projections if q.name in layers}
    return changed.with_neurons(
        {
            p.name: p.neuron.with_threshold(factors[p.name])
            for p in network.populations
            if factors.get(p.name, 1.0) != 1.0
        }
    )
