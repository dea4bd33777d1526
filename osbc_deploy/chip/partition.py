"""Split every population over cores so that no capacity is exceeded.

A core holds neurons of one population. A dense population is cut into consecutive slices of equal
size, as the compiler does; a convolution into tiles of rows, columns and channels. The smallest
number of cores is taken for which every slice fits, then the fewest replicated axons, then the best
balance; where no cut fits, the finest is reported with what it exceeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.memory import (
    Resources,
    axon_words,
    conv_words,
    neuron_groups,
    record_words,
)
from osbc_deploy.chip.target import Target
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.network.graph import Shape

__all__ = ["Core", "Mapping", "map_network", "map_population"]

Range = tuple[int, int]

_PATIENCE = 4
"""How many times the chip's cores are tried one by one."""


@dataclass(frozen=True)
class Core:
    """One core and the slice of a population on it.

    Attributes
    ----------
    index : int
        Number of the core, from 0.
    population : str
    ranges : tuple of (start, stop)
        One per axis of the population's shape.
    neurons, axons : int
        Neurons on the core, and distinct presynaptic neurons that reach it.
    synapses : int
        Synapses stored on the core.
    encoding : {"dense", "sparse", "conv"}
    resources : Resources
    """

    index: int
    population: str
    ranges: tuple[Range, ...]
    neurons: int
    axons: int
    synapses: int
    encoding: str
    resources: Resources

    @property
    def slice(self) -> str:
        """The ranges as text, such as ``0:50`` or ``0:16, 0:10, 0:20``."""
        return ", ".join(f"{start}:{stop}" for start, stop in self.ranges)


@dataclass(frozen=True)
class Mapping:
    """All cores of a network on a target.

    Attributes
    ----------
    cores : tuple of Core
    lower_bound : int
        Cores that no way of cutting the populations could do without.
    available : int
        Cores the chip has.
    caps : dict of int
        Capacity of a core by resource.
    word_bits : int
    """

    cores: tuple[Core, ...]
    lower_bound: int
    available: int
    caps: dict[str, int]
    word_bits: int

    def excesses(self) -> list[str]:
        """Return one line for every limit exceeded; empty when the network fits."""
        lines = []
        if len(self.cores) > self.available:
            lines.append(
                f"chip: {len(self.cores)} cores needed, {self.available} available "
                f"({len(self.cores) - self.available} over)"
            )
        for core in self.cores:
            for name, used in core.resources.used().items():
                if used > self.caps[name]:
                    lines.append(
                        f"core {core.index} ({core.population}[{core.slice}]): {name} "
                        f"{used} exceeds {self.caps[name]} ({used - self.caps[name]} "
                        "over)"
                    )
        return lines

    @property
    def fits(self) -> bool:
        """Whether every limit is kept."""
        return not self.excesses()

    def limiting(self, core: Core) -> tuple[str, float]:
        """Return the resource closest to its limit on a core, and the share used."""
        used = core.resources.used()
        name = max(used, key=lambda key: used[key] / self.caps[key])
        return name, used[name] / self.caps[name]

    @property
    def words(self) -> int:
        """Words of the pool used on all cores."""
        return sum(core.resources.total for core in self.cores)

    @property
    def bytes(self) -> int:
        """Bytes of the pool used on all cores."""
        return self.words * self.word_bits // 8


def map_network(network: FixedPointNetwork, target: Target) -> Mapping:
    """Give every population the cores it needs."""
    cores: list[Core] = []
    bound = 0
    for projection, population in zip(network.projections, network.populations, strict=True):
        outgoing = network.outgoing(population.name)
        part = map_population(
            projection,
            population,
            network.shape_of(projection.pre),
            target,
            to_convolution=bool(outgoing)
            and all(isinstance(p.connection, FixedConv) for p in outgoing),
        )
        bound += part.lower_bound
        first = len(cores)
        cores.extend(replace(core, index=first + core.index) for core in part.cores)
    return Mapping(
        tuple(cores),
        bound,
        target.chip.cores.value,
        target.caps(),
        target.core.word_bits.value,
    )


