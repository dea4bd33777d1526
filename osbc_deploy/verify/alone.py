"""One population of a fixed-point network, fed from outside with what others would send it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedConnection,
    FixedConv,
    FixedDense,
    FixedPointNetwork,
)
from osbc_deploy.network.graph import Shape

__all__ = ["alone", "heard_from"]

_LARGEST = 2**26
"""Weights of a matrix that stands for a convolution; more would fill the memory."""


def heard_from(network: FixedPointNetwork, name: str) -> tuple[str, ...]:
    """Return the input and populations that a population hears, itself left out."""
    sources = (p.pre for p in network.afferents(name) if p.pre != name)
    return tuple(dict.fromkeys(sources))


def alone(network: FixedPointNetwork, name: str) -> FixedPointNetwork | None:
    """Return a network of one population, whose input is what the population hears.

    The spikes of several sources are taken side by side, in the order of :func:`heard_from`, as
    neurons of one input. Their convolutions become matrices, which do not wrap sums that overflow;
    None where such a matrix would be too large.
    """
    afferents, sources = network.afferents(name), heard_from(network, name)
    populations = tuple(p for p in network.populations if p.name == name)
    shapes = {source: network.shape_of(source) for source in sources}
    if len(sources) == 1:
        # Such a population runs right behind its source, so nothing is early or late.
        projections = [replace(p, pre=INPUT) if p.pre in shapes else p for p in afferents]
        shape = shapes[sources[0]]
    else:
        (population,) = populations
        wide = sum(math.prod(s) for s in shapes.values())
        convolved = any(isinstance(p.connection, FixedConv) for p in afferents)
        if convolved and population.size * max(wide, population.size) > _LARGEST:
            return None
        starts = np.cumsum([0, *(math.prod(s) for s in shapes.values())]).tolist()
        columns = dict(zip(sources, starts, strict=False))
        projections = []
        for afferent in afferents:
            dense = _dense(afferent.connection, network.shape_of(afferent.pre))
            pre = afferent.pre
            if pre in shapes:
                dense = _from_wider(dense, columns[pre], wide, network.latency(afferent))
                pre = INPUT
            projections.append(replace(afferent, pre=pre, connection=dense))
        populations = (replace(population, shape=(population.size,)),)
        shape = (wide,)
    return FixedPointNetwork(
        shape, populations, tuple(projections), network.formats, network.readout
    )


def _dense(connection: FixedConnection, shape: Shape) -> FixedDense:
    return (
        connection if isinstance(connection, FixedDense) else FixedDense(_matrix(connection, shape))
    )


def _from_wider(own: FixedDense, start: int, wide: int, latency: int) -> FixedDense:
    """Return the weights for a wider input, of which they hear a part, and without latency."""
    size = len(own.weight), wide
    weight, late = np.zeros(size, np.int16), np.zeros(size, np.int64)
    columns = slice(start, start + own.weight.shape[1])
    weight[:, columns] = own.weight
    late[:, columns] = latency + (0 if own.delay is None else own.delay.astype(np.int64))
    return FixedDense(weight, late if late.any() else None)


def _matrix(conv: FixedConv, shape: Shape) -> IntArray:
    """Return a convolution of (c_in, H, W) as a matrix (outputs, inputs)."""
    out, per_group, kh, kw = conv.weight.shape
    _, rows, cols = conv.output_shape(shape)
    (sh, sw), (ph, pw), (dh, dw) = conv.stride, conv.padding, conv.dilation
    matrix = np.zeros((out, rows, cols, *shape), np.int16)
    for i in range(kh):
        for j in range(kw):
            y, x = np.arange(rows) * sh - ph + i * dh, np.arange(cols) * sw - pw + j * dw
            r = np.flatnonzero((y >= 0) & (y < shape[1]))
            c = np.flatnonzero((x >= 0) & (x < shape[2]))
            for o in range(out):
                group = o // (out // conv.groups)
                inputs = slice(group * per_group, (group + 1) * per_group)
                matrix[o, r[:, None], c, inputs, y[r][:, None], x[c]] = conv.weight[o, :, i, j]
    return matrix.reshape(out * rows * cols, -1)
