"""One layer per core, cores that differ: the memory of DYNAP-CNN chips.

Kernels and neurons are addressed by bit fields, so every dimension of an address is rounded up to
a power of two (SynSense, synsense/sinabs 3.1.3, backend/dynapcnn/dynapcnn_layer.py: the code rounds
rows and columns of the feature map each, which its documentation leaves out). A layer is never
split. A core adds up the spikes of a window before it sends them, so poolings take no memory.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from osbc_deploy.chip.facts import Fact, Positive, Strict
from osbc_deploy.chip.layers import Afferent, Layer, Ranges, Usage
from osbc_deploy.chip.memory.base import Arrangement, MemoryBase
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.network import Pooling
from osbc_deploy.lower.merge import separate
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.graph import Pair, Shape

__all__ = ["Tables"]


class TableCaps(Strict):
    """What the cores hold, one value for each core."""

    kernel: Fact[list[Positive]]
    neuron: Fact[list[Positive]]
    bias: Fact[list[Positive]]


class TableRules(Strict):
    """What a layer may measure, whatever its core holds.

    Attributes
    ----------
    input_side, output_side, channels, kernel_side, padding, dilation : Fact
        The largest; `output_side` of what is sent, so after the pooling.
    strides, poolings : Fact
        Those there are.
    destinations : Fact
        Layers that one layer can send to.
    """

    input_side: Fact[Positive]
    output_side: Fact[Positive]
    channels: Fact[Positive]
    kernel_side: Fact[Positive]
    padding: Fact[Positive]
    dilation: Fact[Positive]
    strides: Fact[Annotated[list[Positive], Field(min_length=1, max_length=64)]]
    poolings: Fact[Annotated[list[Positive], Field(min_length=1, max_length=64)]]
    destinations: Fact[Positive]


class _Kernel(NamedTuple):
    """A projection as its core holds it, behind the pooling of the core before it."""

    source: Shape
    shape: Shape
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pooling: int = 1


class Tables(MemoryBase):
    """Memory model of one layer per core.

    Attributes
    ----------
    word_bits : Fact
    caps : TableCaps
        In entries, one value for each core.
    rules : TableRules
    kernel_words, neuron_words, bias_words : Fact
        Words of an entry.
    """

    arrangement: ClassVar[Arrangement] = "one each"
    """Every layer gets one of the cores that can hold it."""

    caps: TableCaps
    rules: TableRules
    kernel_words: Fact[Positive]
    neuron_words: Fact[Positive]
    bias_words: Fact[Positive]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        return 1

    def limits(self) -> dict[str, int]:
        """Return the largest capacity any core has of each resource."""
        return {name: max(getattr(self.caps, name).value) for name in TableCaps.model_fields}

    def core_limits(self, core: int) -> dict[str, int]:
        """Return the capacity of one core."""
        return {name: getattr(self.caps, name).value[core] for name in TableCaps.model_fields}

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of this many cores."""
        return [
            f"memory.caps.{name} lists {len(values)} cores, chip.cores is {cores}"
            for name in TableCaps.model_fields
            if len(values := getattr(self.caps, name).value) != cores
        ]

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a layer uses on its core; `ranges` is the whole layer."""
        del ranges
        afferent = layer.afferents[0]
        kernel = self._kernel(afferent)
        features, _, height, width = kernel.shape
        rows, columns = (*layer.shape, 1, 1)[1:3]
        used = {
            "kernel": kernel.source[0] << (_bits(height * width) + _bits(features)),
            "neuron": features << (_bits(rows) + _bits(columns)),
            "bias": features if layer.biased else 0,
        }
        synapses = math.prod(kernel.shape)
        payload = synapses * afferent.bits
        kernel_bits = used["kernel"] * self.kernel_words.value * self.word_bits.value
        return Usage(
            used,
            words=used["kernel"] * self.kernel_words.value
            + used["neuron"] * self.neuron_words.value
            + used["bias"] * self.bias_words.value,
            neurons=layer.size,
            axons=afferent.pre_size,
            synapses=synapses,
            encoding=afferent.connection.kind,
            bits={
                "payload": payload,
                "index": 0,
                "header": 0,
                "padding": max(0, kernel_bits - payload),
            },
        )

    def broken_rules(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what the chip cannot do at all, however much room its cores have."""
        return [
            f"{layer}: {text}" for layer in layers for text in self._broken_rules(layer, layers)
        ]

    def _broken_rules(self, layer: Layer, layers: tuple[Layer, ...]) -> list[str]:
        rules = self.rules
        kernel = self._kernel(layer.afferents[0])
        rows, columns = kernel.shape[2:]
        sent = [
            self._kernel(afferent)
            for post in layers
            for afferent in post.afferents
            if afferent.pre == layer.name
        ]
        sides = [max(behind.source[1:]) for behind in sent] or [max(layer.shape[1:], default=1)]
        found = []
        if len(layer.afferents) > 1:
            found.append(f"{len(layer.afferents)} projections into one layer, 1 is possible")
        if kernel.groups > 1:
            found.append(f"a convolution in {kernel.groups} groups, 1 is possible")
        if rows != columns:
            found.append(f"a kernel of {rows} x {columns}, square ones are possible")
        allowed = rules.strides.value
        found += [
            f"stride {s}, {', '.join(map(str, allowed))} are possible"
            for s in sorted(set(kernel.stride) - set(allowed))
        ]
        for what, size, most in (
            ("an input", max(kernel.source[1:]), rules.input_side.value),
            ("an output", max(sides), rules.output_side.value),
            ("a kernel", max(rows, columns), rules.kernel_side.value),
            ("a padding", max(kernel.padding), rules.padding.value),
        ):
            if size > most:
                found.append(f"{what} of {size} pixels a side, {most} are possible")
        if max(kernel.dilation) > rules.dilation.value:
            found.append(
                f"dilation {max(kernel.dilation)}, {rules.dilation.value} is possible; write the "
                "kernel out with the zeros between its weights"
            )
        channels = max(kernel.source[0], kernel.shape[0])
        if channels > rules.channels.value:
            found.append(f"{channels} channels, {rules.channels.value} are possible")
        if len(sent) > rules.destinations.value:
            found.append(f"{len(sent)} destinations, {rules.destinations.value} are possible")
        if any(afferent.delay_bits for afferent in layer.afferents):
            found.append("synaptic delays, none are possible")
        decays = len(np.unique(layer.decay_sets))
        if max(decays, layer.thresholds) > 1:
            what = f"{decays} decays" if decays > 1 else f"{layer.thresholds} thresholds"
            found.append(f"different neurons in one layer ({what}), 1 kind is possible")
        return found

    def notes(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return the kernels that a merged pooling made larger than cores would need."""
        found = []
        for layer in layers:
            afferent = layer.afferents[0]
            if self._kernel(afferent).pooling > 1:
                continue
            if afferent.pooling is not None:
                (rows, columns), why = afferent.pooling.window, "cores do not have that one"
            else:
                sides = (p for p in self.rules.poolings.value if _repeats(afferent, p))
                rows = columns = max(sides, default=1)
                why = "the file does not say so, deploying again writes it down"
            if (rows, columns) != (1, 1):
                found.append(
                    f"{layer}: counted as it stands, although its weights repeat in windows of "
                    f"{rows} x {columns} as a merged pooling does ({why})"
                )
        return found

    def _kernel(self, afferent: Afferent) -> _Kernel:
        """Return how a core holds a projection; a dense one is a kernel as large as its source."""
        connection, source, pooling = afferent.connection, afferent.pre_shape, 1
        if afferent.pooling is not None:
            rows, columns = afferent.pooling.window
            if rows == columns and rows in self.rules.poolings.value:
                connection = afferent.unpooled
                source, pooling = (source[0], source[1] // rows, source[2] // rows), rows
        return _kernel(connection, source, pooling)


@singledispatch
def _kernel(connection: FixedConnection, source: Shape, pooling: int) -> _Kernel:
    """Return how a core holds a connection behind a pooling."""
    raise no_such_kind(connection, "this memory model")


@_kernel.register(FixedDense)
def _(dense: FixedDense, source: Shape, pooling: int) -> _Kernel:
    source = source if len(source) == 3 else (math.prod(source), 1, 1)
    return _Kernel(source, (len(dense.weight), *source), pooling=pooling)


@_kernel.register(FixedConv)
def _(conv: FixedConv, source: Shape, pooling: int) -> _Kernel:
    return _Kernel(source, conv.weight.shape, **conv.geometry, pooling=pooling)


def _repeats(afferent: Afferent, side: int) -> bool:
    """Tell whether weights are what merging a pooling of this side makes."""
    try:
        separate(afferent.connection, Pooling((side, side)), afferent.pre_shape)
    except ValueError:
        return False
    return True


def _bits(count: int) -> int:
    """Return the address bits for this many entries."""
    return max(0, count - 1).bit_length()
