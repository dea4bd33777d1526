"""The float network as data: populations of neurons joined by projections."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray, frozen
from osbc_deploy.model.connections import Connection, Conv, Dense
from osbc_deploy.model.neurons import Neuron
from osbc_deploy.model.windows import AvgPool, Pair, Shape
from osbc_deploy.options.notation import Readout

__all__ = [
    "AvgPool",
    "Connection",
    "Conv",
    "Dense",
    "Network",
    "Pair",
    "Population",
    "Projection",
    "Shape",
    "blocks",
]


INPUT = "input"
"""Name of the population that stands for the network's input spikes."""


def blocks(order: Sequence[str], edges: Iterable[tuple[str, str]]) -> tuple[tuple[int, int], ...]:
    """Return ranges of populations that must be stepped together, in order.

    Parameters
    ----------
    order : sequence of str
        Populations in the order activity flows.
    edges : iterable of (pre, post)
        An edge to the same population or one before it is feedback; what it spans is one range.
    """
    place = {name: number for number, name in enumerate(order)}
    reach = list(range(len(order)))
    for pre, post in edges:
        first, last = place[post], place.get(pre, -1)
        if last >= first:
            reach[first] = max(reach[first], last)
    found, start = [], 0
    while start < len(order):
        stop, number = start + 1, start
        while number < stop:
            stop = max(stop, reach[number] + 1)
            number += 1
        found.append((start, stop))
        start = stop
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one kind.

    Attributes
    ----------
    name : str
        Unique in the network.
    shape : tuple of int
        (n,) or (channels, rows, columns).
    neuron : Neuron
        Its parameters broadcast to `shape`.
    """

    name: str
    shape: Shape
    neuron: Neuron

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    def spread(self, value: FloatArray) -> FloatArray:
        """Broadcast a parameter of the neurons to one number (size,) of float64 per neuron."""
        return np.broadcast_to(value.astype(np.float64), self.shape).reshape(-1)


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map from one population's spikes to another population's input current.

    Attributes
    ----------
    name : str
        Path of the weighted layer in the source model.
    pre, post : str
        Names of the populations; `pre` may be ``"input"``.
    connection : Connection
    pool : AvgPool or None
        Applied to the spikes before the connection.
    compressible : bool
        False for maps without trained weights (a pooling that feeds neurons directly, all that
        gates hear).
    delay : ndarray of int (n_pre,) or None
        Steps that the spikes of each presynaptic neuron arrive late, the pooling after that.
    """

    name: str
    pre: str
    post: str
    connection: Connection
    pool: AvgPool | None = None
    compressible: bool = True
    delay: IntArray | None = None

    def __post_init__(self) -> None:
        if self.delay is not None:
            object.__setattr__(self, "delay", frozen(self.delay, np.int64))


