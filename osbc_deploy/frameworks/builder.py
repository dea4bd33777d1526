"""Put what a forward calls into a graph of neurons and linear operations.

What the answer depends on is taken call by call: layers by their class, a subclass as what it
derives from; functions by their name. Both are tables. Whatever has no exact counterpart is listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import OsbcError, described
from osbc_deploy.frameworks.assemble import Graph
from osbc_deploy.frameworks.compose import Add, Delay, Flatten
from osbc_deploy.frameworks.flow import Called, Flow, Signal
from osbc_deploy.frameworks.framework import Framework, kind_of, unsupported
from osbc_deploy.frameworks.functions import FUNCTIONS, LINEAR
from osbc_deploy.frameworks.gating import gates_note, literal_of
from osbc_deploy.frameworks.layers import FLAT, LAYERS, LINEAR_LAYERS, TIMELESS
from osbc_deploy.frameworks.layout import Layout, whole_of
from osbc_deploy.frameworks.order import ancestors
from osbc_deploy.frameworks.reasons import unsupported_part
from osbc_deploy.frameworks.walk import Cells, Node
from osbc_deploy.model.answer import Answer
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import INPUT, Connection, Shape
from osbc_deploy.model.neurons import Neuron

__all__ = ["Builder"]


@dataclass
class Builder:
    """Makes a graph of calls.

    Attributes
    ----------
    framework : Framework
    flow : Flow
    output : Called or None
        The neurons that answer, or the linear operation behind the last of them.
    flat : bool
        Whether samples (C, L) are read as (C, 1, L), which layers of one dimension take.
    nodes, edges : dict, list
        The graph, so far.
    now : dict of Called to list of str
        The nodes whose sum a call gives.
    layouts : dict of str to Layout
        Where what a call gives lies in what its nodes give, by its name; it lies there as it is
        given where there is none.
    orders : dict of str to ndarray of int
        Where the framework's answer of a neuron node lies in what it gives.
    modules : dict of str to torch.nn.Module
        What each neuron node was read from.
    fixed : set of str
        Connections without trained weights.
    faults, notes : list of str
    data_fault : bool
        Whether what hears the input alone does not take its shape.
    constant : ndarray of float
        What the last layer adds once to a sum over time, in units of that sum.
    """

    framework: Framework
    flow: Flow
    output: Called | None
    flat: bool
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    now: dict[Called, list[str]] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    orders: dict[str, IntArray] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data_fault: bool = False
    constant: FloatArray = field(default_factory=lambda: np.zeros(()))
    _late: dict[str, str] = field(default_factory=dict)

    def shape(self, sample: Shape) -> Shape:
        """Return the shape of a sample in the graph."""
        return (sample[0], 1, sample[1]) if self.flat and len(sample) == 2 else sample

    def take(self, called: Called) -> None:
        """Put one call into the graph."""
        event = called.event
        hears = [s for s in called.sources if s.over_time]
        self._inherit(called)
        faults = len(self.faults)
        if not event.results and any(s.state for s in called.sources):
            # It failed for what it was given.
            return
        try:
            if called.fault:
                self.refuse(called, called.fault)
            elif hears and (why := self._reduced_fault(called, hears[0])):
                self.refuse(called, why)
            elif event.module is not None:
                self.layer(called, event.module)
            elif event.name in FUNCTIONS:
                FUNCTIONS[event.name](self, called)
            elif event.name != "cat":
                self.refuse(called, unsupported_part(event.name))
        except OsbcError:
            raise
        except Exception as error:  # noqa: BLE001 - what a layer holds may have been replaced
            self.refuse(called, f"{event.name} cannot be read ({described(error)})")
        if len(self.faults) > faults:
            # It is left out, so that what hears it is not judged.
            self.nodes.pop(called.name, None)
            self.now[called] = [called.name]
            for source in called.sources:
                before = source.called
                heard = [INPUT] if before is None else self.now.get(before, [before.name])
                self.edges += [(pre, called.name) for pre in heard]

    def layer(self, called: Called, layer: nn.Module) -> None:
        """Put a layer into the graph."""
        kind = self.kind(layer)
        merged = any(len(axis) > 1 for axis in called.sources[0].axes)
        over_time = "T" in called.sources[0].axes
        reduced = any(s.over_time for s in called.sources)
        for fault in () if reduced else self.framework.misplaced(layer, over_time, merged):
            self.refuse(called, f"{kind_of(layer).__name__}: {fault}")
        reader = self.framework.readers.get(kind, LAYERS.get(kind))
        if reader is None:
            known = (*self.framework.readers, *LAYERS)
            self.refuse(called, unsupported(kind_of(layer), known))
            return
        if len(called.sources[0].axes) > 1 and kind in TIMELESS:
            self.refuse(
                called,
                f"torch's {kind.__name__} knows no time axis; {self.framework.timeless}".replace(
                    "LAYER", kind.__name__
                ),
            )
            return
        own = kind_of(layer)
        if own is not kind:
            self.note(
                f"{called.name}: {own.__name__} is read as the {kind.__name__} it derives from"
            )
        reader(self, called, layer)

    def _reduced_fault(self, called: Called, signal: Signal) -> str:
        """Say why a call cannot hear what is of all steps; empty if it can."""
        event = called.event
        kind = None if event.module is None else self.kind(event.module)
        what = event.name if kind is None else kind.__name__
        if signal.over_time == "max":
            return f"{what} hears a maximum over time; on the chip only its readout takes one"
        linear = event.name in LINEAR if kind is None else issubclass(kind, LINEAR_LAYERS)
        if not linear or len(called.sources) > 1:
            return f"{what} hears a {signal.over_time} over time; only linear layers at the end may"
        return ""

    def bias(self, called: Called, bias: FloatArray | None) -> FloatArray | None:
        """Return what a layer adds in every step; what it adds once to a sum is noted."""
        signal = called.sources[0]
        if bias is None or signal.over_time != "sum":
            return bias
        if self.output is None or called.name != self.output.name:
            self.refuse(called, "adds a constant to a sum over time; only the last layer may")
        self.constant = bias / signal.factor
        return None

    def answer(self, called: Called) -> str:
        """End the graph with potentials for the answer of a linear operation; return their name."""
        neuron = Answer(self.constant, "step")
        return self.node(f"{called.name}.readout", Cells(neuron), self.heard(called))

    def kind(self, layer: nn.Module) -> type:
        """Return the class that a layer is read as."""
        own = kind_of(layer)
        return next((k for k in own.__mro__ if k in self.framework.readers or k in LAYERS), own)

    def names(self, signal: Signal) -> list[str]:
        """Return the nodes whose sum a signal is."""
        called, shown = signal.called, self.flow.shown
        late = 0 if signal.step is None else shown - signal.step
        if called is None or isinstance(called.event.module, self.framework.neurons):
            name = INPUT if called is None else called.name
            if late not in (0, 1):
                self.faults.append(f"{name}: is heard {late} steps later; one step at most can be")
                return [name]
            if signal.state:
                self.faults.append(
                    f"{name}: its state is used as a signal; on the chip only spikes are"
                )
            return [self.node(f"{name}.late", Add(), [name], late=True)] if late else [name]
        if called.event.name == "cat":
            self.faults.append(
                f"{called.event.place or 'forward'}: cat puts signals side by side; only a Linear "
                "may hear that"
            )
        return self.now.get(called, [])

    def joined(self, signal: Signal) -> tuple[Signal, ...] | None:
        """Return the signals that stand side by side in one, or None where it is a single one."""
        called = signal.called
        if called is None or called.event.name != "cat":
            return None
        return called.sources

    def layout(self, signal: Signal) -> Layout | None:
        """Return where a signal lies in what its nodes give; None where it is all of that."""
        called, moved = signal.called, signal.layout
        layout = None if called is None else self.layouts.get(called.name)
        if moved is None:
            return layout
        if layout is None:
            found = Layout(self.shape(moved.shape), moved.index)
        else:
            found = layout.inner(moved.index)
        return None if found.ordered and found.shape == self.shape(found.seen) else found

    def placed(self, signal: Signal) -> Layout:
        """Return where a signal lies in what its nodes give, whatever that is."""
        return self.layout(signal) or whole_of(self.shape(signal.shape), signal.shape)

    def _inherit(self, called: Called) -> None:
        """Let what a call gives lie where what it hears does, as long as the shape is the same."""
        source = called.sources[0]
        layout = self.layout(source)
        shapes = [value.shape[len(source.axes) :] for value in called.event.results[:1]]
        if layout is not None and shapes == [source.shape]:
            self.layouts[called.name] = layout

    def lies(self, called: Called, layout: Layout | None) -> None:
        """Note where what a call gives lies."""
        if layout is None or (layout.ordered and layout.shape == self.shape(layout.seen)):
            self.layouts.pop(called.name, None)
        else:
            self.layouts[called.name] = layout

    def settled(self, called: Called) -> bool:
        """Have a layer hear its signal as it is seen; refuse it where that takes more than that."""
        layout = self.layout(called.sources[0])
        if layout is None:
            return True
        self.lies(called, None)
        if layout.ordered and len(layout.seen) == 1:
            self.put(called, f"{called.name}.flat", Flatten())
            return True
        self.refuse(
            called,
            f"hears values of {layout.shape} cut or turned to {layout.seen}; here they must come "
            "as they are given, or flattened",
        )
        return False

    def heard(self, called: Called) -> list[str]:
        """Return what the next operation of a call hears."""
        if called not in self.now:
            self.now[called] = [n for source in called.sources for n in self.names(source)]
        return self.now[called]

    def node(self, name: str, node: Node, heard: Iterable[str], *, late: bool = False) -> str:
        """Put a node behind others, and return what it is called."""
        free, number = name, 2
        while free in self.nodes:
            free, number = f"{name}#{number}", number + 1
        self.nodes[free] = node
        self.edges += [(pre, free) for pre in heard]
        if late:
            self._late[free] = next(iter(heard))
        return free

    def put(self, called: Called, name: str, operation: Node) -> None:
        """Put one more operation behind what a call has become."""
        self.now[called] = [self.node(name, operation, self.heard(called))]

    def passed(self, called: Called) -> None:
        """Let a signal through as it is."""
        self.heard(called)

    def neurons(
        self,
        called: Called,
        neuron: Neuron,
        feedback: Callable[[Shape], Connection] | None = None,
        *,
        trained: bool = True,
        connection: Connection | None = None,
    ) -> None:
        """Put neurons into the graph.

        Parameters
        ----------
        called : Called
        neuron : Neuron
        feedback : callable, optional
            Returns the connection from neurons of a shape to themselves; a ValueError says why
            there is none.
        trained : bool
            Whether the weights of that are trained.
        connection : Connection, optional
            In front of them, where they bring one.
        """
        name = called.name
        layout = self.layout(called.sources[0])
        own = feedback is not None or connection is not None or self.is_output(called)
        if layout is not None and (own or not layout.whole):
            if not self.settled(called):
                return
            layout = None
        shape = self.shape(called.sources[0].shape)
        if connection is not None:
            self.put(called, f"{name}.input_weights", connection)
            shape = connection.output_shape(shape)
        if feedback is not None:
            try:
                back = feedback(shape)
            except ValueError as why:
                self.refuse(called, str(why))
                return
            self.node(f"{name}.recurrent", back, [name])
            if not trained:
                self.fixed.add(f"{name}.recurrent")
        if layout is None:
            neuron = self._with_height(neuron, shape)
        else:
            changed = {n: layout.values(v) for n, v in neuron.parameters.items() if v.size > 1}
            neuron = replace(neuron, **changed)
        self.put(called, name, Cells(neuron))
        if layout is not None:
            self.orders[self.now[called][0]] = layout.index.ravel()
        if feedback is not None:
            self.edges.append((f"{name}.recurrent", name))
        if called.event.module is not None:
            self.modules[self.now[called][0]] = called.event.module

    def gates(self, called: Called, least: int, what: str, shape: Shape) -> None:
        """Put gates of a shape into the graph that fire where so many of their inputs do."""
        self.put(called, called.name, Cells(Gate(np.asarray(float(least)))))
        if called.event.module is not None:
            self.modules[self.now[called][0]] = called.event.module
        self.note(gates_note(called.name, f"{what} of spikes", math.prod(shape)))

    def literal(self, signal: Signal) -> tuple[float, float] | None:
        """Return whether a signal is spikes, or 1 less spikes; None where it is neither."""
        names = self.names(signal)
        return literal_of(names[0], self.nodes, self.edges) if len(names) == 1 else None

    def _with_height(self, neuron: Neuron, shape: Shape) -> Neuron:
        """Return neurons whose parameters of (C, L) are (C, 1, L) where the signal is."""
        if not self.flat or len(shape) != 3:
            return neuron
        changed = {n: v[:, None] for n, v in neuron.parameters.items() if v.ndim == 2}
        return replace(neuron, **changed) if changed else neuron

    def is_output(self, called: Called) -> bool:
        """Tell whether neurons answer and nothing hears them."""
        if self.output is None or called.name != self.output.name:
            return False
        heard = {
            s.called.name
            for c in self.flow.calls
            for s in c.sources
            if s.called is not None and c.event.module is not None
        }
        return called.name not in heard

    def refuse(self, called: Called, why: str) -> None:
        """Note what cannot be represented."""
        event = called.event
        where = called.name if event.module is not None else event.place or "forward"
        self.faults.append(f"{where}: {why}")

    def misfit(self, called: Called, why: str) -> None:
        """Note that a layer does not take the shape it gets."""
        self.data_fault |= self.heard(called) == [INPUT]
        self.refuse(called, why)

    def note(self, what: str) -> None:
        if what not in self.notes:
            self.notes.append(what)

    def graph(self, input_shape: Shape, output: str) -> Graph:
        """Return the graph that ends in a node.

        What arrives one step late and leads back is late by itself; anything else is delayed.
        """
        edges = list(self.edges)
        for late, source in self._late.items():
            leads_back = late in ancestors(edges, source)
            self.nodes[late] = Add() if leads_back else Delay(np.ones((), np.int64))
        return Graph(self.shape(input_shape), self.nodes, edges, output)


def is_flat(calls: Sequence[Called]) -> bool:
    """Tell whether any layer is of one dimension."""
    named = ("conv1d", "avg_pool1d", "adaptive_avg_pool1d")
    return any(isinstance(c.event.module, FLAT) or c.event.name in named for c in calls)
