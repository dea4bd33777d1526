"""Build a float network from a graph of neurons and linear operations.

Frontends whose models are graphs translate their nodes and leave the rest to :func:`assemble`: it
walks back from every population to the spikes it hears, composes each way into one projection,
finds the order in which activity flows, and which projections lead back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.frameworks.compose import (
    NotComposable,
    Operation,
    Term,
    added,
    broadcasts,
    compose,
    per_channel,
    per_output,
    result_shape,
    without_bias,
)
from osbc_deploy.frameworks.order import activity_order, ancestors
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import (
    INPUT,
    AvgPool,
    Connection,
    Conv,
    Dense,
    Network,
    Population,
    Projection,
    Shape,
)
from osbc_deploy.model.neurons import Neuron

__all__ = ["Cells", "Graph", "Node", "assemble"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Neurons in a graph.

    Attributes
    ----------
    neuron : Neuron
    shape : tuple of int or None
        Shape that the model declares; that of their input where it declares none.
    """

    neuron: Neuron
    shape: Shape | None = None


Node: TypeAlias = Cells | Operation

_WEIGHT, _NEURON, _TERM = 24, 160, 1000
"""Bytes of a weight that two operations make, of a neuron, and of a way from spikes to a current,
while a network is put together: a small model can ask for very many of each."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A model as a graph.

    Attributes
    ----------
    input_shape : tuple of int
        Shape of one time step of input.
    nodes : dict of Cells or Operation
        By name; ``"input"`` is not among them. What several edges bring to a node is added. Parts
        that the frontend refused are left out, and what depends on them is not judged.
    edges : sequence of (str, str)
        From node to node; ``"input"`` is where the input's spikes come from.
    output : str
        The neurons whose activity is the answer.
    """

    input_shape: Shape
    nodes: Mapping[str, Node]
    edges: Sequence[tuple[str, str]]
    output: str


def assemble(
    graph: Graph, *, dtype: str, source: str, notes: Sequence[str] = (), faults: Sequence[str] = ()
) -> Network:
    """Turn a graph into a network, or list everything that has no exact counterpart.

    Feedback arrives one step late. A cycle through several populations takes as many steps on the
    chip as it has projections, so feedback over several gets the delay that makes up for them.

    Parameters
    ----------
    graph : Graph
    dtype : str
        "float32" or "float64": the precision of the model, and of the network's weights.
    source : str
        Where the model came from, for the report.
    notes : sequence of str
        What the frontend dropped or decided; what is folded here is added.
    faults : sequence of str
        What the frontend could not translate, to be listed with the rest.

    Returns
    -------
    Network
        Projections are named after their weighted node, populations after theirs.

    Raises
    ------
    UnsupportedModelError
        With every offender.
    """
    walk = _Walk(graph, Allowance(source, remedy="Give a smaller network"))
    offenders = [*faults, *walk.faults]
    order: list[str] = []
    if not offenders:
        order = activity_order(list(walk.heard), walk.edges, INPUT, graph.output)
        offenders = _order_faults(graph, order, walk.edges)
    if offenders:
        raise UnsupportedModelError(
            f"{source}: {len(offenders)} part(s) cannot be represented", offenders
        )
    said = [*notes, *walk.notes]
    depth = {INPUT: 0}
    for name in order:
        depth[name] = 1 + max(
            depth[pre] for pre, post in walk.edges if post == name and pre in depth
        )
    populations, projections = [], []
    for name in order:
        signal = walk.heard[name]
        populations.append(Population(name, signal.shape, walk.cells[name].neuron))
        # What leads back is added to what comes from before, as frameworks do it.
        terms = sorted(
            _merged(signal.terms, said), key=lambda t: t.pre in order[order.index(name) :]
        )
        for term in terms:
            late = _lateness(term, name, order, depth, said)
            connection, pool = _mapping(term, signal.shape, alone=len(terms) == 1)
            trained = term.connection is not None or len(terms) > 1
            title = term.name or f"{term.pre}-{name}"
            projections.append(
                Projection(title, term.pre, name, _cast(connection, dtype), pool, trained, late)
            )
            said += [note for note in term.folded if note not in said]
    return Network(
        graph.input_shape,
        tuple(populations),
        tuple(_uniquely_named(projections)),
        dtype,
        source,
        tuple(said),
    )


def _order_faults(
    graph: Graph, order: Sequence[str], edges: Sequence[tuple[str, str]]
) -> list[str]:
    """Return what no chip could run in this order."""
    faults = []
    place = {name: number for number, name in enumerate([INPUT, *order])}
    for name in order:
        node = graph.nodes[name]
        sends = any(pre == name for pre, _ in edges)
        if sends and isinstance(node, Cells) and not node.neuron.spiking:
            faults.append(
                f"{name}: sends potentials, not spikes; only an output that feeds nothing may"
            )
        if all(place[pre] >= place[name] for pre, post in edges if post == name):
            faults.append(f"{name}: only hears populations that it leads to, never the input")
    return faults


