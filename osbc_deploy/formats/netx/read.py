"""NetX networks as the integers they hold, to run and map what a file says.

A NetX layer computes with plain integers: ``a = sum(w)``, du = iDecay - 1, dv = vDecay, a bias with
exponent 6. Spatial shapes are stored (C, H, W), which is our order; flattening keeps it. Delays are
those of the layer's own synapses: lava-dl trains them as axons' and loads them so, which is the
same but for neurons with a bias.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Sign,
)
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.formats.netx.file import NetxFile, NetxLayer, consistent, read_layers, spread
from osbc_deploy.formats.netx.limits import BIAS_EXP, loader_keeps
from osbc_deploy.formats.netx.read_float import read_netx
from osbc_deploy.model.graph import Shape
from osbc_deploy.model.readout import readout_fault

__all__ = ["read_netx", "read_netx_fixed", "stored_weights"]


def read_netx_fixed(
    path: str | Path, formats: NumberFormats, *, input_bias: IntArray | None = None
) -> FixedPointNetwork:
    """Read a file as the integers it holds.

    Parameters
    ----------
    path : path
    formats : NumberFormats
        The chip's registers.
    input_bias : ndarray (W, H, C) or (n,), optional
        Bias mantissas of an input layer that has neurons. They hear nothing else: such a network
        takes an input of shape (1, H, W), or (1,) for a flat layer, which is ignored.

    Raises
    ------
    ArtefactError
        When the file is damaged or inconsistent.
    UnsupportedModelError
        With everything that the chip's registers cannot hold, or we do not support.
    """
    path = Path(path)
    file = read_layers(path)
    with consistent(path):
        reading = _Fixed(file, formats, input_bias)
        network = reading.network()
    if reading.offenders:
        raise UnsupportedModelError(
            f"{path}: layers that cannot be represented",
            reading.offenders,
            "Change these layers and export the file again from lava-dl.",
        )
    if wrong := faults(network):
        raise UnsupportedModelError(
            f"{path}: out of the chip's range", wrong, "Train with values in these ranges."
        )
    return network


class StoredCodes(NamedTuple):
    """How weights are stored: mantissas, bits, exponent and sign mode."""

    mantissa: IntArray
    bits: int
    exponent: int
    sign: Sign


def stored_weights(weight: IntArray, formats: NumberFormats) -> StoredCodes | None:
    """Return how plain integer weights are stored.

    Mixed signs are preferred; None where 8 bits, or one sign's 8 bits, do not hold the weights.
    """
    used = int(np.bitwise_or.reduce(np.abs(weight).ravel(), initial=0))
    common = (used & -used).bit_length() - 1 if used else 0
    codes = weight >> common
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    widest = formats.weight_mantissa_bits
    for bits in formats.weight_bits:
        top = 1 << (bits - 1)
        if bits > 1 and -top <= low and high < top:
            shift = widest - bits + 1
            return StoredCodes(codes << shift, bits, common - shift, "mixed")
    if low >= 0 and high < 1 << widest:
        return StoredCodes(codes, widest, common, "excitatory")
    if high <= 0 and -low < 1 << widest:
        return StoredCodes(codes, widest, common, "inhibitory")
    return None


class _Fixed:
    """Builds a fixed-point network layer by layer."""

    def __init__(self, file: NetxFile, formats: NumberFormats, input_bias: IntArray | None) -> None:
        self.file, self.formats, self.input_bias = file, formats, input_bias
        self.manifest = file.manifest
        self.populations: list[FixedPopulation] = []
        self.projections: list[FixedProjection] = []
        self.input_shape: Shape | None = None
        self.offenders: list[str] = []

    def network(self) -> FixedPointNetwork:
        for layer in self.file.layers:
            if layer.kind == "input":
                self.input(layer)
            elif layer.kind != "flatten":
                self.weighted(layer)
        if self.input_shape is None or not self.populations:
            raise ValueError("no layer has neurons")
        readout = self.manifest.get("readout", "sum")
        if fault := readout_fault(readout, self.populations[-1].size):
            raise ValueError(fault)
        return FixedPointNetwork(
            self.input_shape,
            tuple(self.populations),
            tuple(self.projections),
            self.formats,
            readout,
        )

    @property
    def shape(self) -> Shape | None:
        return self.populations[-1].shape if self.populations else self.input_shape

    def input(self, layer: NetxLayer) -> None:
        if layer.number:
            raise ValueError(f"layer {layer.number} is an input but not the first")
        if layer.neuron is None:
            self.input_shape = layer.shape
            return
        # Neurons driven by a bias alone: they get a projection that carries nothing.
        shape = layer.shape
        nothing: FixedDense | FixedConv
        if len(shape) == 1:
            self.input_shape = (1,)
            nothing = FixedDense(np.zeros((shape[0], 1), np.int16))
        else:
            self.input_shape = (1, *shape[1:])
            weight = np.zeros((shape[0], 1, 1, 1), np.int16)
            nothing = FixedConv(weight, (1, 1), (0, 0), (1, 1), 1)
        bias = np.zeros((), np.int64)
        if self.input_bias is not None:
            if np.shape(self.input_bias) != shape[::-1]:
                raise ValueError(
                    f"the input bias has shape {np.shape(self.input_bias)}, needed {shape[::-1]}"
                )
            bias = np.asarray(self.input_bias)
        self.projections.append(FixedProjection("layer0", INPUT, "input layer", nothing, 8, 0))
        self.populations.append(self.population("input layer", layer, bias, {}))

    def weighted(self, layer: NetxLayer) -> None:
        weight = layer.weight
        if weight is None:
            raise ValueError(f"layer {layer.number} has no weights")
        if self.input_shape is None:
            if layer.kind == "conv":
                raise ValueError("a convolution comes first and nothing tells its input's shape")
            self.input_shape = (int(weight.shape[1]),)
        before = self.shape or ()
        ours = self.manifest.get("layers", {}).get(str(layer.number), {})
        stored = self.stored(layer, weight, ours)
        connection: FixedDense | FixedConv
        if layer.kind == "conv":
            connection = FixedConv(stored.mantissa, **layer.geometry)
        else:
            delay = None if layer.delay is None or not layer.delay.any() else layer.delay
            connection = FixedDense(stored.mantissa, delay)
        shape = connection.output_shape(before)
        if shape != layer.shape:
            raise ValueError(f"layer {layer.number} says {layer.shape}, its weights {shape}")
        name = str(ours.get("name", f"layer {layer.number}"))
        label = str(ours.get("projection", f"layer{layer.number}"))
        pre = self.populations[-1].name if self.populations else INPUT
        self.projections.append(FixedProjection(label, pre, name, connection, *stored[1:]))
        if layer.weight_rec is not None:
            about = ours.get("recurrent", {})
            label = str(about.get("projection", f"{label} feedback"))
            stored = self.stored(layer, layer.weight_rec, about)
            feedback = FixedDense(stored.mantissa)
            self.projections.append(FixedProjection(label, name, name, feedback, *stored[1:]))
        bias = np.zeros((), np.int64) if layer.bias is None else layer.bias
        self.populations.append(self.population(name, layer, bias, ours))

    def stored(self, layer: NetxLayer, weight: IntArray, ours: dict[str, Any]) -> StoredCodes:
        """Return how weights are stored: as the loader would, or it is an offender."""
        parts = [w for w in (layer.weight, layer.weight_rec) if w is not None]
        found = _as_stored(weight, ours) or stored_weights(weight, self.formats)
        if found is None:
            why = "need more than 8 bits"
        elif weight is layer.weight and layer.kind != "conv" and not loader_keeps(*parts):
            why = "are not kept by lava-dl's loader"
        else:
            return found
        low, high = min(int(w.min()) for w in parts), max(int(w.max()) for w in parts)
        line = f"layer {layer.number}: weights {low} to {high} {why}"
        self.offenders += [line] if line not in self.offenders else []
        # Go on, for what else there is to say.
        return StoredCodes(np.zeros_like(weight), self.formats.weight_mantissa_bits, 0, "mixed")

    def population(
        self, name: str, layer: NetxLayer, bias: IntArray, ours: dict[str, Any]
    ) -> FixedPopulation:
        shape, neuron = layer.shape, layer.neuron
        size = int(np.prod(shape))
        extra = self.file.extra.get(str(layer.number), {})
        if neuron is None and bias.any():
            self.offenders.append(f"layer {layer.number}: a bias without neurons")
        # Without neurons a layer only adds up. The loader lets its current do that, with a decay
        # of the potential that no register holds; a potential without leak does the same.
        du = spread(neuron.du if neuron else np.array(self.formats.decay_max), shape)
        dv = spread(neuron.dv if neuron else np.zeros((), np.int64), shape)
        vth = spread(neuron.vth if neuron else np.array(self.formats.vth_max), shape)
        mantissa = spread(bias, shape)
        exponent = np.where(mantissa != 0, BIAS_EXP, self.formats.bias_exp_min)
        if "bias_exp" in extra:
            exponent = np.asarray(extra["bias_exp"]).astype(np.int64)
            mantissa = (mantissa << BIAS_EXP) >> exponent
        zero = np.zeros(size, np.int64)
        return FixedPopulation(
            name, shape, du, dv, vth, mantissa, exponent, zero, zero,
            spiking=bool(ours.get("spiking", neuron is not None)),
            v_scale=extra.get("v_scale", np.ones(size)),
            v_offset=extra.get("v_offset", np.zeros(size)),
        )  # fmt: skip


def _as_stored(weight: IntArray, ours: dict[str, Any]) -> StoredCodes | None:
    """Return the weights as we had stored them, if that gives the same weights."""
    if not ours:
        return None
    exponent = int(ours["weight_exp"])
    mantissa = weight >> exponent if exponent >= 0 else weight << -exponent
    back = mantissa << exponent if exponent >= 0 else mantissa >> -exponent
    if (back != weight).any():
        return None
    return StoredCodes(mantissa, int(ours["weight_bits"]), exponent, ours["sign"])
