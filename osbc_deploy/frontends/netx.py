"""NetX networks: as integers, to run what the file says; as a float network, to compress it.

A NetX layer computes with plain integers: ``a = sum(w)``, du = iDecay - 1, dv = vDecay, a bias with
exponent 6. Spatial shapes are stored (C, H, W), which is our order; flattening keeps it. A delay
is that of the layer's axons, and so of the synapses of the layer after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Sign,
)
from osbc_deploy.fixedpoint.ranges import MAX_DELAY, faults
from osbc_deploy.frontends.netx_file import NetxFile, NetxLayer, read_layers
from osbc_deploy.network.graph import (
    INPUT,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
    Shape,
)
from osbc_deploy.network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron
from osbc_deploy.parsing import parse_json

__all__ = ["BIAS_EXP", "DECAY_UNITY", "read_netx", "read_netx_fixed", "stored_weights"]

BIAS_EXP = 6
"""Exponent that lava-dl's loader gives every bias."""
DECAY_UNITY = 4096
"""Decays in a file are parts of this (lava-dl, ``slayer/neuron/cuba.py``: 12 bits)."""


def read_netx_fixed(
    path: str | Path, formats: NumberFormats, *, input_bias: IntArray | None = None
) -> FixedPointNetwork:
    """Read a file as the integers it holds.

    Parameters
    ----------
    path : path
    formats : NumberFormats
        The chip's registers.
    input_bias : ndarray (W, H, C), optional
        Bias mantissas of an input layer that has neurons. They hear nothing else: such a network
        takes an input of shape (1, H, W), of which every place is ignored.

    Raises
    ------
    ArtefactError
        When the file is damaged or inconsistent.
    UnsupportedModelError
        With everything that the chip's registers cannot hold, or we do not support.
    """
    path = Path(path)
    file = read_layers(path)
    with _consistent(path):
        network = _Fixed(file, formats, input_bias).network()
    if wrong := faults(network):
        raise UnsupportedModelError(f"{path}: out of the chip's range", wrong, "Train again.")
    return network


class Stored(NamedTuple):
    """How weights are stored: mantissas, bits, exponent and sign mode."""

    mantissa: IntArray
    bits: int
    exponent: int
    sign: Sign


def stored_weights(weight: IntArray, formats: NumberFormats) -> Stored | None:
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
            return Stored(codes << shift, bits, common - shift, "mixed")
    if low >= 0 and high < 1 << widest:
        return Stored(codes, widest, common, "excitatory")
    if high <= 0 and -low < 1 << widest:
        return Stored(codes, widest, common, "inhibitory")
    return None