def map_population(
    projection: FixedProjection,
    population: FixedPopulation,
    pre_shape: Shape,
    target: Target,
    *,
    to_convolution: bool,
) -> Mapping:
    """Give one population the cores it needs, as if it were alone on the chip.

    Parameters
    ----------
    projection, population
        The layer; of the neurons only their number and their groups matter.
    pre_shape : tuple of int
    target : Target
    to_convolution : bool
        Whether its spikes go to convolutions only, which take one axon entry per pixel.
    """
    caps, available = target.caps(), target.chip.cores.value
    layer = _Layer(projection, population, pre_shape, to_convolution, target)
    lower = _lower_bound(layer, caps)
    cores = tuple(
        Core(i, population.name, *description)
        for i, description in enumerate(_fewest(layer, caps, lower, available))
    )
    return Mapping(cores, lower, available, caps, target.core.word_bits.value)


_Slice = tuple[tuple[Range, ...], int, int, int, str, Resources]


def _fewest(layer: _Layer, caps: dict[str, int], lower: int, available: int) -> list[_Slice]:
    """Return the slices of the best cut among those with the fewest cores.

    Of all cuts into that many pieces that fit, the one is taken that sends the fewest axons to
    more than one core, then the one whose fullest core is emptiest. Where nothing fits, the
    finest cut is returned.
    """
    slices: list[_Slice] = []
    for cuts in layer.cuts(lower, available):
        fitting = []
        for tiles in cuts:
            slices = [layer.cost(ranges) for ranges in tiles]
            if all(used <= caps[name] for *_, r in slices for name, used in r.used().items()):
                fitting.append(slices)
        if fitting:
            return min(fitting, key=_traffic_and_peak)
    return slices


def _traffic_and_peak(slices: list[_Slice]) -> tuple[int, int]:
    return sum(axons for _, _, axons, *_ in slices), max(r.total for *_, r in slices)


