"""What a memory model is asked about (a slice of a layer) and what it answers (its usage)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from osbc_deploy.arrays import BoolArray, IntArray
from osbc_deploy.fixedpoint.connections import FixedConnection
from osbc_deploy.fixedpoint.connections.base import Range, Ranges
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPopulation, FixedProjection, Pooling
from osbc_deploy.lower.merge import separate
from osbc_deploy.model.graph import INPUT, Shape

__all__ = ["PARTS", "Afferent", "Layer", "Range", "Ranges", "StoredWeights", "Usage", "layer_of"]

PARTS = ("payload", "index", "header", "padding")
"""What synapse memory consists of."""

_COUNTED = 1 << 20
"""Counts kept of a connection at most: of larger ones several rows are counted together."""


@dataclass(frozen=True, eq=False)
class Afferent:
    """A projection as memory sees it.

    Attributes
    ----------
    pre : str
        The population it comes from: ``"input"``, another one, or the layer itself.
    pre_shape : tuple of int
    connection : FixedConnection
        Only which weights are zero matters.
    bits : int
        Stored bits of a weight.
    delay_bits : int
        Stored bits of a synaptic delay.
    pooling : Pooling or None
        What is merged into the weights, and can be taken out for a chip whose cores pool.
    projection : FixedProjection or None
        Itself, for memory whose tables depend on its numbers; None where it is not known.
    latency : int
        See :meth:`osbc_deploy.fixedpoint.network.FixedPointNetwork.latency`.
    """

    pre: str
    pre_shape: Shape
    connection: FixedConnection
    bits: int
    delay_bits: int = 0
    pooling: Pooling | None = None
    projection: FixedProjection | None = None
    latency: int = 0

    @property
    def pre_size(self) -> int:
        """Number of presynaptic neurons."""
        return math.prod(self.pre_shape)

    @cached_property
    def nonzero(self) -> BoolArray:
        """Which weights are not zero."""
        return np.asarray(self.connection.weight != 0)

    @cached_property
    def unpooled(self) -> FixedConnection:
        """The connection behind its pooling."""
        if self.pooling is None:
            return self.connection
        return separate(self.connection, self.pooling, self.pre_shape)

    @cached_property
    def _counted(self) -> IntArray:
        """Non-zero weights of each presynaptic neuron in the rows before every block."""
        starts = np.arange(0, len(self.nonzero), self._block)
        counts = np.add.reduceat(self.nonzero, starts, axis=0, dtype=np.int32)
        return np.cumsum([np.zeros_like(counts[0]), *counts], axis=0, dtype=np.int32)

    @cached_property
    def _block(self) -> int:
        """Rows counted together."""
        return max(1, -(-self.connection.weight.size // _COUNTED))

    def fan_in(self, rows: Range) -> IntArray:
        """Return the non-zero synapses of each presynaptic neuron into some rows (dense only)."""
        weight = self.connection.weight
        # Whole blocks were counted once; only the rows beside them are counted here.
        found = []
        for end in rows:
            block = min((end + self._block // 2) // self._block, len(self._counted) - 1)
            edge = min(block * self._block, len(weight))
            count = self._counted[block]
            if end != edge:
                beside = np.count_nonzero(weight[min(edge, end) : max(edge, end)], axis=0)
                count = count + (beside if end > edge else -beside)
            found.append(count)
        return np.asarray(found[1] - found[0])

    def sources(self, ranges: Ranges, *, stored: bool) -> BoolArray:
        """Return which presynaptic neurons reach a slice.

        Parameters
        ----------
        ranges : tuple of (start, stop)
        stored : bool
            Count a dense axon even where all of its weights are zero, as a dense encoding does.

        Returns
        -------
        ndarray of bool (pre_size,)
        """
        if not (stored or self.connection.convolutional):
            return np.asarray(self.fan_in(ranges[0]) > 0)
        seen = np.zeros(self.pre_shape, bool)
        seen[tuple(slice(*r) for r in self.connection.seen(self.pre_shape, ranges))] = True
        return seen.ravel()


@dataclass(frozen=True, eq=False)
class Layer:
    """A population with everything that projects to it.

    Attributes
    ----------
    name : str
        Of the population.
    shape : tuple of int
    afferents : tuple of Afferent
    decay_sets, threshold_sets, neuron_sets : ndarray of int (n,)
        Number of the neuron's set of (du, dv), of its threshold, and of all three.
    biased, to_convolution, is_output : bool
        `to_convolution`: its spikes go to convolutions only.
    fan_out : ndarray of int (n,)
        Cores that each neuron sends its spikes to; None counts as one.
    title : str
        What users know it as: the name of its weights.
    thresholds : int
        Different thresholds in the unit of the model, in which scales of weights make none.
    population : FixedPopulation or None
        Itself, for memory whose tables depend on its numbers; None where it is not known.
    formats : NumberFormats or None
        How its registers are to be read.
    """

    name: str
    shape: Shape
    afferents: tuple[Afferent, ...]
    decay_sets: IntArray
    threshold_sets: IntArray
    neuron_sets: IntArray
    biased: bool = False
    to_convolution: bool = False
    is_output: bool = False
    fan_out: IntArray | None = None
    title: str = ""
    thresholds: int = 1
    population: FixedPopulation | None = None
    formats: NumberFormats | None = None

    def __str__(self) -> str:
        return f"layer {self.title or self.name}"

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def delay_bits(self) -> int:
        """Bits of the widest delay of its synapses; 0 where none has any."""
        return max((a.delay_bits for a in self.afferents), default=0)

    @property
    def whole(self) -> Ranges:
        """The uncut layer."""
        return tuple((0, n) for n in self.shape)

    def ordered(self, order: IntArray) -> Layer:
        """Return the layer with its neurons in another order; those before it keep theirs.

        Only for fully connected layers, whose neurons have synapses of their own.
        """
        afferents = (replace(a, connection=a.connection.rows(order)) for a in self.afferents)
        return replace(
            self,
            afferents=tuple(afferents),
            decay_sets=self.decay_sets[order],
            threshold_sets=self.threshold_sets[order],
            neuron_sets=self.neuron_sets[order],
            fan_out=None if self.fan_out is None else self.fan_out[order],
        )

    def neurons(self, values: IntArray, ranges: Ranges) -> IntArray:
        """Return the values of the neurons of a slice."""
        tile = values.reshape(self.shape)[tuple(slice(*r) for r in ranges)]
        return np.asarray(tile.ravel())

    def different(self, values: IntArray, ranges: Ranges) -> int:
        """Return how many different values the neurons of a slice have."""
        found = self.neurons(values, ranges)
        # Mostly all are alike, which shows without sorting them.
        return 1 if (found == found[0]).all() else len(np.unique(found))


class StoredWeights(NamedTuple):
    """The synapses of one afferent on a core.

    Attributes
    ----------
    encoding : {"dense", "sparse", "conv"}
    words : int
        Of synapse memory.
    entries : int
        Entries for incoming axons.
    axons, synapses : int
        See :class:`Usage`.
    bits : dict of int
        What the words consist of, by the names of `PARTS`.
    """

    encoding: str
    words: int
    entries: int
    axons: int
    synapses: int
    bits: Mapping[str, int]


@dataclass(frozen=True)
class Usage:
    """What a slice of a layer uses on its core.

    Attributes
    ----------
    used : dict of int
        Of every resource of the memory model.
    words : int
        Memory taken, in words.
    neurons, axons, synapses : int
        Neurons, distinct presynaptic neurons that reach them, and synapses stored.
    encoding : str
        "dense", "sparse" or "conv", joined by "+" where afferents differ.
    bits : dict of int
        What the synapse memory consists of: payload, index, header and padding.
    encodings : tuple of str
        Of each afferent; empty where `encoding` is that of all.
    """

    used: Mapping[str, int]
    words: int
    neurons: int
    axons: int
    synapses: int
    encoding: str
    bits: Mapping[str, int]
    encodings: tuple[str, ...] = ()

    def keeps_zeros(self, afferent: int) -> bool:
        """Tell whether the afferent of this number is stored with its zeros."""
        return (self.encodings[afferent] if self.encodings else self.encoding) != "sparse"

    @classmethod
    def of(
        cls, used: Mapping[str, int], words: int, neurons: int, stored: Sequence[StoredWeights]
    ) -> Usage:
        """Return the usage of a slice from what its afferents store."""
        return cls(
            used,
            words,
            neurons,
            axons=sum(part.axons for part in stored),
            synapses=sum(part.synapses for part in stored),
            encoding="+".join(dict.fromkeys(part.encoding for part in stored)),
            bits={name: sum(part.bits[name] for part in stored) for name in PARTS},
            encodings=tuple(part.encoding for part in stored),
        )

    def excess(self, limits: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Return what is exceeded: use and limit by resource."""
        return {
            name: (used, limits[name]) for name, used in self.used.items() if used > limits[name]
        }