class _Fixed:
    """Builds a fixed-point network layer by layer."""

    def __init__(self, file: NetxFile, formats: NumberFormats, input_bias: IntArray | None) -> None:
        self.file, self.formats, self.input_bias = file, formats, input_bias
        self.ours = _manifest(file)
        self.populations: list[FixedPopulation] = []
        self.projections: list[FixedProjection] = []
        self.input_shape: Shape | None = None
        self.delay: IntArray | None = None
        self.flat = False

    def network(self) -> FixedPointNetwork:
        offenders: list[str] = []
        for layer in self.file.layers:
            if layer.kind == "flatten":
                self.flat = True
            elif layer.kind == "input":
                self.input(layer)
            else:
                self.weighted(layer, offenders)
        if self.delay is not None and self.delay.any():
            offenders.append("the last layer: its axons have delays but lead nowhere")
        if offenders:
            raise UnsupportedModelError("layers that cannot be represented", offenders)
        if self.input_shape is None or not self.populations:
            raise ValueError("no layer has neurons")
        return FixedPointNetwork(
            self.input_shape,
            tuple(self.populations),
            tuple(self.projections),
            self.formats,
            self.ours.get("readout", "sum"),
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
        channels, rows, columns = layer.shape
        self.input_shape = (1, rows, columns)
        nothing = FixedConv(np.zeros((channels, 1, 1, 1), np.int16), (1, 1), (0, 0), (1, 1), 1)
        bias = np.zeros((), np.int64)
        if self.input_bias is not None:
            if np.shape(self.input_bias) != layer.shape[::-1]:
                raise ValueError(
                    f"the input bias has shape {np.shape(self.input_bias)}, needed "
                    f"{layer.shape[::-1]}"
                )
            bias = np.asarray(self.input_bias)
        self.projections.append(FixedProjection("layer0", INPUT, "input layer", nothing, 8, 0))
        self.populations.append(self.population("input layer", layer, layer.shape, bias))

    def weighted(self, layer: NetxLayer, offenders: list[str]) -> None:
        weight = layer.weight
        if weight is None:
            raise ValueError(f"layer {layer.number} has no weights")
        if self.input_shape is None:
            if layer.kind == "conv":
                raise ValueError("a convolution comes first and nothing tells its input's shape")
            self.input_shape = (int(weight.shape[1]),)
        before = self.shape or ()
        if layer.kind == "dense" and len(before) == 3 and not self.flat:
            raise ValueError(f"layer {layer.number} needs a flatten layer before it")
        self.flat = False
        ours = self.ours.get("layers", {}).get(str(layer.number), {})
        found = _as_stored(weight, ours) or stored_weights(weight, self.formats)
        if found is None:
            offenders.append(
                f"layer {layer.number}: weights {weight.min()} to {weight.max()} need more than "
                "8 bits"
            )
            # Go on, for what else there is to say.
            found = Stored(np.zeros_like(weight), self.formats.weight_mantissa_bits, 0, "mixed")
        mantissa, bits, exponent, sign = found
        connection: FixedDense | FixedConv
        if layer.kind == "conv":
            connection = FixedConv(mantissa, **layer.geometry)
            if self.delay is not None and self.delay.any():
                offenders.append(f"layer {layer.number}: a convolution of delayed spikes")
        else:
            connection = FixedDense(mantissa, self.synaptic_delay(mantissa, layer.number))
        shape = connection.output_shape(before)
        if shape != layer.shape:
            raise ValueError(f"layer {layer.number} says {layer.shape}, its weights {shape}")
        name = str(ours.get("name", f"layer {layer.number}"))
        pre = self.populations[-1].name if self.populations else INPUT
        self.projections.append(
            FixedProjection(
                str(ours.get("projection", f"layer{layer.number}")),
                pre, name, connection, bits, exponent, sign,
            )
        )  # fmt: skip
        bias = np.zeros((), np.int64) if layer.bias is None else layer.bias
        self.populations.append(self.population(name, layer, shape, bias, ours))
        self.delay = layer.delay

    def synaptic_delay(self, mantissa: IntArray, number: int) -> IntArray | None:
        if self.delay is None or not self.delay.any():
            return None
        delay = np.ravel(self.delay)
        if delay.size not in (1, mantissa.shape[1]) or delay.min() < 0 or delay.max() > MAX_DELAY:
            raise ValueError(
                f"layer {number}: delays before it out of 0 to {MAX_DELAY}, or too few"
            )
        return np.broadcast_to(delay, mantissa.shape)

    def population(
        self,
        name: str,
        layer: NetxLayer,
        shape: Shape,
        bias: IntArray,
        ours: dict[str, Any] | None = None,
    ) -> FixedPopulation:
        size = int(np.prod(shape))
        extra = self.file.extra.get(str(layer.number), {})
        neuron = layer.neuron
        top = self.formats.vth_max
        # Without neurons a layer only integrates: all of v is forgotten, none of u.
        du = spread(neuron.du if neuron else np.array(-1), shape)
        dv = spread(neuron.dv if neuron else np.array(self.formats.decay_unity), shape)
        vth = spread(neuron.vth if neuron else np.array(top), shape)
        mantissa = spread(bias, shape)
        exponent = np.where(mantissa != 0, BIAS_EXP, self.formats.bias_exp_min)
        if "bias_exp" in extra:
            exponent = np.asarray(extra["bias_exp"]).astype(np.int64)
            mantissa = (mantissa << BIAS_EXP) >> exponent
        zero = np.zeros(size, np.int64)
        return FixedPopulation(
            name, shape, du, dv, vth, mantissa, exponent, zero, zero,
            spiking=bool((ours or {}).get("spiking", neuron is not None)),
            v_scale=extra.get("v_scale", np.ones(size)),
            v_offset=extra.get("v_offset", np.zeros(size)),
        )  # fmt: skip


@contextmanager
def _consistent(path: Path) -> Iterator[None]:
    """Say of a file that its parts do not belong together, whatever breaks on it."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ArtefactError(
            f"{path}: inconsistent network ({error}). Export it again from lava-dl."
        ) from error


def _manifest(file: NetxFile) -> dict[str, Any]:
    """Return what a file of ours says beyond NetX; nothing for one of lava-dl's."""
    manifest = file.extra.get("manifest")
    return dict(parse_json(manifest)) if manifest else {}


def _as_stored(weight: IntArray, ours: dict[str, Any]) -> Stored | None:
    """Return the weights as we had stored them, if that gives the same weights."""
    if not ours:
        return None
    exponent = int(ours["weight_exp"])
    mantissa = weight >> exponent if exponent >= 0 else weight << -exponent
    back = mantissa << exponent if exponent >= 0 else mantissa >> -exponent
    if (back != weight).any():
        return None
    return Stored(mantissa, int(ours["weight_bits"]), exponent, ours["sign"])


def spread(values: IntArray, shape: Shape) -> IntArray:
    """Return values that broadcast to (W, H, C) as one per neuron in our order."""
    if values.shape == (1,):
        values = values[0]
    laid_out = np.broadcast_to(values, shape[::-1] if len(shape) == 3 else shape)
    return np.ascontiguousarray(laid_out.T).ravel().astype(np.int64)


def read_netx(path: str | Path) -> Network:
    r"""Read a file as a float network that can be compressed.

    A layer with current decay du and membrane decay dv becomes a leaky neuron with
    :math:`\alpha = dv / 4096` whose weights are divided by :math:`\alpha`, so that its potential
    is the chip's divided by 64; lowering gives the same registers back, up to a common power of
    two. Files of ours also say which layer only integrates and what the layers are called.

    Raises
    ------
    ArtefactError, UnsupportedModelError
        As :func:`read_netx_fixed`, and for what a float network here cannot have: delays, input
        layers with neurons, and biases beside a synaptic current.
    """
    path = Path(path)
    file = read_layers(path)
    with _consistent(path):
        return _float_network(path, file, _manifest(file))


def _float_network(path: Path, file: NetxFile, manifest: dict[str, Any]) -> Network:
    described = manifest.get("layers", {})
    offenders: list[str] = []
    populations: list[Population] = []
    projections: list[Projection] = []
    input_shape: Shape | None = None
    for layer in file.layers:
        if layer.kind == "flatten":
            continue
        if layer.kind == "input":
            input_shape = layer.shape
            if layer.neuron is not None:
                offenders.append(f"layer {layer.number}: an input layer with neurons")
            continue
        if layer.weight is None or layer.neuron is None:
            offenders.append(f"layer {layer.number}: has no neurons")
            continue
        if layer.delay is not None and layer.delay.any():
            offenders.append(f"layer {layer.number}: delays")
        ours = described.get(str(layer.number), {})
        try:
            gain, neuron = _float_neuron(layer, spiking=bool(ours.get("spiking", True)))
        except ValueError as error:
            offenders.append(f"layer {layer.number}: {error}")
            continue
        if input_shape is None:
            input_shape = (int(layer.weight.shape[-1]),)
        weight = layer.weight / gain
        bias = None
        if layer.bias is not None and layer.bias.any():
            bias = np.broadcast_to(layer.bias, layer.shape[:1]) / gain
        connection: Dense | Conv = Dense(weight, bias)
        if layer.kind == "conv":
            connection = Conv(weight, bias, **layer.geometry)
        before = populations[-1].shape if populations else input_shape
        # A dense layer looks at its source flattened.
        if connection.output_shape(before) != layer.shape or (
            layer.kind == "dense" and layer.weight.shape[1] != np.prod(before)
        ):
            raise ArtefactError(
                f"{path}: layer {layer.number} does not take {before} to {layer.shape}. Export it "
                "again from lava-dl."
            )
        name = str(ours.get("name", f"layer {layer.number}"))
        pre = populations[-1].name if populations else INPUT
        label = str(ours.get("projection", f"layer{layer.number}"))
        projections.append(Projection(label, pre, name, connection))
        populations.append(Population(name, layer.shape, neuron))
    if offenders:
        raise UnsupportedModelError(
            f"{path}: layers that cannot be compressed",
            offenders,
            "Run the file as it is with read_netx_fixed, or train without them.",
        )
    if input_shape is None or not populations:
        raise ArtefactError(f"{path}: no layer has neurons. Export it again from lava-dl.")
    notes = file.notes
    readout = manifest.get("readout", "sum")
    if readout != "sum":
        # A float network holds no readout; it is asked for where the network is deployed.
        notes += (f"the file's classes are read by {str(readout)[:20]!r} (--readout)",)
    return Network(input_shape, tuple(populations), tuple(projections), "float64", str(path), notes)


def _float_neuron(layer: NetxLayer, *, spiking: bool = True) -> tuple[float, Neuron]:
    """Return what weights are divided by, and the neuron."""
    neuron = layer.neuron
    if neuron is None or any(x.size != 1 for x in (neuron.du, neuron.dv)):
        raise ValueError("decays that differ between neurons")
    du, dv = int(neuron.du.reshape(())), int(neuron.dv.reshape(()))
    last = DECAY_UNITY - 1
    if not (-1 <= du <= last and 0 <= dv <= last):
        raise ValueError(f"decays du {du}, dv {dv}, allowed -1 to {last} and 0 to {last}")
    forgets, zero = du == last, np.zeros(())
    threshold = spread(neuron.vth, layer.shape).reshape(layer.shape).astype(np.float64)
    if (threshold == threshold.flat[0]).all():
        threshold = threshold.ravel()[:1].reshape(())
    if not forgets and layer.bias is not None and layer.bias.any():
        raise ValueError(
            "a bias beside a synaptic current, which a float layer adds to the current"
        )
    if dv == 0 and not forgets:
        raise ValueError("a synaptic current into a membrane without leak")
    if dv == 0 and not spiking:
        raise ValueError("a readout without leak")
    if dv == 0:
        return 1.0, IF(threshold, zero)
    gain = dv / DECAY_UNITY
    alpha, alpha_u = np.array(gain), np.array((du + 1) / DECAY_UNITY)
    if not spiking:
        # Its threshold is only the largest one a register holds.
        return gain, LI(alpha, zero) if forgets else CubaLI(alpha_u, alpha, zero)
    if forgets:
        return gain, LIF(alpha, zero, threshold, zero)
    return gain, CubaLIF(alpha_u, alpha, zero, threshold, zero)
