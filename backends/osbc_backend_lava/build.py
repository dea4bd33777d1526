"""Build Lava processes from a fixed-point network.

Lava's Conv works on (X, Y, C) and flips its kernel, so populations of shape (C, H, W) are laid
out as (W, H, C) and the columns of a dense matrix that follows one are permuted to match.
Imported in the worker only, after :func:`osbc_backend_lava.compatibility.prepare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import Read
from lava.proc.lif.process import LIF, LIFReset
from lava.utils.weightutils import SignMode
from numpy.typing import NDArray

from osbc_backend_lava.streams import Player, Recorder
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)

__all__ = ["Layer", "build", "from_lava", "to_lava"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """The Lava processes of one population; `probe` reads the potentials of a readout."""

    population: FixedPopulation
    connection: Any
    neurons: Any
    raster: Path | None
    probe: Any

    @property
    def buffer(self) -> Any:
        """The variable that holds the activation to be delivered in the next step."""
        return getattr(self.connection, "a_buff", None) or self.connection.a_buf


def to_lava(values: Array, shape: tuple[int, ...]) -> Array:
    """Lay out values (..., size) of a population of `shape` as Lava has them."""
    values = values.reshape(*values.shape[:-1], *shape)
    return values.swapaxes(-1, -3) if len(shape) == 3 else values


def from_lava(values: Array, shape: tuple[int, ...]) -> Array:
    """Undo :func:`to_lava`: return values (..., size) in the population's own order."""
    ordered = values.swapaxes(-1, -3) if len(shape) == 3 else values
    return np.ascontiguousarray(ordered).reshape(*values.shape[: -len(shape)], -1)


def build(
    network: FixedPointNetwork, source: Path, steps: int, reset_interval: int | None
) -> tuple[Layer, ...]:
    """Build and connect the processes.

    Parameters
    ----------
    network : FixedPointNetwork
    source : Path
        The .npy file with the input, laid out as Lava has it; rasters are recorded beside it.
    steps : int
        Lava steps that will be run in all.
    reset_interval : int or None
        Set all states to 0 so often, each population one step after the one before it.
    """
    player = Player(path=source, shape=_lava_shape(network.input_shape))
    port = player.s_out
    layers = []
    for delay, (projection, population) in enumerate(
        zip(network.projections, network.populations, strict=True), start=1
    ):
        connection = _connection(projection, network.shape_of(projection.pre))
        neurons = _neurons(population, reset_interval, delay)
        if port.shape != connection.s_in.shape:
            port = port.reshape(connection.s_in.shape)
        port.connect(connection.s_in)
        connection.a_out.connect(neurons.a_in)
        raster = probe = None
        if population.spiking:
            shape = neurons.s_out.shape
            raster = source.with_name(f"raster{delay}.npy")
            np.save(raster, np.zeros((steps, *shape), np.uint8))
            neurons.s_out.connect(Recorder(path=raster, shape=shape).a_in)
        else:
            probe = Read(buffer=steps)
            probe.connect_var(neurons.v)
        layers.append(Layer(population, connection, neurons, raster, probe))
        port = neurons.s_out
    return tuple(layers)


def _lava_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if len(shape) == 3 else shape


def _connection(projection: FixedProjection, pre_shape: tuple[int, ...]) -> Any:
    connection = projection.connection
    if isinstance(connection, FixedConv):
        return _convolution(projection, connection, pre_shape)
    weight = to_lava(connection.weight.astype(np.int32), pre_shape)
    return Dense(
        weights=np.ascontiguousarray(weight).reshape(len(weight), -1),
        weight_exp=projection.weight_exp,
        num_weight_bits=projection.weight_bits,
        sign_mode=SignMode.MIXED,
    )


def _convolution(
    projection: FixedProjection, connection: FixedConv, pre_shape: tuple[int, ...]
) -> Any:
    # Conv ignores the exponent, so it goes into the weights; that is exact both ways, because
    # mantissas are multiples of every power of two that a negative exponent takes away.
    weight = connection.weight.astype(np.int64)
    exponent = projection.weight_exp
    scaled = weight << exponent if exponent >= 0 else weight >> -exponent
    if exponent < 0 and (scaled << -exponent != weight).any():
        raise ValueError(f"{projection.name}: weights are not multiples of 2^{-exponent}")
    # (out, in, kh, kw) -> (out, kw, kh, in), both spatial axes flipped.
    kernel = scaled.transpose(0, 3, 2, 1)[:, ::-1, ::-1]
    return Conv(
        weight=np.ascontiguousarray(kernel, np.int32),
        input_shape=pre_shape[::-1],
        stride=connection.stride[::-1],
        padding=connection.padding[::-1],
        dilation=connection.dilation[::-1],
        groups=connection.groups,
    )


def _neurons(population: FixedPopulation, reset_interval: int | None, delay: int) -> Any:
    def per_neuron(values: Array) -> Array:
        return np.ascontiguousarray(to_lava(values.astype(np.int32), population.shape))

    registers = {
        "shape": _lava_shape(population.shape),
        "u": per_neuron(population.u_init),
        "v": per_neuron(population.v_init),
        "du": per_neuron(population.du),
        "dv": per_neuron(population.dv),
        "vth": per_neuron(population.vth),
        "bias_mant": per_neuron(population.bias_mant),
        "bias_exp": per_neuron(population.bias_exp),
    }
    if reset_interval is None:
        return LIF(**registers)
    # Steps count from 1, and population `delay` sees the first input at step 1 + delay.
    return LIFReset(**registers, reset_interval=reset_interval, reset_offset=1 + delay)