def layer_of(
    population: FixedPopulation,
    projections: tuple[tuple[FixedProjection, Shape], ...],
    formats: NumberFormats,
    *,
    latencies: Sequence[int] = (),
    to_convolution: bool = False,
    is_output: bool = False,
) -> Layer:
    """Return the layer of a population and the projections into it, with their source shapes.

    Latencies are those of the projections; 0 where none are given.
    """
    p = population
    decays = _sets(p.du, p.dv)
    return Layer(
        p.name,
        p.shape,
        tuple(
            Afferent(
                projection.pre or INPUT,
                shape,
                projection.connection,
                projection.weight_bits,
                projection.connection.longest_delay.bit_length(),
                projection.pooling,
                projection,
                latency,
            )
            for (projection, shape), latency in zip(
                projections, latencies or (0,) * len(projections), strict=True
            )
        ),
        decay_sets=decays,
        threshold_sets=_sets(p.vth),
        neuron_sets=_sets(decays, p.vth, p.reset_amount),
        biased=bool(p.bias_mant.any()),
        to_convolution=to_convolution,
        is_output=is_output,
        title=projections[0][0].name,
        thresholds=_thresholds(p),
        population=p,
        formats=formats,
    )


def _thresholds(population: FixedPopulation) -> int:
    """Return how many thresholds the float neurons have at least.

    A threshold in integers is a whole number of its neuron's unit: 0.5 off at most, or 1.5 where it
    was lowered for a spike at the threshold. All that a common one explains are counted once.
    """
    if not population.spiking:
        return 1
    units = np.stack([population.vth, np.abs(population.v_scale)], axis=1)
    vth, scale = np.unique(units, axis=0).T
    # In one unit, different numbers are different thresholds.
    _, alike = np.unique(scale, return_counts=True)
    low, high = (vth - 0.5) * scale, (vth + 1.5) * scale
    found, reached = 0, -math.inf
    for number in np.argsort(high):
        if low[number] > reached:
            found, reached = found + 1, float(high[number])
    return max(found, int(alike.max()))


def _sets(*parameters: IntArray) -> IntArray:
    """Return for each neuron the number of its set of parameters."""
    number = np.zeros(len(parameters[0]), np.int64)
    for values in parameters:
        _, code = np.unique(values, return_inverse=True)
        _, number = np.unique(number * (code.max(initial=0) + 1) + code, return_inverse=True)
    return number
