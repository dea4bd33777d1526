"""Write a network as the NetX file (HDF5) that Loihi 2 users load with lava-dl."""

from __future__ import annotations

import io
import json
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.loihi import effective_bias
from osbc_deploy.fixedpoint.network import (
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.formats.netx.file import OURS
from osbc_deploy.formats.netx.limits import BIAS_EXP, check_writable, plain_weights
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape
from osbc_deploy.writing import write_whole

__all__ = ["write_netx"]


def write_netx(network: FixedPointNetwork, path: str | Path) -> None:
    """Write a network, whole or not at all; read back it is the same.

    Parameters
    ----------
    network : FixedPointNetwork
        A chain of populations, each of which may feed back to itself.
    path : path
        Replaced if it is a NetX file.

    Raises
    ------
    UnsupportedModelError
        With everything the format, or lava-dl's loader, cannot hold.
    UsageError
        When the path cannot be written, or holds something else.
    """
    import h5py

    path = Path(path)
    check_writable(network)
    if path.exists() and not (path.is_file() and h5py.is_hdf5(path)):
        raise UsageError(f"{path}: exists and is not a NetX file. Choose another name.")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        _write(network, file)
    write_whole(path, content.getvalue())


def _write(network: FixedPointNetwork, file: Any) -> None:
    layers = file.create_group("layer")
    ours = file.create_group(OURS)
    described: dict[str, Any] = {}
    start = layers.create_group("0")
    start["type"] = np.array([b"input"])
    start["shape"] = np.array(network.input_shape)
    number, shape = 1, network.input_shape
    for population in network.populations:
        afferents = network.afferents(population.name)
        recurrent = next((p for p in afferents if p.pre == population.name), None)
        (projection,) = (p for p in afferents if p is not recurrent)
        connection = projection.connection
        if not connection.convolutional and len(shape) == 3:
            layers.create_group(str(number))["type"] = np.array([b"flatten"])
            number += 1
        group = layers.create_group(str(number))
        _write_connection(connection, group, plain_weights(projection), recurrent)
        shape = population.shape
        group["shape"] = np.array(shape)
        _write_neurons(group, population)
        extra = ours.create_group(str(number))
        for name in ("v_scale", "v_offset"):
            extra[name] = getattr(population, name)
        extra["bias_exp"] = population.bias_exp.astype(np.int8)
        described[str(number)] = {
            "name": population.name,
            "spiking": population.spiking,
            **_as_stored(projection),
        }
        if recurrent is not None:
            described[str(number)]["recurrent"] = _as_stored(recurrent)
        number += 1
    manifest = {
        "generator": f"osbc-deploy {__version__}",
        "readout": network.readout,
        "layers": described,
    }
    ours["manifest"] = json.dumps(manifest)


def _as_stored(projection: FixedProjection) -> dict[str, Any]:
    """Return what plain integers do not tell of a projection."""
    return {
        "projection": projection.name,
        "weight_bits": projection.weight_bits,
        "weight_exp": projection.weight_exp,
        "sign": projection.sign,
    }


@singledispatch
def _write_connection(
    connection: FixedConnection, group: Any, weight: IntArray, recurrent: FixedProjection | None
) -> None:
    """Write a connection, whose weights are these integers, and the feedback beside it."""
    raise no_such_kind(connection, "NetX")


@_write_connection.register(FixedDense)
def _(dense: FixedDense, group: Any, weight: IntArray, recurrent: FixedProjection | None) -> None:
    group["type"] = np.array([b"dense" if recurrent is None else b"dense_rec"])
    group["inFeatures"], group["outFeatures"] = weight.shape[1], weight.shape[0]
    group["weight"] = weight.astype(np.int32)
    if recurrent is not None:
        group["weight_rec"] = plain_weights(recurrent).astype(np.int32)
    if dense.delay is not None and dense.delay.any():
        # One for each synapse: the loader takes a row of as many as neurons for their delays.
        group["delay"] = dense.delay


@_write_connection.register(FixedConv)
def _(conv: FixedConv, group: Any, weight: IntArray, recurrent: FixedProjection | None) -> None:
    group["type"] = np.array([b"conv"])
    group["inChannels"] = weight.shape[1] * conv.groups
    group["outChannels"] = weight.shape[0]
    group["kernelSize"] = np.array(weight.shape[2:])
    for key in ("stride", "padding", "dilation"):
        group[key] = np.array(getattr(conv, key))
    group["groups"] = conv.groups
    group["weight"] = weight[..., None].astype(np.int32)


def _write_neurons(group: Any, p: FixedPopulation) -> None:
    neuron = group.create_group("neuron")
    neuron["type"] = "CUBA"
    neuron["iDecay"] = _gathered(p.du + 1, p.shape)
    neuron["vDecay"] = _gathered(p.dv, p.shape)
    neuron["vThMant"] = _gathered(p.vth, p.shape)
    neuron["refDelay"] = 1
    neuron["gradedSpike"] = False
    bias = effective_bias(p.bias_mant, p.bias_exp) >> BIAS_EXP
    if bias.any():
        found = _gathered(bias, p.shape)
        group["bias"] = np.broadcast_to(found, p.shape[:1]) if found.ndim == 0 else found


def _gathered(values: IntArray, shape: Shape) -> IntArray:
    """Return one value, one per channel, or one per neuron as (W, H, C), whichever is least."""
    laid_out = np.ascontiguousarray(values.reshape(shape).T).astype(np.int32)
    if (laid_out == laid_out.flat[0]).all():
        return np.asarray(laid_out.ravel()[0])
    if len(shape) == 3 and (laid_out == laid_out[:1, :1]).all():
        return np.ascontiguousarray(laid_out[0, 0])
    return laid_out
