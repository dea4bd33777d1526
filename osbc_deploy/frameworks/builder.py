"""Put what a forward calls into a graph of neurons and linear operations.

What the answer depends on is taken call by call: layers by their class, a subclass as what it
derives from; functions by their name. Both are tables. Whatever has no exact counterpart is listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.errors import OsbcError, described
from osbc_deploy.frameworks.answering import behind
from osbc_deploy.frameworks.draft import ONLY_ANSWER, Draft
from osbc_deploy.frameworks.flow import Called, Signal
from osbc_deploy.frameworks.framework import kind_of, unsupported
from osbc_deploy.frameworks.functions import FUNCTIONS, LINEAR
from osbc_deploy.frameworks.gating import gates_note
from osbc_deploy.frameworks.joining import put_beside
from osbc_deploy.frameworks.layers import FLAT, LAYERS, LINEAR_LAYERS, TIMELESS
from osbc_deploy.frameworks.layout import whole_of
from osbc_deploy.frameworks.leaking import SUMS, Leak, leak_of
from osbc_deploy.frameworks.operations import Scale
from osbc_deploy.frameworks.reasons import unsupported_part
from osbc_deploy.frameworks.repeats import hears_last
from osbc_deploy.frameworks.walk import Cells
from osbc_deploy.model.answer import Answer, Leaking
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Connection, Pair, Shape
from osbc_deploy.model.neurons import Neuron

__all__ = ["Builder"]

_CONVOLVE = (nn.Conv1d, nn.Conv2d)


@dataclass
class Builder(Draft):
    """Makes a graph of calls.

    Attributes
    ----------
    orders : dict of str to ndarray of int
        Where the framework's answer of a neuron node lies in what it gives.
    modules : dict of str to torch.nn.Module
        What each neuron node was read from.
    constant : ndarray of float
        What the last layer adds once to a sum over time, in units of that sum.
    padded : dict of Called to (int, int)
        Calls that put zeros around maps, and how many rows and columns at each side.
    leak : Leak or None
        A leaky sum that the forward keeps for the answer, which the last neurons hold here.
    """

    orders: dict[str, IntArray] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    constant: FloatArray = field(default_factory=lambda: np.zeros(()))
    padded: dict[Called, Pair] = field(default_factory=dict)
    leak: Leak | None = None

    def take(self, called: Called) -> None:
        """Put one call into the graph."""
        event = called.event
        if self.leak is not None and called is self.leak.heard:
            self._leaks(called, self.leak)
            return
        hears = [s for s in called.sources if s.over_time]
        self.inherit(called)
        faults = len(self.faults)
        if not event.results and any(s.state for s in called.sources):
            # It failed for what it was given.
            return
        try:
            why = called.fault or self._alone_fault(called)
            if hears and not why:
                why = self._reduced_fault(called, hears[0])
            if not why and any(s.called in self.padded for s in called.sources):
                why = self._padded_fault(called)
            if why:
                self.refuse(called, why)
            elif event.module is not None:
                self.layer(called, event.module)
            elif event.name in FUNCTIONS:
                FUNCTIONS[event.name](self, called)
            elif event.name != "cat":
                self.refuse_part(called, unsupported_part(event.name))
        except OsbcError:
            raise
        except Exception as error:  # noqa: BLE001 - what a layer holds may have been replaced
            if self.known(called):
                self.refuse(called, f"{event.name} cannot be read ({described(error)})")
            else:
                # What it hears was refused, and may have any shape.
                self.leave_out(called)
        if len(self.faults) > faults:
            self.leave_out(called)

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
            self.refuse_part(called, unsupported(kind_of(layer), known))
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
        alike = len({source.over_time for source in called.sources}) == 1
        if alike and what in SUMS and signal.over_time != "max":
            return ""
        if alike and what == "cat" and len({source.factor for source in called.sources}) == 1:
            return ""
        if signal.over_time == "max":
            return f"{what} hears a maximum over time; on the chip only its readout takes one"
        if kind is None and self.ends(called) and event.name not in LINEAR:
            return f"{what} of a {signal.over_time} over time is no readout. {ONLY_ANSWER}"
        linear = event.name in LINEAR if kind is None else issubclass(kind, LINEAR_LAYERS)
        if not linear or len(called.sources) > 1:
            return f"{what} hears a {signal.over_time} over time; only linear layers at the end may"
        return ""

    def _padded_fault(self, called: Called) -> str:
        """Say why a call cannot hear what zeros were put around; empty if it can."""
        module, name = called.event.module, called.event.name
        kind = None if module is None else self.kind(module)
        convolves = name in ("conv1d", "conv2d") if kind is None else issubclass(kind, _CONVOLVE)
        if convolves:
            return ""
        what = name if kind is None else kind.__name__
        return f"{what} hears zeros that were put around a map; only a convolution may"

    def bias(self, called: Called, bias: FloatArray | None) -> FloatArray | None:
        """Return what a layer adds in every step; what it adds once to a sum is noted."""
        signal = called.sources[0]
        if bias is None or not signal.over_time:
            return bias
        if signal.over_time == "mean":
            return bias / signal.factor
        if self.output is None or called.name != self.output.name:
            self.refuse(called, "adds a constant to a sum over time; only the last layer may")
        self.constant = bias / signal.factor
        return None

    def _alone_fault(self, called: Called) -> str:
        """Say why a call hears something of one step alone, or a leaky sum; empty if it may."""
        between = behind(called.sources, self.framework.neurons)[1]
        if self.leak is None or self.leak.heard not in between:
            leak = leak_of(self.flow, called) if called.event.name in SUMS else None
            return hears_last(self.flow, called) if leak is None else leak.alone
        return ""

    def answer(self, called: Called) -> str:
        """End the graph with potentials for the answer of a linear operation; return their name."""
        neuron = Answer(self.constant, "step")
        heard, layout = self._given(called), self.layouts.get(called.name)
        if layout is not None:
            heard = self.in_order(called, f"{called.name}.readout", layout)
        return self.node(f"{called.name}.readout", Cells(neuron), heard)

    def leaking(self, called: Called, leak: Leak) -> str:
        """End the graph with potentials that keep a leaky sum of what a call gives."""
        name, heard = called.name, self._given(called)
        if leak.heard is None:
            name, heard = leak.name, self._gained(leak, heard)
        return self.node(f"{name}.readout", Cells(Leaking(leak.decay)), heard)

    def _leaks(self, called: Called, leak: Leak) -> None:
        """Let what a leaky sum hears through, as the last neurons hold the sum."""
        is_neuron = isinstance(leak.hears.event.module, self.framework.neurons)
        heard = [leak.hears.name] if is_neuron else self._given(leak.hears)
        self.now[called] = self._gained(leak, heard)

    def _gained(self, leak: Leak, heard: list[str]) -> list[str]:
        """Return the nodes that give what a leaky sum takes of its current."""
        if (leak.gain == 1.0).all():
            return heard
        return [self.node(f"{leak.name}.scale", Scale(leak.gain), heard)]

    def _given(self, called: Called) -> list[str]:
        """Return the nodes whose sum the last call gives."""
        if called.event.name == "cat" and called not in self.now:
            put_beside(self, called)
        return self.heard(called)

    def kind(self, layer: nn.Module) -> type:
        """Return the class that a layer is read as."""
        own = kind_of(layer)
        return next((k for k in own.__mro__ if k in self.framework.readers or k in LAYERS), own)

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
        own, ends = feedback is not None or connection is not None, self.is_output(called)
        if layout is not None and not (own or ends) and not layout.whole:
            layout = self.in_phases(called, self.picked(called, layout))
        if layout is not None and ends and not own and not self.settles(called):
            self.now[called] = self.in_order(called, called.name, layout)
            layout = whole_of((math.prod(layout.seen),), layout.seen)
            self.lies(called, layout)
        elif layout is not None and (own or ends or not layout.whole):
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
            if any(pre == name for pre, _ in self.edges):
                self.refuse(
                    called,
                    f"feeds back as maps {layout.seen}, which lie in {layout.shape} because a "
                    "layer in front enlarges or turns them; have maps that nothing enlarges feed "
                    "back",
                )
                return
            self.orders[self.now[called][0]] = layout.index.ravel()
        if feedback is not None:
            self.edges.append((f"{name}.recurrent", name))
        if called.event.module is not None:
            self.modules[self.now[called][0]] = called.event.module

    def unwatched(self, called: Called) -> None:
        """Let neurons be compared by the model's answer alone, as no call gives their steps."""
        self.modules.pop(self.now[called][0], None)

    def gates(
        self, called: Called, least: Any, what: str, shape: Shape, name: str | None = None
    ) -> None:
        """Put gates of a shape into the graph that fire where this many of their inputs do."""
        name = name or called.name
        self.put(called, name, Cells(Gate(np.asarray(least, np.float64))))
        if called.event.module is not None and name == called.name:
            self.modules[self.now[called][0]] = called.event.module
            if (layout := self.layouts.get(called.name)) is not None:
                self.orders[self.now[called][0]] = layout.index.ravel()
        self.note(gates_note(name, f"{what} of spikes", math.prod(shape)))

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


def is_flat(calls: Sequence[Called]) -> bool:
    """Tell whether any layer is of one dimension."""
    named = ("conv1d", "avg_pool1d", "adaptive_avg_pool1d")
    return any(isinstance(c.event.module, FLAT) or c.event.name in named for c in calls)
