"""One layer per core, cores that differ: the memory of DYNAP-CNN chips.

Kernels and neurons are addressed by bit fields, so every dimension of an address is rounded up to
a power of two (synsense/sinabs, backend/dynapcnn: the code rounds rows and columns of the feature
map each, which its documentation leaves out). A layer is never split.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from osbc_deploy.chip.facts import Fact, Positive, Strict, Width
from osbc_deploy.chip.layers import Afferent, Layer, Ranges, Usage
from osbc_deploy.fixedpoint.network import FixedConv

__all__ = ["Tables"]


class TableCaps(Strict):
    """What the cores hold, one value for each core, and what a layer may measure."""

    kernel: Fact[list[Positive]]
    neuron: Fact[list[Positive]]
    bias: Fact[list[Positive]]
    input_side: Fact[Positive]
    output_side: Fact[Positive]
    channels: Fact[Positive]
    kernel_side: Fact[Positive]
    padding: Fact[Positive]


class Tables(Strict):
    """Memory model of one layer per core.

    Attributes
    ----------
    word_bits : Fact
    caps : TableCaps
        ``kernel``, ``neuron`` and ``bias`` in entries, one value for each core.
    kernel_words, neuron_words, bias_words : Fact
        Words of an entry.
    strides : Fact
        The strides there are.
    """

    arrangement: ClassVar[Literal["one each"]] = "one each"
    """Every layer gets one of the cores that can hold it."""

    model: Literal["tables"]
    word_bits: Fact[Width]
    caps: TableCaps
    kernel_words: Fact[Positive]
    neuron_words: Fact[Positive]
    bias_words: Fact[Positive]
    strides: Fact[Annotated[list[Positive], Field(min_length=1, max_length=64)]]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        return 1

    def limits(self) -> dict[str, int]:
        """Return the largest capacity any core has of each resource."""
        return {
            name: int(np.max(getattr(self.caps, name).value)) for name in TableCaps.model_fields
        }

    def core_limits(self, core: int) -> dict[str, int]:
        """Return the capacity of one core."""
        caps = {name: getattr(self.caps, name).value for name in TableCaps.model_fields}
        return {name: v[core] if isinstance(v, list) else v for name, v in caps.items()}

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of so many cores."""
        return [
            f"memory.caps.{name} lists {len(values)} cores, chip.cores is {cores}"
            for name in ("kernel", "neuron", "bias")
            if len(values := getattr(self.caps, name).value) != cores
        ]

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a layer uses on its core; `ranges` is the whole layer."""
        del ranges
        (afferent, *more) = layer.afferents
        faults = [f"{layer}: {len(more) + 1} projections into one layer, 1 is possible"] * bool(
            more
        )
        inputs, outputs, kernel, stride, padding, groups = _as_convolution(afferent, layer)
        if groups > 1:
            faults.append(f"{layer}: a convolution in {groups} groups, 1 is possible")
        allowed = self.strides.value
        faults += [
            f"{layer}: stride {s}, {', '.join(map(str, allowed))} are possible"
            for s in sorted(set(stride) - set(allowed))
        ]
        sets = len(np.unique(layer.neuron_sets))
        if sets > 1:
            faults.append(f"{layer}: {sets} different neurons in one layer, 1 is possible")
        channels, features = inputs[0], outputs[0]
        used = {
            "kernel": channels << (_bits(kernel[0] * kernel[1]) + _bits(features)),
            "neuron": features << (_bits(outputs[1]) + _bits(outputs[2])),
            "bias": features if layer.biased else 0,
            "input_side": max(inputs[1:]),
            "output_side": max(outputs[1:]),
            "channels": max(channels, features),
            "kernel_side": max(kernel),
            "padding": max(padding),
        }
        payload = afferent.connection.weight.size * afferent.bits
        kernel_bits = used["kernel"] * self.kernel_words.value * self.word_bits.value
        return Usage(
            used,
            words=used["kernel"] * self.kernel_words.value
            + used["neuron"] * self.neuron_words.value
            + used["bias"] * self.bias_words.value,
            neurons=layer.size,
            axons=afferent.pre_size,
            synapses=int(afferent.connection.weight.size),
            encoding="conv" if isinstance(afferent.connection, FixedConv) else "dense",
            bits={
                "payload": payload,
                "index": 0,
                "header": 0,
                "padding": max(0, kernel_bits - payload),
            },
            faults=tuple(faults),
        )


def _bits(count: int) -> int:
    """Return the address bits for so many entries."""
    return max(0, count - 1).bit_length()


_Shape3 = tuple[int, int, int]
_Pair = tuple[int, int]


def _as_convolution(
    afferent: Afferent, layer: Layer
) -> tuple[_Shape3, _Shape3, _Pair, _Pair, _Pair, int]:
    """Return source, result, kernel, stride, padding and groups; a dense layer is a full kernel."""
    shape = afferent.pre_shape
    conv = afferent.connection
    if isinstance(conv, FixedConv):
        _, _, kh, kw = conv.weight.shape
        (dh, dw) = conv.dilation
        kernel = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
        source, result = (shape[0], shape[1], shape[2]), layer.shape
        out = (result[0], result[1], result[2])
        return source, out, kernel, conv.stride, conv.padding, conv.groups
    channels, height, width = shape if len(shape) == 3 else (afferent.pre_size, 1, 1)
    source = (channels, height, width)
    return source, (layer.size, 1, 1), (height, width), (1, 1), (0, 0), 1
