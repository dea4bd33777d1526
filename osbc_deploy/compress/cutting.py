"""A float network without some of its neurons, and its compressed weights in full shapes again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from osbc_deploy.arrays import BoolArray, FloatArray
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.model.graph import INPUT, Network, Projection

__all__ = ["Thinned", "Units", "between", "cut", "units_of"]

D = TypeVar("D")

Units: TypeAlias = Mapping[str, BoolArray]
"""Channels, or neurons of populations without any, that stay (units,), by population."""


@dataclass(frozen=True, eq=False)
class Thinned:
    """A float network without some of its neurons.

    Attributes
    ----------
    original : Network
    network : Network
        Without them, the weights behind them solved again.
    units : dict of ndarray of bool (units,)
        By population, the channels or neurons that stayed.
    loss : float
        What was lost with them: relative membrane losses of the layers that they feed, added.
    error : float
        Of the output on held-out calibration samples, relative to its mean square.
    notes : tuple of Deviation
        What was asked and could not be.
    """

    original: Network
    network: Network
    units: Units
    loss: float
    error: float
    notes: tuple[Deviation, ...] = ()

    def whole(self, compressed: CompressedNetwork) -> CompressedNetwork:
        """Return the compressed network in the original's shapes, zeros where neurons are gone."""
        found = {
            p.name: _embedded(p, self._weights(p, compressed), self._ends(p))
            for p in self.original.projections
            if p.name in compressed.projections
        }
        return replace(
            compressed,
            original=self.original,
            projections=found,
            removed={name: ~stay for name, stay in self.units.items()},
            deviations=(*self.notes, *self._notes(), *compressed.deviations),
        )

    def _weights(self, p: Projection, compressed: CompressedNetwork) -> CompressedProjection:
        own = next(q for q in self.network.projections if q.name == p.name)
        done = compressed.projections[p.name]
        bias = own.connection.bias
        return replace(done, bias=bias) if done.bias is None and bias is not None else done

    def _ends(self, p: Projection) -> tuple[BoolArray, BoolArray]:
        return units_of(self.original, self.units, p.pre), self.units[p.post]

    def _notes(self) -> Iterator[Deviation]:
        for p in self.original.populations:
            stay, count = int(self.units[p.name].sum()), len(self.units[p.name])
            if stay < count:
                gone, each = count - stay, p.size // count
                what = f"channels were removed, {gone * each:,} neurons"
                text = (
                    f"{gone:,} of {count:,} {what if each > 1 else 'neurons were removed'}; "
                    "the weights behind them were solved again"
                )
                yield Deviation("compress", p.name, text)


def units_of(network: Network, units: Units, name: str) -> BoolArray:
    """Return which units of a population stay; of the input, all."""
    return np.ones(network.input_shape[0], bool) if name == INPUT else units[name]


def _columns(weight: FloatArray, pre: BoolArray) -> BoolArray:
    """Return which inputs (fan_in,) belong to the units that stay; groups see all of theirs."""
    fan_in = math.prod(weight.shape[1:])
    if fan_in % len(pre):
        return np.ones(fan_in, bool)
    return np.repeat(pre, fan_in // len(pre))


def between(weight: FloatArray, pre: BoolArray, post: BoolArray) -> FloatArray:
    """Return weights with nothing from and to units that are gone."""
    flat = weight.reshape(len(weight), -1) * post[:, None] * _columns(weight, pre)
    return np.asarray(flat.reshape(weight.shape))


def cut(network: Network, units: Units) -> Network:
    """Return a network of some of its units."""
    return replace(
        network,
        populations=tuple(
            replace(
                p,
                shape=(int(units[p.name].sum()), *p.shape[1:]),
                neuron=_parameters(p.neuron, p.shape, units[p.name]),
            )
            for p in network.populations
        ),
        projections=tuple(
            _joining(p, units_of(network, units, p.pre), units[p.post], network)
            for p in network.projections
        ),
    )


def _parameters(value: D, shape: tuple[int, ...], stay: BoolArray) -> D:
    """Return a dataclass of arrays that broadcast to `shape` for some of its units."""
    if stay.all():
        return value
    changes: dict[str, Any] = {}
    for field in fields(value):  # type: ignore[arg-type]
        array = getattr(value, field.name)
        if isinstance(array, np.ndarray) and array.ndim == len(shape) and len(array) == len(stay):
            changes[field.name] = array[stay]
    return replace(value, **changes)  # type: ignore[type-var]


def _joining(p: Projection, pre: BoolArray, post: BoolArray, network: Network) -> Projection:
    if pre.all() and post.all():
        return p
    weight = p.connection.weight
    tail = weight.shape[2:] if weight.ndim > 2 else ()
    flat = weight.reshape(len(weight), -1)[post][:, _columns(weight, pre)]
    bias = p.connection.bias
    size = math.prod(network.shape_of(p.pre))
    return replace(
        p,
        connection=replace(
            p.connection,
            weight=flat.reshape(len(flat), -1, *tail),
            bias=None if bias is None else bias[post],
        ),
        delay=None if p.delay is None else p.delay[np.repeat(pre, size // len(pre))],
    )


def _embedded(
    p: Projection, done: CompressedProjection, ends: tuple[BoolArray, BoolArray]
) -> CompressedProjection:
    pre, post = ends
    weight = p.connection.weight
    place = np.ix_(np.flatnonzero(post), np.flatnonzero(_columns(weight, pre)))

    def spread(values: Any) -> Any:
        whole = np.zeros((len(weight), weight[0].size), values.dtype)
        whole[place] = values.reshape(int(post.sum()), -1)
        return whole.reshape(weight.shape)

    # What is gone takes no scale of its own.
    scale = np.full(len(weight), done.scale[0])
    scale[post] = done.scale
    bias = None
    if done.bias is not None:
        bias = np.zeros(len(weight))
        bias[post] = done.bias
    return replace(
        done,
        codes=spread(done.codes),
        scale=scale,
        bias=bias,
        pruned=None if done.pruned is None else spread(done.pruned),
    )
