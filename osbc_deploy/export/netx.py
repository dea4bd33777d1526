"""Write a network as the NetX file (HDF5) that Loihi 2 users load with lava-dl."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy._version import __version__
from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError, UsageError
from osbc_deploy.fixedpoint.arithmetic import effective_bias
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConv,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.frontends.netx import BIAS_EXP
from osbc_deploy.frontends.netx_file import OURS
from osbc_deploy.network.graph import Shape
from osbc_deploy.writing import write_whole

__all__ = ["loaded_weights", "write_netx"]

TARGET = "loihi2-netx"
"""The target whose networks always fit the format."""

_RANGES = f"Deploy with --target {TARGET}, whose numbers the format holds."
_UNBIASED = "Train the layers that do not start at 0 with bias=False."
_ANOTHER = "Use another format: --format c or image."
_KEPT = "Keep more weights."


def write_netx(network: FixedPointNetwork, path: str | Path) -> None:
    """Write a network, whole or not at all; read back it is the same.

    Parameters
    ----------
    network : FixedPointNetwork
        A chain of populations.
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
    if offenders := _offenders(network):
        raise UnsupportedModelError(
            "network: cannot be written as NetX",
            [line for line, _ in offenders],
            " ".join(dict.fromkeys(remedy for _, remedy in offenders if remedy)),
        )
    if path.exists() and not (path.is_file() and h5py.is_hdf5(path)):
        raise UsageError(f"{path}: exists and is no NetX file. Choose another name.")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        _write(network, file)
    write_whole(path, content.getvalue())


def loaded_weights(weight: IntArray) -> IntArray | None:
    """Return the weights that lava-dl's loader makes of those of a dense layer.

    It shifts them to the top of the synapse, counts the bits that are left, and clips to the
    chip's range (``optimize_weight_bits`` in lava-dl's ``netx/utils.py``). None where it fails.
    """
    if not weight.any():
        return None
    low, high = int(weight.min()), int(weight.max())
    mixed = int(low < 0 <= high)
    room = [127 / high if mixed else 255 / high] if high > 0 else []
    room += [-128 / low if mixed else -256 / low] if low < 0 else []
    shift = int(np.floor(np.log2(min(room)))) + mixed
    used = int(np.bitwise_or.reduce(np.abs(weight).ravel()))
    zeros = min(8, (used & -used).bit_length() - 1)
    bits = 8 - shift - (zeros - mixed)
    if shift < 0 or not 1 <= bits <= 8:
        return None
    top = (weight << shift).clip(*((-256, 255) if mixed else (-255, 255)))
    dropped = 8 - bits + mixed
    return np.asarray(np.sign(top) * (np.abs(top) >> dropped << dropped) >> shift)


def _weights(projection: FixedProjection) -> IntArray:
    """Return the plain integers that mantissas and exponent stand for."""
    weight, exponent = projection.connection.weight.astype(np.int64), projection.weight_exp
    return weight << exponent if exponent >= 0 else weight >> -exponent


class Offender(NamedTuple):
    """What cannot be written, and what to do about it."""

    line: str
    remedy: str = ""


def _offenders(network: FixedPointNetwork) -> list[Offender]:
    lines = [Offender(line, _RANGES) for line in faults(network)]
    pre = INPUT
    for population in network.populations:
        into = network.afferents(population.name)
        if len(into) != 1 or into[0].pre != pre:
            names = ", ".join(p.name for p in into)
            lines.append(
                Offender(f"{population.name}: is fed by {names}; NetX chains layers", _ANOTHER)
            )
        lines += _population_offenders(population)
        pre = population.name
    for projection in network.projections:
        lines += _projection_offenders(projection)
    return lines


