"""Build Lava processes from a fixed-point network.

Lava's Conv works on (X, Y, C) and flips its kernel, so populations of shape (C, H, W) are laid
out as (W, H, C) and the columns of a dense matrix that follows one are permuted to match.
Imported in the worker only, after :func:`osbc_backend_lava.compatibility.prepare`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix

from osbc_backend_lava.layout import SOURCE, Array, Schedule, lava_shape, to_lava, trace_path
from osbc_backend_lava.neurons import TracedLIF, TracedLIFReset
from osbc_backend_lava.streams import Player
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape

__all__ = ["LavaLayer", "build"]

_SIGNS = {
    "mixed": SignMode.MIXED,
    "excitatory": SignMode.EXCITATORY,
    "inhibitory": SignMode.INHIBITORY,
}


@dataclass(frozen=True, eq=False)
class LavaLayer:
    """The Lava processes of one population, and the connections that its spikes go out by."""

    population: FixedPopulation
    depth: int
    neurons: Any
    outgoing: tuple[Any, ...]

    def forget(self) -> None:
        """Take back what is on its way from this population."""
        for connection in self.outgoing:
            buffer = getattr(connection, "a_buff", None) or connection.a_buf
            buffer.set(np.zeros(buffer.shape, np.int32))


def build(
    network: FixedPointNetwork,
    piece: Sequence[str],
    folder: Path,
    schedule: Schedule,
    samples: int,
    *,
    states: list[str],
    sparse_below: float,
) -> tuple[tuple[LavaLayer, ...], tuple[Any, ...]]:
    """Build and connect the processes of a piece of the network.

    Parameters
    ----------
    network : FixedPointNetwork
    piece : sequence of str
        Populations; what they hear from outside is played from the traces of earlier pieces.
    folder : Path
        Where the input lies, laid out as Lava has it, and traces are.
    schedule : Schedule
    samples : int
    states : list of str
        Populations whose u and v are traced.
    sparse_below : float
        Density below which Lava's Sparse is taken instead of its Dense.

    Returns
    -------
    layers : tuple of LavaLayer
        Those of the piece, in network order.
    from_input : tuple
        Connections that the input goes out by.
    """
    steps = schedule.total(samples)
    neurons, ports = {}, {}
    numbers = {population.name: n for n, population in enumerate(network.populations)}
    projections = [p for p in network.projections if p.post in piece]
    outside = {(p.pre, network.shown_late(p)) for p in projections if p.pre not in piece}
    for name, late in sorted(outside):
        path = folder / SOURCE if name == INPUT else trace_path(folder, numbers[name], "s")
        player = Player(path=path, shape=lava_shape(network.shape_of(name)), late=late)
        ports[name, late] = player.s_out
    for population in network.populations:
        if population.name not in piece:
            continue
        traces = {}
        for name in {
            "s" if population.spiking else "v",
            *("uv" if population.name in states else ""),
        }:
            path = trace_path(folder, numbers[population.name], name)
            kind = np.uint8 if name == "s" else np.int32
            shape = (steps, *lava_shape(population.shape))
            np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
            traces[name] = str(path)
        neurons[population.name] = _neurons(
            population,
            schedule,
            network.depth[population.name],
            traces,
            network.formats.state_shift,
        )
        ports[population.name, 0] = neurons[population.name].s_out
    outgoing: dict[str, list[Any]] = {name: [] for name, _ in ports}
    for projection in projections:
        shape = network.shape_of(projection.pre)
        # Any number above 0 tells Lava that spikes are graded; it does not look at their width.
        bits = network.input.bits if projection.graded else 0
        connection = _process(projection.connection, projection, shape, bits, sparse_below)
        port = ports[projection.pre, network.shown_late(projection)]
        post = neurons[projection.post]
        if port.shape != connection.s_in.shape:
            port = port.reshape(connection.s_in.shape)
        port.connect(connection.s_in)
        connection.a_out.connect(post.a_in)
        outgoing[projection.pre].append(connection)
    layers = tuple(
        LavaLayer(p, network.depth[p.name], neurons[p.name], tuple(outgoing[p.name]))
        for p in network.populations
        if p.name in piece
    )
    return layers, tuple(outgoing.get(INPUT, ()))


@singledispatch
def _process(
    connection: FixedConnection,
    projection: FixedProjection,
    pre_shape: Shape,
    bits: int,
    sparse_below: float,
) -> Any:
    """Return the Lava process of a projection's connection."""
    raise no_such_kind(connection, "Lava")


@_process.register(FixedDense)
def _(
    connection: FixedDense,
    projection: FixedProjection,
    pre_shape: Shape,
    bits: int,
    sparse_below: float,
) -> Any:
    shape = (len(connection.weight), math.prod(pre_shape))

    def laid_out(values: Array) -> Array:
        return np.ascontiguousarray(to_lava(values, pre_shape)).reshape(shape)

    weight = laid_out(connection.weight.astype(np.int32))
    settings = {
        "weight_exp": projection.weight_exp,
        "num_weight_bits": projection.weight_bits,
        "sign_mode": _SIGNS[projection.sign],
        "num_message_bits": bits,
    }
    sparse = np.count_nonzero(weight) < sparse_below * weight.size
    if connection.delay is None:
        if sparse:
            return Sparse(weights=csr_matrix(weight), **settings)
        return Dense(weights=weight, **settings)
    delay = laid_out(connection.delay.astype(np.int64))
    longest = int(delay.max(initial=0))
    if sparse:
        # Lava asks for a delay wherever there is a weight, and for none elsewhere.
        places = weight != 0
        delays = csr_matrix((delay[places], np.nonzero(places)), shape=weight.shape)
        return DelaySparse(weights=csr_matrix(weight), delays=delays, max_delay=longest, **settings)
    return DelayDense(weights=weight, delays=delay, max_delay=longest, **settings)


@_process.register(FixedConv)
def _(
    connection: FixedConv,
    projection: FixedProjection,
    pre_shape: Shape,
    bits: int,
    sparse_below: float,
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
        num_message_bits=bits,
    )


def _neurons(
    population: FixedPopulation,
    schedule: Schedule,
    depth: int,
    traces: dict[str, str],
    state_shift: int,
) -> Any:
    def per_neuron(values: Array) -> Array:
        return np.ascontiguousarray(to_lava(values.astype(np.int32), population.shape))

    drop = population.reset_amount.astype(np.int64) << state_shift
    settings: dict[str, Any] = {
        "shape": lava_shape(population.shape),
        "u": per_neuron(population.u_init),
        "v": per_neuron(population.v_init),
        "du": per_neuron(population.du),
        "dv": per_neuron(population.dv),
        "vth": per_neuron(population.vth),
        "bias_mant": per_neuron(population.bias_mant),
        "bias_exp": per_neuron(population.bias_exp),
        "traces": traces,
        "drop": per_neuron(drop) if population.reset == "subtract" else None,
    }
    # Lava's steps count from 1, and a population sees the first input at step 1 + depth.
    if schedule.streaming:
        return TracedLIFReset(**settings, reset_interval=schedule.period, reset_offset=1 + depth)
    if population.reset_interval:
        return TracedLIFReset(
            **settings,
            reset_interval=population.reset_interval,
            reset_offset=1 + depth + population.reset_offset,
        )
    return TracedLIF(**settings)
