"""Axons in chunks of synapses: the memory of a Loihi 1 core, as nengo-loihi counts it.

An axon with n synapses is stored in chunks of up to 64; each chunk carries its own header and ends
on a word. A convolution takes one axon per source pixel, and pixels share kernel sets: those that
see the same part of the kernel and start in the same page of neurons. (Applied Brain Research,
nengo/nengo-loihi 1.1.0: ``SynapseConfig.bits_per_axon``, ``Synapse.idx_bits`` and
``LoihiBlock.utilization`` in nengo_loihi/block.py, ``conv2d_loihi_weights`` in nengo_loihi/conv.py,
``set_new_synapse_weights`` in nengo_loihi/builder/split_blocks.py.)
"""

from __future__ import annotations

import math
from functools import singledispatch
from itertools import product
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.facts import Bits, Fact, Positive, Strict
from osbc_deploy.chip.layers import PARTS, Afferent, Layer, Range, Ranges, StoredWeights, Usage
from osbc_deploy.chip.memory.base import Arrangement, MemoryBase
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.model.connections.base import no_such_kind

__all__ = ["Chunks"]


class ChunkCaps(Strict):
    """What one core holds of each resource."""

    neurons: Fact[Positive]
    axon_in: Fact[Positive]
    axon_out: Fact[Positive]
    synapses: Fact[Positive]
    decay_profiles: Fact[Positive]
    vth_profiles: Fact[Positive]


