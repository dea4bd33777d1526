"""What a slice of a layer costs on one core: exact integer arithmetic, pure functions.

The rules are those that reproduce the utilization tables Intel's Loihi 2 compiler prints (see
the target files for each number's source): a dense or sparse axon is one record of
``n (bits + index) + header`` bits in whole words; a convolution stores every kernel row once per
core, without indices; ``total`` is the plain sum of all columns against the pool they share.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.target import MemoryRules

__all__ = ["Resources", "axon_words", "conv_words", "record_words"]


@dataclass(frozen=True)
class Resources:
    """What is used of each resource of a core.

    Attributes
    ----------
    axon_in : int
        Entries for incoming axons.
    neuron_groups : int
        Distinct sets of (du, dv, vth).
    neuron_state : int
        Words of neuron state.
    synapses : int
        Words of synapse memory.
    axon_map, axon_mem : int
        Entries for outgoing axons.
    payload_bits, index_bits, header_bits, padding_bits : int
        What the synapse words consist of.
    """

    axon_in: int
    neuron_groups: int
    neuron_state: int
    synapses: int
    axon_map: int
    axon_mem: int
    payload_bits: int = 0
    index_bits: int = 0
    header_bits: int = 0
    padding_bits: int = 0

    @property
    def total(self) -> int:
        """Entries of the shared pool."""
        return (
            self.axon_in
            + self.neuron_groups
            + self.neuron_state
            + self.synapses
            + self.axon_map
            + self.axon_mem
        )

    def used(self) -> dict[str, int]:
        """Return the use of every capped resource and of the pool, by name."""
        names = [f.name for f in fields(self) if not f.name.endswith("_bits")]
        return {**{name: getattr(self, name) for name in names}, "total": self.total}


def record_words(synapses: IntArray, bits: int, index: int, header: int, word: int) -> IntArray:
    """Return the words of axons with so many synapses each: ``ceil((n (b + i) + h) / word)``."""
    return -(-(synapses * (bits + index) + header) // word)


def axon_words(
    synapses: IntArray, bits: int, rules: MemoryRules, word_bits: int, *, sparse: bool
) -> tuple[int, dict[str, int]]:
    """Return words and composition of the synapse memory of dense or sparse axons.

    Parameters
    ----------
    synapses : ndarray of int (axons,)
        Synapses of each axon that reaches the core; at least 1.
    bits : int
        Stored weight bits.
    sparse : bool
        Whether only non-zero weights are stored, with the record a sparse synapse is taken to
        have.
    """
    index = (rules.sparse_record_bits if sparse else rules.index_bits).value
    header = rules.header_bits.value
    words = int(record_words(synapses, bits, index, header, word_bits).sum())
    count = int(synapses.sum())
    return words, _composition(
        words, word_bits, count * bits, count * index, len(synapses) * header
    )


def conv_words(
    rows: int, channels: int, bits: int, rules: MemoryRules, word_bits: int
) -> tuple[int, dict[str, int]]:
    """Return words and composition of shared kernels: `rows` rows of `channels` weights.

    A row holds the weights of all output channels for one kernel position and input channel.
    """
    header = rules.header_bits.value
    odd = channels & (channels - 1) != 0
    words = rows * (
        -(-(channels * bits + header) // word_bits) + (rules.conv_odd_row_words.value if odd else 0)
    )
    return words, _composition(words, word_bits, rows * channels * bits, 0, rows * header)


def _composition(words: int, word: int, payload: int, index: int, header: int) -> dict[str, int]:
    return {
        "payload_bits": payload,
        "index_bits": index,
        "header_bits": header,
        "padding_bits": words * word - payload - index - header,
    }


def neuron_groups(*parameters: IntArray) -> int:
    """Return the number of distinct parameter sets among neurons."""
    return len(np.unique(np.stack(parameters, axis=1), axis=0))