@dataclass(frozen=True, eq=False)
class _Signal:
    """What arrives somewhere: a sum of terms."""

    shape: Shape
    terms: tuple[Term, ...]


class _Walk:
    """Walks back from neurons to spikes, each node once.

    Attributes
    ----------
    cells : dict of Cells
        The populations that the output depends on, by name.
    heard : dict of _Signal
        What each of them hears, without those where there is a fault.
    edges : list of (pre, post)
        Between populations.
    faults, notes : list of str
    """

    def __init__(self, graph: Graph, memory: Allowance) -> None:
        self.graph, self._memory = graph, memory
        self.faults: list[str] = []
        self.notes: list[str] = []
        needed = ancestors(graph.edges, graph.output)
        self._sources: dict[str, list[str]] = {}
        for pre, post in graph.edges:
            self._sources.setdefault(post, []).append(pre)
        self._known: dict[str, _Signal | None] = {}
        self._open: list[str] = []
        cells = {n: node for n, node in graph.nodes.items() if isinstance(node, Cells)}
        self.cells = {name: node for name, node in cells.items() if name in needed}
        if unheard := [name for name in cells if name not in needed]:
            self.notes.append(f"left out, as the output does not hear it: {', '.join(unheard)}")
        self._shapes = self._find_shapes(needed)
        heard = {name: self._heard(name) for name in self.cells}
        self.heard = {name: signal for name, signal in heard.items() if signal is not None}
        self.edges = [(t.pre, name) for name, signal in self.heard.items() for t in signal.terms]

    def _find_shapes(self, needed: set[str]) -> dict[str, Shape]:
        """Return the shape of what each node sends, as far as it can be told."""
        shapes: dict[str, Shape] = {INPUT: self.graph.input_shape}
        following: dict[str, list[str]] = {}
        for pre, post in self.graph.edges:
            following.setdefault(pre, []).append(post)
        waiting, failed = [INPUT], set()
        while waiting:
            pre = waiting.pop()
            for name in following.get(pre, ()):
                if name in shapes or name in failed or name not in needed:
                    continue
                node = self.graph.nodes.get(name)
                if node is None:
                    failed.add(name)
                    continue
                try:
                    if isinstance(node, Cells):
                        shapes[name] = node.shape or shapes[pre]
                    else:
                        shapes[name] = result_shape(node, shapes[pre])
                except NotComposable as why:
                    self.faults.append(f"{name}: {why}")
                    failed.add(name)
                    continue
                waiting.append(name)
        if not failed:
            lost = [n for n in self.graph.nodes if n in needed and n not in shapes]
            self.faults += [f"{name}: the input does not lead to it" for name in lost]
        return shapes

    def _heard(self, name: str) -> _Signal | None:
        """Return the current that neurons get, or None where there is a fault."""
        faults = len(self.faults)
        arrives = self._arriving(name)
        if arrives is None:
            return None
        shape = self._shapes[name]
        self._memory.take(array_bytes(shape, _NEURON), at=name)
        if arrives.shape != shape:
            self.faults.append(f"{name}: neurons {shape} get a current of shape {arrives.shape}")
            return None
        for parameter, value in self.cells[name].neuron.parameters.items():
            if not broadcasts(value.shape, shape):
                self.faults.append(
                    f"{name}: {parameter} of shape {value.shape} does not broadcast to the "
                    f"neurons {shape}"
                )
        for term in arrives.terms:
            self._check_mapping(name, term, shape, alone=len(arrives.terms) == 1)
        return arrives if len(self.faults) == faults else None

    def _check_mapping(self, name: str, term: Term, shape: Shape, *, alone: bool) -> None:
        if term.connection is None and len(shape) != 3:
            # Spikes are let through by a matrix of every neuron with every other.
            self._memory.take(array_bytes(shape, 1) ** 2 * _WEIGHT, at=name)
        try:
            _mapping(term, shape, alone=alone)
        except NotComposable as why:
            self.faults.append(f"{name}: {why}")

    def _leaving(self, name: str) -> _Signal | None:
        """Return what a node sends."""
        if name not in self._shapes:
            return None
        shape = self._shapes[name]
        if name == INPUT or name in self.cells:
            return _Signal(shape, (Term(name, shape, shape),))
        if name in self._open:
            loop = self._open[self._open.index(name) :]
            self.faults.append(f"{', '.join(loop)}: a loop without neurons in it")
            self._known |= dict.fromkeys(loop)
            return None
        if name not in self._known:
            self._open.append(name)
            found = self._operated(name)
            self._open.pop()
            self._known.setdefault(name, found)
        return self._known[name]

    def _operated(self, name: str) -> _Signal | None:
        arrives, node = self._arriving(name), self.graph.nodes[name]
        if arrives is None or isinstance(node, Cells):
            return None
        for term in arrives.terms:
            self._memory.take(_TERM, at=name)
            if isinstance(node, Connection) and term.connection is not None:
                made = (len(node.weight), term.connection.fan_in)
                self._memory.take(array_bytes(made, _WEIGHT), at=name)
        try:
            shape = result_shape(node, arrives.shape)
            # What an operation adds, it adds once, however many populations it hears.
            first, *others = arrives.terms
            terms = [compose(first, node, arrives.shape, name)]
            terms += [compose(t, without_bias(node), arrives.shape, name) for t in others]
        except NotComposable as why:
            self.faults.append(f"{name}: {why}")
            return None
        return _Signal(shape, tuple(terms))

    def _arriving(self, name: str) -> _Signal | None:
        signals = [self._leaving(pre) for pre in self._sources.get(name, ())]
        known = [s for s in signals if s is not None]
        if len(known) < len(signals) or not known:
            return None
        if len({s.shape for s in known}) > 1:
            shapes = ", ".join(
                f"{s.shape} from {pre}" for s, pre in zip(known, self._sources[name], strict=True)
            )
            self.faults.append(f"{name}: adds signals of different shapes ({shapes})")
            return None
        return _Signal(known[0].shape, tuple(t for s in known for t in s.terms))