class Chunks(MemoryBase):
    """Memory model of chunked axons.

    Attributes
    ----------
    word_bits : Fact
    caps : ChunkCaps
        ``synapses`` in words.
    chunk_synapses, header_bits : Fact
        Synapses of a full chunk, and bits in front of each.
    index_widths : Fact
        Widths an index can have; the smallest that holds the largest index of an afferent is taken.
    sparse_index : Fact
        Whether synapses carry their index where only non-zero weights are stored.
    page_neurons : Fact
        An axon points to a neuron of the first page; the rest of its offset is in the indices, so
        a convolution's kernels are stored once for every page they start in.
    conv_axon_slots : Fact
        Output axons that a pixel takes towards a convolution, whatever its channels.
    """

    arrangement: ClassVar[Arrangement] = "split"
    """Populations are cut over as many cores as they need."""

    caps: ChunkCaps
    chunk_synapses: Fact[Positive]
    header_bits: Fact[Bits]
    index_widths: Fact[Annotated[list[Bits], Field(min_length=1, max_length=64)]]
    sparse_index: Fact[bool]
    page_neurons: Fact[Positive]
    conv_axon_slots: Fact[Positive]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        return self.caps.vth_profiles.value

    def limits(self) -> dict[str, int]:
        """Return the capacity of a core by resource."""
        return {name: getattr(self.caps, name).value for name in ChunkCaps.model_fields}

    def bits_per_axon(
        self,
        synapses: IntArray | int,
        weight_bits: int,
        *,
        index_bits: int = 0,
        delay_bits: int = 0,
    ) -> IntArray:
        """Return the bits of axons with this many synapses each, in whole words."""
        n = np.asarray(synapses)
        each = weight_bits + index_bits + delay_bits
        full, rest = np.divmod(n, self.chunk_synapses.value)
        last = np.where(rest > 0, self._chunk_bits(rest * each), 0)
        whole = self._chunk_bits(np.asarray(self.chunk_synapses.value * each))
        return np.asarray(full * whole + last)

    def _chunk_bits(self, payload: IntArray) -> IntArray:
        word = self.word_bits.value
        return np.asarray(word * -(-(payload + self.header_bits.value) // word))

    def index_bits(self, largest: int) -> int:
        """Return the width of indices up to the largest; the widest there is where none holds."""
        widths = sorted(self.index_widths.value)
        return next((width for width in widths if width >= largest.bit_length()), widths[-1])

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a slice of a layer uses on its core."""
        neurons = math.prod(stop - start for start, stop in ranges)
        whole = ranges == layer.whole
        parts = [_stored(a.connection, a, self, ranges, whole) for a in layer.afferents]
        words = sum(p.words for p in parts)
        used = {
            "neurons": neurons,
            "axon_in": sum(p.entries for p in parts),
            "axon_out": self._axon_out(layer, ranges),
            "synapses": words,
            "decay_profiles": layer.different(layer.decay_sets, ranges),
            "vth_profiles": layer.different(layer.threshold_sets, ranges),
        }
        return Usage.of(used, words, neurons, parts)

    def _axon_out(self, layer: Layer, ranges: Ranges) -> int:
        """Return the output axons of a slice: one for every core that its spikes go to."""
        cores = layer.neurons(
            np.ones(layer.size, np.int64) if layer.fan_out is None else layer.fan_out, ranges
        )
        if not layer.to_convolution:
            return int(cores.sum())
        # The channel travels in the spike.
        pixels = cores.reshape(ranges[0][1] - ranges[0][0], -1).max(axis=0)
        return int(pixels.sum()) * self.conv_axon_slots.value

    def least(self, layer: Layer) -> dict[str, int]:
        """Return what the slices of any cut together use at least of every resource."""
        used = dict(self.cost(layer, layer.whole).used)
        if any(a.connection.convolutional for a in layer.afferents):
            # Border kernels differ from cut to cut; one kernel set is the least.
            used["synapses"] = used["axon_in"] = 0
            return used
        counts = [(a.fan_in((0, layer.size)), a.bits + a.delay_bits) for a in layer.afferents]
        word = self.word_bits.value
        used["axon_in"] = sum(int(np.count_nonzero(n)) for n, _ in counts)
        used["synapses"] = sum(-(-int(n.sum()) * bits // word) for n, bits in counts)
        return used

    def axons(
        self, synapses: IntArray, bits: int, index: int, delay: int
    ) -> tuple[int, dict[str, int]]:
        """Return words and composition of the memory of axons with this many synapses each."""
        total = int(self.bits_per_axon(synapses, bits, index_bits=index, delay_bits=delay).sum())
        count = int(synapses.sum())
        chunks = int((-(-synapses // self.chunk_synapses.value)).sum())
        payload, header = count * (bits + delay), chunks * self.header_bits.value
        padding = total - payload - count * index - header
        parts = dict(zip(PARTS, (payload, count * index, header, padding), strict=True))
        return total // self.word_bits.value, parts


@singledispatch
def _stored(
    connection: FixedConnection, afferent: Afferent, memory: Chunks, ranges: Ranges, whole: bool
) -> StoredWeights:
    """Return what one afferent stores of a slice, or of the `whole` layer."""
    raise no_such_kind(connection, "this memory model")


@_stored.register(FixedDense)
def _(
    _dense: FixedDense, afferent: Afferent, memory: Chunks, ranges: Ranges, whole: bool
) -> StoredWeights:
    """Take the cheaper encoding."""
    n_pre, bits, delay = afferent.pre_size, afferent.bits, afferent.delay_bits
    rows = ranges[0][1] - ranges[0][0]
    dense = memory.axons(np.full(n_pre, rows), bits, 0, delay)
    nonzero = afferent.fan_in(ranges[0])
    nonzero = nonzero[nonzero > 0]
    index = memory.index_bits(rows - 1) if memory.sparse_index.value else 0
    sparse = memory.axons(nonzero, bits, index, delay)
    if sparse[0] < dense[0]:
        axons = len(nonzero)
        return StoredWeights("sparse", sparse[0], axons, axons, int(nonzero.sum()), sparse[1])
    return StoredWeights("dense", dense[0], n_pre, n_pre, n_pre * rows, dense[1])


@_stored.register(FixedConv)
def _(
    conv: FixedConv, afferent: Afferent, memory: Chunks, ranges: Ranges, whole: bool
) -> StoredWeights:
    """Cost a tile: kernel sets that pixels share, with indices of one width.

    Neurons are numbered with the channel fastest, as in nengo-loihi's channels-last order. An
    uncut layer has an axon for every pixel of the source, one that sees nothing included; a part
    of a layer only for those it receives input from.
    """
    channels = ranges[0][1] - ranges[0][0]
    (c0, c1), *seen = conv.seen(afferent.pre_shape, ranges)
    width = ranges[2][1] - ranges[2][0]
    taps = [
        _taps(reached, extent, out)
        for reached, extent, out in zip(
            conv.reached(afferent.pre_shape), seen, ranges[1:], strict=True
        )
    ]
    page = memory.page_neurons.value
    sets, largest = {}, 0
    for (first_y, rows), (first_x, cols) in product(*taps):
        if rows and cols:
            start = (first_y * width + first_x) * channels // page * page
            (last_y, _), (last_x, _) = max(rows), max(cols)
            sets[rows, cols, start] = len(rows) * len(cols) * channels
            largest = max(largest, start + (last_y * width + last_x + 1) * channels - 1)
    share = len(conv.weight) // conv.groups
    atoms = (c1 - c0) // max(1, (ranges[0][1] - 1) // share - ranges[0][0] // share + 1)
    # All channels of a set are stored as one run.
    sizes = np.array(list(sets.values()), np.int64) * atoms
    words, bits = memory.axons(sizes, afferent.bits, memory.index_bits(largest), 0)
    pixels = sum(1 for (_, r), (_, c) in product(*taps) if r and c)
    entries = math.prod(afferent.pre_shape[1:]) if whole else pixels
    return StoredWeights("conv", words, entries, pixels * (c1 - c0), int(sizes.sum()), bits)


def _taps(
    reached: IntArray, extent: Range, outputs: Range
) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """Return, for each source row (or column), its first output and its taps.

    A tap is an output relative to the first, and the kernel position that leads there; sources
    with the same taps share their weights.
    """
    patterns = []
    for row in reached[slice(*extent)].tolist():
        taps = [
            (output - outputs[0], position)
            for position, output in enumerate(row)
            if outputs[0] <= output < outputs[1]
        ]
        first = min((output for output, _ in taps), default=0)
        patterns.append((first, tuple((output - first, position) for output, position in taps)))
    return patterns
