"""Records in whole words from one pool: the memory of a Loihi 2 core.

The rules reproduce the utilization tables that Intel's compiler prints: an axon is one record of
``n (bits + index) + header`` bits in whole words; a convolution stores every kernel row once per
core, without indices; the total is the plain sum of all columns against the pool they share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.facts import Bits, Count, Fact, Positive, Strict
from osbc_deploy.chip.layers import PARTS, Afferent, Layer, Ranges, StoredWeights, Usage
from osbc_deploy.chip.memory.base import Arrangement, MemoryBase
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.model.connections.base import no_such_kind

__all__ = ["Records"]

Encoding: TypeAlias = Literal["dense", "sparse"]
_BOTH: tuple[Encoding, ...] = ("dense", "sparse")


class RecordCaps(Strict):
    """What one core holds of each resource; without an entry, only the pool is the limit."""

    axon_in: Fact[Positive] | None = None
    neuron_groups: Fact[Positive]
    neuron_state: Fact[Positive]
    synapses: Fact[Positive]
    axon_map: Fact[Positive] | None = None
    axon_mem: Fact[Positive] | None = None


class Records(MemoryBase):
    """Memory model of records in whole words.

    Attributes
    ----------
    word_bits, pool_words : Fact
        Width of a word, and words that all resources of a core share.
    caps : RecordCaps
    index_bits, header_bits : Fact
        Beside each weight, and of each axon.
    conv_odd_row_words : Fact
        Extra words of a kernel row whose channels are no power of two.
    conv_axon_entries : Fact
        Entries for all inputs of a convolution together.
    neuron_words : Fact
    axon_mem_entries : Fact
    sparse_record_bits : Fact
        Index bits of a synapse where only non-zero weights are stored.
    encodings : Fact or None
        What fully connected layers may be stored as; each slice as what takes less where the
        target does not limit it.
    """

    arrangement: ClassVar[Arrangement] = "split"
    """Populations are cut over as many cores as they need."""

    pool_words: Fact[Positive]
    caps: RecordCaps
    index_bits: Fact[Bits]
    header_bits: Fact[Bits]
    conv_odd_row_words: Fact[Count]
    conv_axon_entries: Fact[Count]
    neuron_words: Fact[Positive]
    axon_mem_entries: Fact[Count]
    sparse_record_bits: Fact[Bits]
    encodings: Fact[Annotated[list[Encoding], Field(min_length=1)]] | None = None

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        return self.caps.neuron_groups.value

    @property
    def _allowed(self) -> Sequence[Encoding]:
        return _BOTH if self.encodings is None else self.encodings.value

    def limits(self) -> dict[str, int]:
        """Return the capacity of a core by resource; ``total`` is the shared pool."""
        pool = self.pool_words.value
        caps = ((name, getattr(self.caps, name)) for name in RecordCaps.model_fields)
        return {name: pool if cap is None else cap.value for name, cap in caps} | {"total": pool}

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of this many cores."""
        del cores
        pool = self.pool_words.value
        return [
            f"memory.caps.{name} ({cap}) exceeds memory.pool_words ({pool})"
            for name, cap in self.limits().items()
            if cap > pool
        ]

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a slice of a layer uses on its core."""
        neurons = math.prod(stop - start for start, stop in ranges)
        parts = [_stored(a.connection, a, self, ranges) for a in layer.afferents]
        pixels = math.prod(stop - start for start, stop in ranges[1:])
        groups = layer.different(layer.neuron_sets, ranges)
        used = {
            "axon_in": sum(p.entries for p in parts),
            "neuron_groups": groups,
            "neuron_state": neurons * self.neuron_words.value,
            "synapses": sum(p.words for p in parts),
            # Towards a convolution the channel travels in the spike: one entry per pixel.
            "axon_map": pixels if layer.to_convolution else neurons,
            "axon_mem": self.axon_mem_entries.value,
        }
        total = sum(used.values())
        return Usage.of({**used, "total": total}, total, neurons, parts)

    def least(self, layer: Layer) -> dict[str, int]:
        """Return what the slices of any cut together use at least of every resource."""
        used = dict(self.cost(layer, layer.whole).used)
        convolution = any(a.connection.convolutional for a in layer.afferents)
        if not convolution and len(set(self._allowed)) > 1:
            # Slices may differ in encoding, so only what both store counts: the non-zero weights
            # at the smaller index.
            index = min(self.index_bits.value, self.sparse_record_bits.value)
            counts = [(a.fan_in((0, layer.size)), a.bits + a.delay_bits) for a in layer.afferents]
            used["axon_in"] = sum(int(np.count_nonzero(n)) for n, _ in counts)
            used["synapses"] = sum(
                int(self.record_words(n[n > 0], bits, index).sum()) for n, bits in counts
            )
            used["total"] = sum(n for name, n in used.items() if name != "total")
        return used

    def record_words(self, synapses: IntArray, bits: int, index: int) -> IntArray:
        """Return the words of axons: ``ceil((n (bits + index) + header) / word)`` each."""
        word = self.word_bits.value
        return -(-(synapses * (bits + index) + self.header_bits.value) // word)

    def axon_words(
        self, synapses: IntArray, bits: int, *, sparse: bool, delay_bits: int = 0, alike: int = 1
    ) -> tuple[int, dict[str, int]]:
        """Return words and composition of the synapse memory of axons.

        Parameters
        ----------
        synapses : ndarray of int (axons,)
            Synapses of each axon that reaches the core.
        bits : int
            Stored weight bits.
        sparse : bool
            Whether only non-zero weights are stored.
        delay_bits : int
            Stored beside each weight.
        alike : int
            Axons that each of them stands for.
        """
        index = (self.sparse_record_bits if sparse else self.index_bits).value
        words = alike * int(self.record_words(synapses, bits + delay_bits, index).sum())
        count = alike * int(synapses.sum())
        return words, self._parts(
            words,
            count * (bits + delay_bits),
            count * index,
            alike * len(synapses) * self.header_bits.value,
        )

    def conv_words(self, rows: int, channels: int, bits: int) -> tuple[int, dict[str, int]]:
        """Return words and composition of shared kernels.

        Parameters
        ----------
        rows : int
            Kernel positions times input channels.
        channels : int
            Output channels, the weights of a row.
        bits : int
        """
        header = self.header_bits.value
        odd = channels & (channels - 1) != 0
        words = rows * (
            -(-(channels * bits + header) // self.word_bits.value)
            + (self.conv_odd_row_words.value if odd else 0)
        )
        return words, self._parts(words, rows * channels * bits, 0, rows * header)

    def _parts(self, words: int, payload: int, index: int, header: int) -> dict[str, int]:
        padding = words * self.word_bits.value - payload - index - header
        return dict(zip(PARTS, (payload, index, header, padding), strict=True))

    def allows(self, encoding: str) -> bool:
        """Tell whether fully connected layers may be stored so."""
        return encoding in self._allowed


@singledispatch
def _stored(
    connection: FixedConnection, afferent: Afferent, memory: Records, ranges: Ranges
) -> StoredWeights:
    """Return what one afferent stores of a slice."""
    raise no_such_kind(connection, "this memory model")


@_stored.register(FixedDense)
def _(_dense: FixedDense, afferent: Afferent, memory: Records, ranges: Ranges) -> StoredWeights:
    """Take the cheaper encoding."""
    rows = ranges[0][1] - ranges[0][0]
    n_pre, bits, delay = afferent.pre_size, afferent.bits, afferent.delay_bits
    dense = memory.axon_words(np.array([rows]), bits, sparse=False, delay_bits=delay, alike=n_pre)
    whole = StoredWeights("dense", dense[0], n_pre, n_pre, n_pre * rows, dense[1])
    nonzero = afferent.fan_in(ranges[0])
    nonzero = nonzero[nonzero > 0]
    sparse = memory.axon_words(nonzero, bits, sparse=True, delay_bits=delay)
    axons = len(nonzero)
    without = StoredWeights("sparse", sparse[0], axons, axons, int(nonzero.sum()), sparse[1])
    # An axon without synapses on the core needs no entry either, so both columns count.
    return min(
        (part for part in (whole, without) if memory.allows(part.encoding)),
        key=lambda part: part.words + part.entries,
    )


@_stored.register(FixedConv)
def _(conv: FixedConv, afferent: Afferent, memory: Records, ranges: Ranges) -> StoredWeights:
    """Cost a tile: its kernels once, whatever the number of pixels."""
    _, per_group, kh, kw = conv.weight.shape
    start, stop = ranges[0]
    share = len(conv.weight) // conv.groups
    words, bits = 0, dict.fromkeys(PARTS, 0)
    for group in range(start // share, (stop - 1) // share + 1):
        channels = min(stop, (group + 1) * share) - max(start, group * share)
        more, parts = memory.conv_words(per_group * kh * kw, channels, afferent.bits)
        words += more
        bits = {name: bits[name] + parts[name] for name in bits}
    seen = conv.seen(afferent.pre_shape, ranges)
    axons = math.prod(stop - start for start, stop in seen)
    synapses = (stop - start) * per_group * kh * kw
    return StoredWeights("conv", words, memory.conv_axon_entries.value, axons, synapses, bits)
