"""What every population of a graph hears, found by walking back from it to spikes.

A graph is what frontends make of a model: neurons, linear operations and edges between them. Each
way from spikes to a population becomes one term; what cannot be one is listed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from osbc_deploy.frameworks.compose import compose, multiplied
from osbc_deploy.frameworks.operations import (
    NotComposable,
    Operation,
    Term,
    broadcasts,
    result_shape,
    without_bias,
)
from osbc_deploy.frameworks.order import ancestors
from osbc_deploy.frameworks.terms import mapped
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import INPUT, Shape
from osbc_deploy.model.neurons import Neuron

__all__ = ["Arrival", "Cells", "Graph", "Node", "Walk"]


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

_IN_A_ROW = 200
"""Operations between neurons, at most; each takes some of the stack."""


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
    fixed : collection of str
        Connections without trained weights.
    """

    input_shape: Shape
    nodes: Mapping[str, Node]
    edges: Sequence[tuple[str, str]]
    output: str
    fixed: Collection[str] = ()


@dataclass(frozen=True, eq=False)
class Arrival:
    """What arrives somewhere: a sum of terms."""

    shape: Shape
    terms: tuple[Term, ...]


class Walk:
    """Walks back from neurons to spikes, each node once.

    Attributes
    ----------
    cells : dict of Cells
        The populations that the output depends on, by name.
    heard : dict of Arrival
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
        self._known: dict[str, Arrival | None] = {}
        self._open: list[str] = []
        cells = {n: node for n, node in graph.nodes.items() if isinstance(node, Cells)}
        self.cells = {name: node for name, node in cells.items() if name in needed}
        if unheard := [name for name in cells if name not in needed]:
            self.notes.append(f"left out, as the output does not hear it: {', '.join(unheard)}")
        self._shapes = self._find_shapes(needed)
        heard = {name: self._heard(name) for name in self.cells}
        self.heard = {name: signal for name, signal in heard.items() if signal is not None}
        for name, signal in self.heard.items():
            if self.cells[name].neuron.exact:
                self.cells[name], self.heard[name] = _settled(self.cells[name], signal)
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

    def _heard(self, name: str) -> Arrival | None:
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
        alone = self.cells[name].neuron.exact or len(arrives.terms) == 1
        for term in arrives.terms:
            self._checkmapped(name, term, shape, alone=alone)
        return arrives if len(self.faults) == faults else None

    def _checkmapped(self, name: str, term: Term, shape: Shape, *, alone: bool) -> None:
        if term.connection is None and len(shape) != 3:
            # Spikes are let through by a matrix of every neuron with every other.
            self._memory.take(array_bytes(shape, 1) ** 2 * _WEIGHT, at=name)
        try:
            mapped(term, shape, alone=alone)
        except NotComposable as why:
            self.faults.append(f"{name}: {why}")

    def _leaving(self, name: str) -> Arrival | None:
        """Return what a node sends."""
        if name not in self._shapes:
            return None
        shape = self._shapes[name]
        if name == INPUT or name in self.cells:
            return Arrival(shape, (Term(name, shape, shape),))
        if name in self._open:
            loop = self._open[self._open.index(name) :]
            self.faults.append(f"{', '.join(loop)}: a loop without neurons in it")
            self._known |= dict.fromkeys(loop)
            return None
        if name not in self._known and len(self._open) == _IN_A_ROW:
            self.faults.append(
                f"{name}: more than {_IN_A_ROW} linear operations in a row; merge them, or put "
                "neurons between them"
            )
            self._known[name] = None
        if name not in self._known:
            self._open.append(name)
            found = self._operated(name)
            self._open.pop()
            self._known.setdefault(name, found)
        return self._known[name]

    def _operated(self, name: str) -> Arrival | None:
        arrives, node = self._arriving(name), self.graph.nodes[name]
        if arrives is None or isinstance(node, Cells):
            return None
        for term in arrives.terms:
            self._memory.take(_TERM, at=name)
            self._memory.take(array_bytes(multiplied(term, node), _WEIGHT), at=name)
        try:
            shape = result_shape(node, arrives.shape)
            # What an operation adds, it adds once, however many populations it hears.
            first, *others = arrives.terms
            rest = without_bias(node)
            trained = name not in self.graph.fixed
            terms = [compose(first, node, arrives.shape, name, trained=trained)]
            terms += [compose(t, rest, arrives.shape, name, trained=trained) for t in others]
        except NotComposable as why:
            self.faults.append(f"{name}: {why}")
            return None
        return Arrival(shape, tuple(terms))

    def _arriving(self, name: str) -> Arrival | None:
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
        return Arrival(known[0].shape, tuple(t for s in known for t in s.terms))


def _settled(cells: Cells, signal: Arrival) -> tuple[Cells, Arrival]:
    """Take what gates get in every step off their thresholds."""
    threshold = cells.neuron.parameters["v_threshold"]
    for term in signal.terms:
        threshold = threshold - (0.0 if term.offset is None else term.offset)
    neuron = replace(cells.neuron, v_threshold=threshold)  # type: ignore[call-arg]
    terms = tuple(replace(term, offset=None) for term in signal.terms)
    return replace(cells, neuron=neuron), replace(signal, terms=terms)