def _population_offenders(p: FixedPopulation) -> list[Offender]:
    lines = []
    bias = effective_bias(p.bias_mant, p.bias_exp)
    top = 1 << 12
    held = bias >> BIAS_EXP
    if (held << BIAS_EXP != bias).any() or held.min() < -top or held.max() > top - 1:
        lines.append(
            Offender(
                f"{p.name}: biases {bias.min()} to {bias.max()}; NetX holds 13 bits times "
                f"{1 << BIAS_EXP}",
                _RANGES,
            )
        )
    if p.reset != "zero" or p.reset_interval:
        lines.append(Offender(f"{p.name}: NetX only resets to zero, after a spike", _ANOTHER))
    if p.u_init.any():
        # Lowering starts the current where a bias that comes in through it takes it.
        lines.append(
            Offender(
                f"{p.name}: does not start at 0, as a bias before a neuron with synaptic current "
                "causes",
                _UNBIASED,
            )
        )
    elif p.v_init.any():
        lines.append(Offender(f"{p.name}: does not start at 0", _ANOTHER))
    return lines


def _projection_offenders(p: FixedProjection) -> list[Offender]:
    lines = []
    weight = _weights(p)
    if p.graded:
        lines.append(Offender(f"{p.name}: takes graded spikes", _ANOTHER))
    if p.weight_exp < 0 and ((weight << -p.weight_exp) != p.connection.weight).any():
        lines.append(Offender(f"{p.name}: weights times 2^{p.weight_exp} are not whole", _RANGES))
    if isinstance(p.connection, FixedConv):
        return lines
    loaded = loaded_weights(weight)
    if not weight.any():
        lines.append(
            Offender(f"{p.name}: all weights are zero, at which lava-dl's loader fails", _KEPT)
        )
    elif loaded is None or (loaded != weight).any():
        lines.append(
            Offender(
                f"{p.name}: weights {weight.min()} to {weight.max()} do not survive the 8 bits of "
                "lava-dl's loader",
                _RANGES,
            )
        )
    delay = p.connection.delay
    if delay is not None and delay.any():
        if p.pre == INPUT:
            lines.append(Offender(f"{p.name}: delays of the input", _ANOTHER))
        elif (delay != delay[:1]).any():
            lines.append(
                Offender(f"{p.name}: delays that differ between the synapses of an axon", _ANOTHER)
            )
    return lines


def _write(network: FixedPointNetwork, file: Any) -> None:
    layers = file.create_group("layer")
    ours = file.create_group(OURS)
    described: dict[str, Any] = {}
    start = layers.create_group("0")
    start["type"] = np.array([b"input"])
    start["shape"] = np.array(network.input_shape)
    number, shape = 1, network.input_shape
    before: Any = None
    for population in network.populations:
        (projection,) = network.afferents(population.name)
        connection = projection.connection
        if not isinstance(connection, FixedConv) and len(shape) == 3:
            layers.create_group(str(number))["type"] = np.array([b"flatten"])
            number += 1
        group = layers.create_group(str(number))
        if isinstance(connection, FixedConv):
            _write_conv(group, connection, _weights(projection))
        else:
            _write_dense(group, _weights(projection))
            if connection.delay is not None and connection.delay.any():
                before["delay"] = connection.delay[0].astype(np.int32)
        shape = population.shape
        group["shape"] = np.array(shape)
        _write_neurons(group, population)
        extra = ours.create_group(str(number))
        for name in ("v_scale", "v_offset"):
            extra[name] = getattr(population, name)
        extra["bias_exp"] = population.bias_exp.astype(np.int8)
        described[str(number)] = {
            "name": population.name,
            "projection": projection.name,
            "spiking": population.spiking,
            "weight_bits": projection.weight_bits,
            "weight_exp": projection.weight_exp,
            "sign": projection.sign,
        }
        before = group
        number += 1
    manifest = {
        "generator": f"osbc-deploy {__version__}",
        "readout": network.readout,
        "layers": described,
    }
    ours["manifest"] = json.dumps(manifest)


def _write_dense(group: Any, weight: IntArray) -> None:
    group["type"] = np.array([b"dense"])
    group["inFeatures"], group["outFeatures"] = weight.shape[1], weight.shape[0]
    group["weight"] = weight.astype(np.int32)


def _write_conv(group: Any, conv: FixedConv, weight: IntArray) -> None:
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