@dataclass(frozen=True, eq=False)
class Network:
    """A spiking network in floating point.

    Activity flows from population to population in their order; a population may hear several
    others (a residual addition), and itself or populations behind it, whose spikes then arrive a
    step late (feedback).

    Attributes
    ----------
    input_shape : tuple of int
        Shape of one time step of input.
    populations : tuple of Population
        In the order activity flows; the last one is the output.
    projections : tuple of Projection
        In the order of the populations they end in. Currents of several into one are added.
    dtype : str
        "float32" or "float64": the precision the model was trained and is simulated in.
    source : str
        Where the network came from, for the report.
    notes : tuple of str
        What the import folded or dropped.
    warnings : tuple of str
        Why it may not be the network that was meant.
    readout : str
        How its model's own answer says that the outputs become a class; empty where it leaves that
        open.
    """

    input_shape: Shape
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    dtype: str = "float32"
    source: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    readout: Readout = ""

    @property
    def output(self) -> Population:
        """The population whose activity is the network's answer."""
        return self.populations[-1]

    @property
    def trained(self) -> tuple[Population, ...]:
        """The populations whose weights compression may change: all but gates."""
        return tuple(p for p in self.populations if not p.neuron.exact)

    @property
    def weighted(self) -> tuple[Projection, ...]:
        """The projections that compression may change: all but those into gates."""
        names = {p.name for p in self.trained}
        return tuple(p for p in self.projections if p.post in names)

    @property
    def weights(self) -> int:
        """Number of weights that compression may change, without biases."""
        return sum(p.connection.weight.size for p in self.weighted)

    @property
    def parameters(self) -> int:
        """Number of trained weights and biases."""
        biases = (p.connection.bias for p in self.weighted)
        return self.weights + sum(0 if b is None else b.size for b in biases)

    def shape_of(self, name: str) -> Shape:
        """Return the shape of a population or of the input."""
        if name == INPUT:
            return self.input_shape
        return next(p.shape for p in self.populations if p.name == name)

    def afferents(self, name: str) -> tuple[Projection, ...]:
        """Return the projections into a population."""
        return tuple(p for p in self.projections if p.post == name)

    def multiplications(self, projection: Projection) -> int:
        """Return the multiplications by a projection's weights in one time step."""
        places = math.prod(self.shape_of(projection.post)[1:])
        return int(projection.connection.weight.size) * places

    def incoming(self, name: str) -> Projection:
        """Return the only projection into a population."""
        (projection,) = self.afferents(name)
        return projection

    def is_feedback(self, projection: Projection) -> bool:
        """Whether a projection leads back, so that its spikes arrive a step late."""
        order = [INPUT, *(p.name for p in self.populations)]
        return order.index(projection.pre) >= order.index(projection.post)

    def blocks(self) -> tuple[tuple[Population, ...], ...]:
        """Return the populations in groups that feed back to each other, in order."""
        edges = [(p.pre, p.post) for p in self.projections]
        ranges = blocks([p.name for p in self.populations], edges)
        return tuple(self.populations[start:stop] for start, stop in ranges)

    def fingerprint(self) -> str:
        """Return a SHA-256 of shapes, weights and neurons."""
        digest = hashlib.sha256(repr((self.input_shape, self.dtype)).encode())
        for projection in self.projections:
            connection = projection.connection
            layout = {k: v for k, v in vars(connection).items() if k not in ("weight", "bias")}
            ends = (projection.name, projection.pre, projection.post, projection.pool)
            digest.update(repr((ends, sorted(layout.items()))).encode())
            digest.update(connection.weight.tobytes())
            digest.update(b"" if connection.bias is None else connection.bias.tobytes())
            digest.update(b"" if projection.delay is None else projection.delay.tobytes())
        for population in self.populations:
            options = tuple(population.neuron.options.items())
            named = (population.shape, *_identity(type(population.neuron)), *options)
            digest.update(repr(named).encode())
            for value in population.neuron.parameters.values():
                digest.update(np.asarray(value, np.float64).tobytes())
        return digest.hexdigest()

    def with_weights(
        self, weights: Mapping[str, FloatArray], biases: Mapping[str, FloatArray] | None = None
    ) -> Network:
        """Return the same network with other weights, and biases, for the projections named."""
        changes: dict[str, dict[str, Any]] = {}
        for field, values in (("weight", weights), ("bias", biases or {})):
            for name, value in values.items():
                changes.setdefault(name, {})[field] = value
        projections = tuple(
            replace(p, connection=replace(p.connection, **changes[p.name]))
            if p.name in changes
            else p
            for p in self.projections
        )
        return replace(self, projections=projections)

    def with_neurons(self, neurons: Mapping[str, Neuron]) -> Network:
        """Return the same network with other neurons in the populations named."""
        populations = tuple(
            replace(p, neuron=neurons[p.name]) if p.name in neurons else p for p in self.populations
        )
        return replace(self, populations=populations)


def _identity(kind: type) -> tuple[str, str]:
    """Return what tells one class of neurons from all others in fingerprints, for good.

    Frameworks give one name to neurons of different arithmetic, so a name is not enough; where
    our own code lies may change, and fingerprints that were written down must not.
    """
    parts = kind.__module__.split(".")
    if parts[0] == "osbc_deploy" and parts[-1] == "neurons":
        return f"osbc_deploy.network.neurons.{parts[-2]}", kind.__name__
    return kind.__module__, kind.__name__
