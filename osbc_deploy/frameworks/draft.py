"""A graph that is being put together: its nodes, and where what calls give lies in them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch.nn import Parameter

from osbc_deploy.frameworks.answering import behind
from osbc_deploy.frameworks.assemble import Graph
from osbc_deploy.frameworks.framework import Framework
from osbc_deploy.frameworks.gating import counted, literal_of, most_spikes, spikes_behind
from osbc_deploy.frameworks.joining import brought, fits, put_beside, shared
from osbc_deploy.frameworks.layout import Layout, spread, whole_of
from osbc_deploy.frameworks.moves import MOVES
from osbc_deploy.frameworks.operations import Add, Delay, Flatten
from osbc_deploy.frameworks.order import ancestors
from osbc_deploy.frameworks.signals import Called, Flow, Signal
from osbc_deploy.frameworks.walk import Cells, Node
from osbc_deploy.limits import Allowance, array_bytes
from osbc_deploy.model.graph import INPUT, AvgPool, Shape

__all__ = ["ONLY_ANSWER", "Draft"]

ONLY_ANSWER = (
    "It makes nothing but the answer, so have forward answer with what it hears, and apply it to "
    "that"
)

_WEIGHT = 24
"""Bytes of a weight that puts an answer in order."""

_SMALLER_ANSWER = (
    "Give smaller maps; where the last layer is what enlarges them, have forward answer with the "
    "maps before, and enlarge the answer outside of the model (PixelShuffle, Upsample)"
)


@dataclass
class Draft:
    """Nodes and edges, and what calls have become of them.

    Attributes
    ----------
    framework : Framework
    flow : Flow
    output : Called or None
        The neurons that answer, or the linear operation behind the last of them.
    flat : bool
        Whether samples (C, L) are read as (C, 1, L), which layers of one dimension take.
    graded : bool
        Whether the input is more than 0 and 1.
    nodes, edges : dict, list
        The graph, so far.
    now : dict of Called to list of str
        The nodes whose sum a call gives.
    layouts : dict of str to Layout
        Where what a call gives lies in what its nodes give, by its name; it lies there as it is
        given where there is none.
    fixed : set of str
        Connections without trained weights.
    faults, notes : list of str
    data_fault : bool
        Whether what hears the input alone does not take its shape.
    """

    framework: Framework
    flow: Flow
    output: Called | None
    flat: bool
    graded: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    now: dict[Called, list[str]] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data_fault: bool = False
    _late: dict[str, tuple[str, int]] = field(default_factory=dict)

    def shape(self, sample: Shape) -> Shape:
        """Return the shape of a sample in the graph."""
        return (sample[0], 1, sample[1]) if self.flat and len(sample) == 2 else sample

    def names(self, signal: Signal) -> list[str]:
        """Return the nodes whose sum a signal is."""
        called, shown = signal.called, self.flow.shown
        late = 0 if signal.step is None else shown - signal.step
        if called is None or isinstance(called.event.module, self.framework.neurons):
            name = INPUT if called is None else called.name
            if late < 0:
                self.faults.append(f"{name}: is heard in a later step than it is given")
                return [name]
            if signal.state:
                self.faults.append(
                    f"{name}: its state is used as a signal; on the chip only spikes are"
                )
            return [self.node(f"{name}.late", Add(), [name], late=late)] if late else [name]
        if called.event.name == "cat" and called not in self.now:
            put_beside(self, called)
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
        if called is not None and called.event.name == "cat" and called not in self.now:
            seen = called.shape
            if len(self.shape(signal.shape)) == len(self.shape(seen)) == 3:
                put_beside(self, called)
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

    def inherit(self, called: Called) -> None:
        """Let what a call gives lie where what it hears does, as long as the shape is the same."""
        source = called.sources[0]
        layout = self.layout(source)
        if layout is not None and called.event.results and called.shape == source.shape:
            self.layouts[called.name] = layout

    def lies(self, called: Called, layout: Layout | None) -> None:
        """Note where what a call gives lies."""
        if layout is None or (layout.ordered and layout.shape == self.shape(layout.seen)):
            self.layouts.pop(called.name, None)
        else:
            self.layouts[called.name] = layout

    def settles(self, called: Called) -> bool:
        """Tell whether a layer can hear its signal as it is seen."""
        layout = self.layout(called.sources[0])
        if layout is None or (layout.ordered and len(layout.seen) == 1):
            return True
        target = whole_of(self.shape(layout.seen), layout.seen)
        return len(target.shape) == 3 and fits(layout, target)

    def settled(self, called: Called) -> bool:
        """Have a layer hear its signal as it is seen; refuse it where that takes more than that."""
        layout = self.layout(called.sources[0])
        if layout is None:
            return True
        self.lies(called, None)
        if layout.ordered and len(layout.seen) == 1:
            self.put(called, f"{called.name}.flat", Flatten())
            return True
        if self.settles(called):
            target = whole_of(self.shape(layout.seen), layout.seen)
            self.now[called] = brought(self, f"{called.name}.part", called.sources[0], target)
            return True
        why = (
            f"hears values of {layout.shape} cut or turned to {layout.seen}; here they must "
            "come as they are given, as whole channels of them, or flattened"
        )
        if self.hears_input(called):
            why += ". They are the input: give samples so, and leave that out of forward()"
        self.refuse(called, why)
        return False

    def picked(self, called: Called, layout: Layout) -> Layout:
        """Let neurons hear whole channels of maps, rather than all of which they see a part."""
        own = layout.own()
        picks = spread(layout, own) if own.whole else None
        if picks is not None:
            self.put(called, f"{called.name}.part", picks)
            self.fixed.add(f"{called.name}.part")
            self.lies(called, own)
        return own

    def in_phases(self, called: Called, layout: Layout) -> Layout:
        """Have neurons or a BatchNorm hear each value once: maps by phases, anything else flat."""
        if layout.whole:
            return layout
        target = whole_of((math.prod(layout.seen),), layout.seen)
        if len(self.shape(layout.seen)) == 3:
            target = shared(self, [layout])(layout.seen)
        self.now[called] = brought(self, f"{called.name}.part", called.sources[0], target)
        self.lies(called, target)
        return target

    def in_order(self, called: Called, name: str, layout: Layout) -> list[str]:
        """Return the nodes that give what a call has become in the order that is seen, flat."""
        size = math.prod(layout.seen)
        made = (size, math.prod(layout.shape))
        Allowance(name, remedy=_SMALLER_ANSWER).take(array_bytes(made, _WEIGHT))
        operation = spread(layout, whole_of((size,), layout.seen), name)
        heard = self.heard(called)
        if operation is None:
            return heard
        if len(layout.shape) > 1:
            heard = [self.node(f"{name}.flat", Flatten(), heard)]
        self.fixed.add(f"{name}.order")
        self.note(
            f"{called.name}: answers flat, in the order of {layout.seen}, so the layer in front of "
            "it becomes a matrix"
        )
        return [self.node(f"{name}.order", operation, heard)]

    def heard(self, called: Called) -> list[str]:
        """Return what the next operation of a call hears."""
        if called not in self.now:
            self.now[called] = [n for source in called.sources for n in self.names(source)]
        return self.now[called]

    def node(self, name: str, node: Node, heard: Iterable[str], *, late: int = 0) -> str:
        """Put a node behind others, so many steps later, and return what it is called."""
        free, number = name, 2
        while free in self.nodes:
            free, number = f"{name}#{number}", number + 1
        self.nodes[free] = node
        self.edges += [(pre, free) for pre in heard]
        if late:
            self._late[free] = (next(iter(heard)), late)
        return free

    def put(self, called: Called, name: str, operation: Node) -> None:
        """Put one more operation behind what a call has become."""
        self.now[called] = [self.node(name, operation, self.heard(called))]

    def passed(self, called: Called) -> None:
        """Let a signal through as it is."""
        self.heard(called)

    def refuse(self, called: Called, why: str) -> None:
        """Note what cannot be represented."""
        event = called.event
        where = called.name if event.module is not None else event.place or "forward"
        self.faults.append(f"{where}: {why}")

    def refuse_part(self, called: Called, why: str) -> None:
        """Note what has no counterpart on a chip; where none is needed, say what to do instead."""
        if self._of_input(called):
            module = called.event.module
            where = "be done to the samples, and left out of forward()"
            if module is not None:
                where = f"run on the host (--host-prefix {called.name})"
            why = f"{why}. It hears nothing but the input, so it can {where}"
        elif self.ends(called):
            why = f"{why}. {ONLY_ANSWER}"
        self.refuse(called, why)

    def hears_input(self, called: Called) -> bool:
        """Tell whether a call hears the input, through what has no weights and no states."""
        return all(s.called is None or self._of_input(s.called) for s in called.sources)

    def ends(self, called: Called) -> bool:
        """Tell whether a function makes nothing but the answer: no layer or later step hears it."""
        later = (c for c in self.flow.calls if c.name == called.name and c is not called)
        layers = (c for c in self.flow.calls if c.event.module is not None)
        heard = [source for c in (*layers, *later) for source in c.sources]
        moves = called.event.module is not None or called.event.name in MOVES
        return not moves and called not in behind(heard, ())[1]

    def _of_input(self, called: Called) -> bool:
        """Tell whether a call hears the input alone, through what has no weights and no states."""
        module, event = called.event.module, called.event
        given = (*event.args, *event.kwargs.values())
        weights: Iterable[Parameter] = (g for g in given if isinstance(g, Parameter))
        if module is not None:
            weights = module.parameters()
        if any(True for _ in weights) or isinstance(module, self.framework.neurons):
            return False
        before = (source.called for source in called.sources)
        return all(one is None or self._of_input(one) for one in before)

    def unmixed(self, signal: Signal) -> bool:
        """Tell whether a signal is the input or spikes, pooled or not, but never weighted."""
        waiting = list(self.names(signal))
        while waiting:
            name = waiting.pop()
            node = self.nodes.get(name)
            if node is None or isinstance(node, Cells):
                continue
            if not isinstance(node, AvgPool):
                return False
            waiting += [pre for pre, post in self.edges if post == name]
        return True

    def leave_out(self, called: Called) -> None:
        """Leave out what was refused, so that what hears it is not judged."""
        self.nodes.pop(called.name, None)
        self.now[called] = [called.name]
        for source in called.sources:
            before = source.called
            if before is not None and before.event.name == "cat" and before not in self.now:
                # Nothing else puts it into the graph.
                self.leave_out(before)
            heard = [INPUT] if before is None else self.now.get(before, [before.name])
            self.edges += [(pre, called.name) for pre in heard]

    def known(self, called: Called) -> bool:
        """Tell whether all that a call hears was read; what was refused is nothing to go by."""
        return all(name == INPUT or name in self.nodes for name in self.heard(called))

    def misfit(self, called: Called, why: str) -> None:
        """Note that a layer does not take the shape it gets."""
        self.data_fault |= self.heard(called) == [INPUT]
        self.refuse(called, why)

    def note(self, what: str) -> None:
        if what not in self.notes:
            self.notes.append(what)

    def sends_spikes(self, name: str) -> bool:
        """Tell whether a node is neurons that fire."""
        node = self.nodes.get(name)
        return isinstance(node, Cells) and node.neuron.spiking

    def spikes_behind(self, name: str) -> str:
        """Return what a node sends a multiple of: neurons, the input, or some of their channels."""
        return spikes_behind(name, self.nodes, self.edges)

    def counts(self, called: Called) -> tuple[bool, bool]:
        """Tell whether a call hears whole numbers of spikes, and never less than 0."""
        heard = self.heard(called)
        return counted(heard, self.nodes, self.edges, self.fixed, graded=self.graded)

    def most(self, called: Called) -> float:
        """Return how many spikes a call hears at most where they are counted; else infinity."""
        if self.counts(called) != (True, True):
            return math.inf
        return most_spikes(self.heard(called), self.nodes, self.edges)

    def literal(self, signal: Signal) -> tuple[float, float] | None:
        """Return whether a signal is spikes, or 1 less spikes; None where it is neither."""
        names = self.names(signal)
        if len(names) != 1:
            return None
        return literal_of(names[0], self.nodes, self.edges, graded=self.graded)

    def graph(self, input_shape: Shape, output: str) -> Graph:
        """Return the graph that ends in a node.

        What leads back is a step late by itself; anything else that is late is delayed.
        """
        edges = list(self.edges)
        for name, (source, late) in self._late.items():
            steps = late - (name in ancestors(edges, source))
            self.nodes[name] = Delay(np.asarray(steps)) if steps else Add()
        return Graph(self.shape(input_shape), self.nodes, edges, output, self.fixed)
