"""The fixed-point network as data: integers only, in the chip's registers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, frozen
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.network.graph import INPUT, Pair, Readout, Shape, window_count

__all__ = [
    "INPUT",
    "FixedConnection",
    "FixedConv",
    "FixedDense",
    "FixedPointNetwork",
    "FixedPopulation",
    "FixedProjection",
]


@dataclass(frozen=True, eq=False)
class FixedDense:
    """Weight mantissas (n_post, n_pre) of a fully connected projection."""

    weight: IntArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.int16))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result; ValueError for a source of another size."""
        if math.prod(shape) != self.weight.shape[1]:
            raise ValueError(f"weights for {self.weight.shape[1]} inputs, source of {shape}")
        return (len(self.weight),)


@dataclass(frozen=True, eq=False)
class FixedConv:
    """Weight mantissas (c_out, c_in / groups, kh, kw) of a cross-correlation, zero padded."""

    weight: IntArray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen(self.weight, np.int16))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (c_out, rows, columns); ValueError for a source that does not fit."""
        channels, height, width = shape
        out, per_group, kh, kw = self.weight.shape
        if channels != per_group * self.groups or out % self.groups:
            raise ValueError(f"{per_group} channels in {self.groups} groups, source of {shape}")
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        rows, cols = window_count(height, kh, sh, ph, dh), window_count(width, kw, sw, pw, dw)
        return out, rows, cols


FixedConnection: TypeAlias = FixedDense | FixedConv


@dataclass(frozen=True, eq=False)
class FixedProjection:
    """A projection in integers: ``a = 2^weight_exp * sum(weight)`` over the active inputs.

    Attributes
    ----------
    name, pre, post : str
    connection : FixedDense or FixedConv
        Mantissas on the mixed-sign grid of `weight_bits`: multiples of
        ``2^(weight_mantissa_bits - weight_bits + 1)``.
    weight_bits : int
        Bits each synapse is stored in.
    weight_exp : int
        Exponent of the sum.
    """

    name: str
    pre: str
    post: str
    connection: FixedConnection
    weight_bits: int
    weight_exp: int

    @property
    def nonzero(self) -> int:
        """Number of weights that are not 0."""
        return int(np.count_nonzero(self.connection.weight))


@dataclass(frozen=True, eq=False)
class FixedPopulation:
    """Neurons in integers; every array holds one value per neuron, flattened.

    Attributes
    ----------
    name : str
    shape : tuple of int
    du, dv, vth : ndarray of int32 (n,)
        Current decay, membrane decay, threshold mantissa.
    bias_mant, bias_exp : ndarray of int32 (n,)
    u_init, v_init : ndarray of int32 (n,)
        Synaptic current and membrane potential before the first step.
    spiking : bool
        False for a readout whose potential is the answer.
    v_scale, v_offset : ndarray of float64 (n,)
        ``v_float = v_scale * v + v_offset``: how the integers relate to the float network.
    """

    name: str
    shape: Shape
    du: IntArray
    dv: IntArray
    vth: IntArray
    bias_mant: IntArray
    bias_exp: IntArray
    u_init: IntArray
    v_init: IntArray
    spiking: bool
    v_scale: FloatArray
    v_offset: FloatArray

    def __post_init__(self) -> None:
        for name in ("du", "dv", "vth", "bias_mant", "bias_exp", "u_init", "v_init"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int32))
        for name in ("v_scale", "v_offset"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def starts_silent(self) -> bool:
        """Whether the neurons stay at rest until their first input arrives."""
        return not (self.bias_mant.any() or self.u_init.any() or self.v_init.any())


@dataclass(frozen=True, eq=False)
class FixedPointNetwork:
    """A feed-forward network in the chip's integers.

    Time is each population's own: step t of a population is the step that sees the spikes its
    source fired at t. On the chip a projection delivers one step later, so population l (from 1)
    runs l steps behind the input; a population that does not start silent must be started then.

    Attributes
    ----------
    input_shape : tuple of int
    populations : tuple of FixedPopulation
        In the order activity flows; the last is the output.
    projections : tuple of FixedProjection
        One into each population, in the same order.
    formats : NumberFormats
    readout : str
        "sum", "last" or "max" over time of the output's spikes or potentials.
    """

    input_shape: Shape
    populations: tuple[FixedPopulation, ...]
    projections: tuple[FixedProjection, ...]
    formats: NumberFormats
    readout: Readout

    @property
    def output(self) -> FixedPopulation:
        """The population whose activity is the answer."""
        return self.populations[-1]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of a population or of the input."""
        shapes = {p.name: p.shape for p in self.populations}
        return shapes.get(name, self.input_shape)

    def outgoing(self, name: str) -> tuple[FixedProjection, ...]:
        """Return the projections out of a population."""
        return tuple(p for p in self.projections if p.pre == name)