def _merged(terms: Sequence[Term], notes: list[str]) -> list[Term]:
    """Add up terms whose spikes arrive in the same way, as one connection of both weights."""
    found: list[Term] = []
    for term in terms:
        for number, other in enumerate(found):
            both = added(other, term)
            if both is not None:
                found[number] = both
                notes.append(f"{term.name}: added to {other.name}, which hears the same spikes")
                break
        else:
            found.append(term)
    return found


def _mapping(term: Term, shape: Shape, *, alone: bool) -> tuple[Connection, AvgPool | None]:
    """Return the connection of a term with its bias, and the pooling before it."""
    connection, pool = term.connection, term.pool
    if connection is None:
        connection, pool = _bare(term, shape, alone=alone)
    elif term.flattened and term.spatial:
        raise NotComposable(
            f"hears the convolution {term.name} flattened; flatten its spikes instead"
        )
    offset = term.offset
    if offset is None or not offset.any():
        return connection, pool
    return replace(connection, bias=per_output(connection, offset, shape)), pool


def _bare(term: Term, shape: Shape, *, alone: bool) -> tuple[Connection, AvgPool | None]:
    """Return what lets spikes through as they are, but for a pooling and a factor.

    Neurons that hear nothing else get a depthwise convolution. Beside trained connections it is a
    full one, which the solver can compress together with them.
    """
    factor = np.ones(()) if term.factor is None else term.factor
    if len(shape) != 3:
        return Dense(np.diag(np.broadcast_to(factor, term.shape).ravel())), term.pool
    rows = per_channel(factor, term.shape)
    if not alone:
        return Conv(np.diag(rows)[:, :, None, None]), term.pool
    pool = term.pool or AvgPool((1, 1), (1, 1))
    weight = np.ones((len(rows), 1, *pool.kernel)) * rows.reshape(-1, 1, 1, 1) / pool.divisor
    return Conv(weight, None, pool.stride, pool.padding, groups=len(rows)), None


def _cast(connection: Connection, dtype: str) -> Connection:
    bias = connection.bias
    return replace(
        connection,
        weight=connection.weight.astype(dtype),
        bias=None if bias is None else bias.astype(dtype),
    )


def _lateness(
    term: Term, post: str, order: Sequence[str], depth: Mapping[str, int], notes: list[str]
) -> IntArray | None:
    """Return the delay of a term, which for feedback is what the chip needs at least."""
    feeds_back = term.pre != INPUT and order.index(term.pre) >= order.index(post)
    needed = depth[term.pre] - depth[post] if feeds_back else 0
    delay = np.zeros(math.prod(term.source), np.int64) if term.delay is None else term.delay
    if needed > delay.min():
        notes.append(
            f"{term.name or term.pre}: feedback from {term.pre} reaches {post} {needed + 1} steps "
            f"late instead of {delay.min() + 1}; every projection of a cycle takes the chip a step"
        )
        delay = np.maximum(delay, needed)
    return delay if delay.any() else None


def _uniquely_named(projections: Sequence[Projection]) -> Iterator[Projection]:
    """Name the parts of a node that became several projections after their ends too."""
    counts = Counter(p.name for p in projections)
    for p in projections:
        if counts[p.name] == 1:
            yield p
        else:
            same = [q for q in projections if (q.name, q.pre, q.post) == (p.name, p.pre, p.post)]
            number = f"-{same.index(p) + 1}" if len(same) > 1 else ""
            yield replace(p, name=f"{p.name}:{p.pre}-{p.post}{number}")
