"""NetX networks as float networks, to compress them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import ArtefactError, UnsupportedModelError
from osbc_deploy.formats.netx.file import NetxFile, NetxLayer, consistent, read_layers, spread
from osbc_deploy.frameworks.norse.neurons import IF, LI, LIF, CubaLI, CubaLIF
from osbc_deploy.model.graph import (
    INPUT,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
    Shape,
)
from osbc_deploy.model.neurons import Neuron

__all__ = ["read_netx"]

DECAY_UNITY = 4096
"""Decays in a file are parts of this (lava-dl, ``slayer/neuron/cuba.py``: 12 bits)."""


def read_netx(path: str | Path) -> Network:
    r"""Read a file as a float network that can be compressed.

    A layer with current decay du and membrane decay dv becomes a leaky neuron with
    :math:`\alpha = dv / 4096` whose weights are divided by :math:`\alpha`, so that its potential
    is the chip's divided by 64; lowering gives the same registers back, up to a common power of
    two. A recurrent layer's population projects to itself as well. Files of ours also say which
    layer only integrates and what the layers are called.

    Raises
    ------
    ArtefactError, UnsupportedModelError
        As :func:`osbc_deploy.formats.netx.read.read_netx_fixed`, and for what a float network here
        cannot have: delays, input layers with neurons, and biases beside a synaptic current.
    """
    path = Path(path)
    file = read_layers(path)
    with consistent(path):
        return _float_network(path, file)


def _float_network(path: Path, file: NetxFile) -> Network:
    manifest = file.manifest
    described: dict[str, Any] = manifest.get("layers", {})
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
            connection = _float_connection(layer, layer.weight / gain, gain)
        except ValueError as error:
            offenders.append(f"layer {layer.number}: {error}")
            continue
        if input_shape is None:
            input_shape = (int(layer.weight.shape[-1]),)
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
        if layer.weight_rec is not None:
            label = str(ours.get("recurrent", {}).get("projection", f"{label} feedback"))
            projections.append(Projection(label, name, name, Dense(layer.weight_rec / gain)))
        populations.append(Population(name, layer.shape, neuron))
    if offenders:
        raise UnsupportedModelError(
            f"{path}: layers that cannot be compressed",
            offenders,
            "Run the file as it is with osbc_deploy.formats.netx.read.read_netx_fixed, or train "
            "without them.",
        )
    if input_shape is None or not populations:
        raise ArtefactError(f"{path}: no layer has neurons. Export it again from lava-dl.")
    notes = file.notes
    readout = manifest.get("readout", "sum")
    if readout != "sum":
        # A float network holds no readout; it is asked for where the network is deployed.
        notes += (f"the file's classes are read by {str(readout)[:20]!r} (--readout)",)
    return Network(input_shape, tuple(populations), tuple(projections), "float64", str(path), notes)


def _float_connection(layer: NetxLayer, weight: FloatArray, gain: float) -> Dense | Conv:
    bias = None
    if layer.bias is not None and layer.bias.any():
        by_channel = spread(layer.bias, layer.shape).reshape(layer.shape[0], -1)
        if (by_channel != by_channel[:, :1]).any():
            raise ValueError("biases that differ within a channel")
        bias = by_channel[:, 0] / gain
    if layer.kind == "conv":
        return Conv(weight, bias, **layer.geometry)
    return Dense(weight, bias)


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