def _lower_bound(layer: _Layer, caps: dict[str, int]) -> int:
    """Return how many cores no cut can do without.

    Cutting never lowers the sum of a resource over the cores (axons and kernels are replicated,
    records rounded up), so what the uncut layer needs at least, over the capacity, is a bound.
    """
    return max(1, *(-(-used // caps[name]) for name, used in layer.least().items()))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A population with the projection into it, ready to be cut and costed."""

    projection: FixedProjection
    population: FixedPopulation
    pre_shape: Shape
    to_convolution: bool
    target: Target

    def cuts(self, lower: int, available: int) -> Iterator[list[list[tuple[Range, ...]]]]:
        """Yield, for a growing number of pieces, all even cuts of the population into as many."""
        shape, size = self.population.shape, self.population.size
        # Every count while the chip could be several times as large; beyond that, a few coarse
        # steps suffice to say how much is missing.
        lower = min(lower, size)
        counts = list(range(lower, min(_PATIENCE * available, size) + 1)) or [lower]
        while counts[-1] < size:
            counts.append(min(2 * counts[-1], size))
        for count in counts:
            yield [
                _product([_even(size, part) for size, part in zip(shape, parts, strict=True)])
                for parts in _factorizations(count, shape)
            ]

    def cost(self, ranges: tuple[Range, ...]) -> _Slice:
        """Return neurons, axons, synapses, encoding and resources of one slice."""
        neurons = math.prod(stop - start for start, stop in ranges)
        index = (
            np.arange(self.population.size)
            .reshape(self.population.shape)[tuple(slice(*r) for r in ranges)]
            .ravel()
        )
        p, rules = self.population, self.target.memory
        connection = self.projection.connection
        if isinstance(connection, FixedConv):
            axons, synapses, words, bits = self._conv(connection, ranges)
            encoding, axon_in = "conv", rules.conv_axon_entries.value
        else:
            encoding, axons, synapses, words, bits = self._matrix(index)
            axon_in = axons
        pixels = math.prod(stop - start for start, stop in ranges[1:])
        resources = Resources(
            axon_in=axon_in,
            neuron_groups=neuron_groups(p.du[index], p.dv[index], p.vth[index]),
            neuron_state=neurons * rules.neuron_words.value,
            synapses=words,
            # Towards a convolution the channel travels in the spike: one entry per pixel.
            axon_map=pixels if self.to_convolution else neurons,
            axon_mem=rules.axon_mem_entries.value,
            **bits,
        )
        return ranges, neurons, axons, synapses, encoding, resources

    def least(self) -> dict[str, int]:
        """Return what the uncut layer needs at least of every resource."""
        *_, whole = self.cost(tuple((0, size) for size in self.population.shape))
        used = whole.used()
        if not isinstance(self.projection.connection, FixedConv):
            # Slices may differ in encoding, so only what both store counts: the non-zero weights
            # at the smaller index.
            nonzero = np.count_nonzero(self.projection.connection.weight, axis=0)
            nonzero = nonzero[nonzero > 0]
            rules = self.target.memory
            index = min(rules.index_bits.value, rules.sparse_record_bits.value)
            words = record_words(
                nonzero,
                self.projection.weight_bits,
                index,
                rules.header_bits.value,
                self.target.core.word_bits.value,
            )
            used |= {"axon_in": len(nonzero), "synapses": int(words.sum())}
            used["total"] = sum(n for name, n in used.items() if name != "total")
        return used

    def _matrix(self, index: IntArray) -> tuple[str, int, int, int, dict[str, int]]:
        """Cost a dense slice in both encodings and return the cheaper one."""
        weight = self.projection.connection.weight[index]
        word, bits = self.target.core.word_bits.value, self.projection.weight_bits
        rules = self.target.memory
        n_pre = weight.shape[1]
        dense = axon_words(np.full(n_pre, len(index)), bits, rules, word, sparse=False)
        nonzero = np.count_nonzero(weight, axis=0)
        nonzero = nonzero[nonzero > 0]
        sparse = axon_words(nonzero, bits, rules, word, sparse=True)
        # An axon without synapses on the core needs no entry either, so both columns count.
        if sparse[0] + len(nonzero) < dense[0] + n_pre:
            return "sparse", len(nonzero), int(nonzero.sum()), *sparse
        return "dense", n_pre, n_pre * len(index), *dense

    def _conv(
        self, conv: FixedConv, ranges: tuple[Range, ...]
    ) -> tuple[int, int, int, dict[str, int]]:
        """Cost a tile: its kernels once, whatever the number of pixels."""
        _, per_group, kh, kw = conv.weight.shape
        start, stop = ranges[0]
        share = len(conv.weight) // conv.groups
        words, bits = (
            0,
            dict.fromkeys(("payload_bits", "index_bits", "header_bits", "padding_bits"), 0),
        )
        groups = range(start // share, (stop - 1) // share + 1)
        for group in groups:
            channels = min(stop, (group + 1) * share) - max(start, group * share)
            more, parts = conv_words(
                per_group * kh * kw,
                channels,
                self.projection.weight_bits,
                self.target.memory,
                self.target.core.word_bits.value,
            )
            words += more
            bits = {name: bits[name] + parts[name] for name in bits}
        seen = [
            min(size, (stop - 1) * stride + dilation * (k - 1) + 1 - padding)
            - max(0, start * stride - padding)
            for (start, stop), size, stride, padding, dilation, k in zip(
                ranges[1:],
                self.pre_shape[1:],
                conv.stride,
                conv.padding,
                conv.dilation,
                (kh, kw),
                strict=True,
            )
        ]
        axons = len(groups) * per_group * math.prod(seen)
        return axons, (stop - start) * per_group * kh * kw, words, bits


def _even(size: int, parts: int) -> list[Range]:
    """Cut an axis into `parts` consecutive ranges, all of the same size but the last."""
    step = -(-size // parts)
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _factorizations(count: int, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the ways to cut an n-dimensional shape into exactly `count` pieces."""
    if len(shape) == 1:
        return [(count,)] if len(_even(shape[0], count)) == count else []
    ways = []
    for rest in _divisors(count):
        for tail in _factorizations(rest, shape[1:]):
            first = count // rest
            if len(_even(shape[0], first)) == first:
                ways.append((first, *tail))
    return ways


def _divisors(count: int) -> list[int]:
    return [d for d in range(1, count + 1) if count % d == 0]


def _product(axes: list[list[Range]]) -> list[tuple[Range, ...]]:
    tiles: list[tuple[Range, ...]] = [()]
    for axis in axes:
        tiles = [(*tile, part) for tile in tiles for part in axis]
    return tiles
