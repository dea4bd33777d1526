"""Axons in chunks of synapses: the memory of a Loihi 1 core, as nengo-loihi counts it.

An axon with n synapses is stored in chunks of up to 64; each chunk carries its own header and ends
on a word (nengo/nengo-loihi, nengo_loihi/block.py, ``bits_per_axon``). nengo-loihi counts no index
bits for sparse weights, although the hardware needs them; this model counts them.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.facts import Bits, Fact, Positive, Strict, Width
from osbc_deploy.chip.layers import PARTS, Afferent, Layer, Ranges, Stored, Usage, window
from osbc_deploy.fixedpoint.network import FixedConv

__all__ = ["Chunks"]


class ChunkCaps(Strict):
    """What one core holds of each resource."""

    neurons: Fact[Positive]
    axon_in: Fact[Positive]
    axon_out: Fact[Positive]
    synapses: Fact[Positive]
    decay_profiles: Fact[Positive]
    vth_profiles: Fact[Positive]


class Chunks(Strict):
    """Memory model of chunked axons.

    Attributes
    ----------
    word_bits : Fact
    caps : ChunkCaps
        ``synapses`` in words.
    chunk_synapses, header_bits : Fact
        Synapses of a full chunk, and bits in front of each.
    index_widths : Fact
        Widths an index can have; the smallest that holds the largest index is taken.
    page_neurons : Fact
        A convolution's kernels are stored once for every page of so many neurons it reaches.
    """

    arrangement: ClassVar[Literal["split"]] = "split"
    """Populations are cut over as many cores as they need."""

    model: Literal["chunks"]
    word_bits: Fact[Width]
    caps: ChunkCaps
    chunk_synapses: Fact[Positive]
    header_bits: Fact[Bits]
    index_widths: Fact[Annotated[list[Width], Field(min_length=1, max_length=64)]]
    page_neurons: Fact[Positive]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        return self.caps.vth_profiles.value

    def limits(self) -> dict[str, int]:
        """Return the capacity of a core by resource."""
        return {name: getattr(self.caps, name).value for name in ChunkCaps.model_fields}

    def core_limits(self, core: int) -> dict[str, int]:
        """Return the capacity of one core; all are the same."""
        del core
        return self.limits()

    def bits_per_axon(
        self,
        synapses: IntArray | int,
        weight_bits: int,
        *,
        index_bits: int = 0,
        delay_bits: int = 0,
    ) -> IntArray:
        """Return the bits of axons with so many synapses each, in whole words."""
        n = np.asarray(synapses)
        each = weight_bits + index_bits + delay_bits
        full, rest = np.divmod(n, self.chunk_synapses.value)
        last = np.where(rest > 0, self._chunk_bits(rest * each), 0)
        whole = self._chunk_bits(np.asarray(self.chunk_synapses.value * each))
        return np.asarray(full * whole + last)

    def _chunk_bits(self, payload: IntArray) -> IntArray:
        word = self.word_bits.value
        return np.asarray(word * -(-(payload + self.header_bits.value) // word))

    def index_bits(self, neurons: int) -> int:
        """Return the index width for a core with so many neurons; the widest where none holds."""
        needed = max(1, (neurons - 1).bit_length())
        widths = sorted(self.index_widths.value)
        return next((width for width in widths if width >= needed), widths[-1])

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of so many cores."""
        del cores
        return []

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a slice of a layer uses on its core."""
        neurons = math.prod(stop - start for start, stop in ranges)
        parts = [self._afferent(a, ranges, neurons) for a in layer.afferents]
        words = sum(p.words for p in parts)
        used = {
            "neurons": neurons,
            "axon_in": sum(p.entries for p in parts),
            "axon_out": neurons
            if layer.fan_out is None
            else int(layer.neurons(layer.fan_out, ranges).sum()),
            "synapses": words,
            "decay_profiles": len(np.unique(layer.neurons(layer.decay_sets, ranges))),
            "vth_profiles": len(np.unique(layer.neurons(layer.threshold_sets, ranges))),
        }
        return Usage.of(used, words, neurons, parts)

    def least(self, layer: Layer) -> dict[str, int]:
        """Return what the slices of any cut together use at least of every resource."""
        used = dict(self.cost(layer, layer.whole).used)
        if any(isinstance(a.connection, FixedConv) for a in layer.afferents):
            # Border kernels differ from cut to cut; one kernel set is the least.
            used["synapses"] = used["axon_in"] = 0
            return used
        counts = [(a.fan_in((0, layer.size)), a.bits + a.delay_bits) for a in layer.afferents]
        word = self.word_bits.value
        used["axon_in"] = sum(int(np.count_nonzero(n)) for n, _ in counts)
        used["synapses"] = sum(-(-int(n.sum()) * bits // word) for n, bits in counts)
        return used

    def _afferent(self, afferent: Afferent, ranges: Ranges, neurons: int) -> Stored:
        """Return what one afferent stores, in the cheaper encoding."""
        if isinstance(afferent.connection, FixedConv):
            return self._conv(afferent, afferent.connection, ranges)
        n_pre, bits, delay = afferent.pre_size, afferent.bits, afferent.delay_bits
        rows = ranges[0][1] - ranges[0][0]
        dense = self._axons(np.full(n_pre, rows), bits, 0, delay)
        nonzero = afferent.fan_in(ranges[0])
        nonzero = nonzero[nonzero > 0]
        sparse = self._axons(nonzero, bits, self.index_bits(neurons), delay)
        if sparse[0] < dense[0]:
            axons = len(nonzero)
            return Stored("sparse", sparse[0], axons, axons, int(nonzero.sum()), sparse[1])
        return Stored("dense", dense[0], n_pre, n_pre, n_pre * rows, dense[1])

    def _axons(
        self, synapses: IntArray, bits: int, index: int, delay: int
    ) -> tuple[int, dict[str, int]]:
        total = int(self.bits_per_axon(synapses, bits, index_bits=index, delay_bits=delay).sum())
        count = int(synapses.sum())
        chunks = int((-(-synapses // self.chunk_synapses.value)).sum())
        payload, header = count * (bits + delay), chunks * self.header_bits.value
        padding = total - payload - count * index - header
        parts = dict(zip(PARTS, (payload, count * index, header, padding), strict=True))
        return total // self.word_bits.value, parts

    def _conv(self, afferent: Afferent, conv: FixedConv, ranges: Ranges) -> Stored:
        """Cost a tile: one kernel set for every border pattern and page, one axon per pixel.

        Neurons are numbered with the channel fastest, as in nengo-loihi's channels-last order.
        """
        channels = ranges[0][1] - ranges[0][0]
        (c0, c1), *seen = window(conv, afferent.pre_shape, ranges)
        width = ranges[2][1] - ranges[2][0]
        taps = [
            _taps(extent, k, stride, padding, dilation, out)
            for extent, k, stride, padding, dilation, out in zip(
                seen,
                conv.weight.shape[2:],
                conv.stride,
                conv.padding,
                conv.dilation,
                ranges[1:],
                strict=True,
            )
        ]
        page = self.page_neurons.value
        sets = {}
        for (first_y, rows), (first_x, cols) in product(*taps):
            if rows and cols:
                base = (first_y * width + first_x) * channels
                last_y, last_x = max(rows)[0], max(cols)[0]
                reach = (last_y * width + last_x + 1) * channels
                sets[(rows, cols, base // page)] = (len(rows) * len(cols) * channels, base, reach)
        share = len(conv.weight) // conv.groups
        atoms = (c1 - c0) // max(1, (ranges[0][1] - 1) // share - ranges[0][0] // share + 1)
        pixels = sum(1 for (_, r), (_, c) in product(*taps) if r and c)
        words, count = 0, 0
        bits = dict.fromkeys(PARTS, 0)
        for size, base, reach in sets.values():
            # All channels of a set are stored as one run.
            index = self.index_bits(base % page + reach)
            more, parts = self._axons(np.array([size * atoms]), afferent.bits, index, 0)
            words, count = words + more, count + size * atoms
            bits = {name: bits[name] + parts[name] for name in bits}
        axons = pixels * (c1 - c0)
        return Stored("conv", words, pixels, axons, count, bits)


def _taps(
    extent: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    outputs: tuple[int, int],
) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """Return, for each source row (or column), its first output and its taps.

    A tap is an output relative to the first, and the kernel position that leads there; sources
    with the same taps share their weights.
    """
    patterns = []
    for source in range(*extent):
        taps = []
        for position in range(kernel):
            output, off = divmod(source + padding - dilation * position, stride)
            if off == 0 and outputs[0] <= output < outputs[1]:
                taps.append((output - outputs[0], position))
        first = min((output for output, _ in taps), default=0)
        patterns.append((first, tuple((output - first, position) for output, position in taps)))
    return patterns
