"""Poolings by maximum and masks in a traced forward: populations of gates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import fx

from osbc_deploy.frameworks.assemble import Cells
from osbc_deploy.frameworks.compose import Flatten
from osbc_deploy.frameworks.gating import (
    OF_CURRENTS,
    OF_NUMBERS,
    SPIKES,
    gates_note,
    literal_of,
    max_pooling,
)
from osbc_deploy.frameworks.tracing import value
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Shape

__all__ = ["take_gate", "take_largest"]


def take_largest(reader: Any, node: fx.Node, path: str, found: Any, shape: Shape) -> None:
    """Take a pooling by maximum, which is a population of gates."""
    name = type(found).__name__
    try:
        if literal_of(reader.names[node], reader.nodes, reader.edges) != SPIKES:
            raise ValueError(f"{name} {OF_CURRENTS}")
        weights = max_pooling(found, shape)
    except ValueError as why:
        reader._refuse(node, str(why), path)
        return
    if not weights.convolutional:
        reader._follow(node, f"{path}.flat", Flatten())
    reader._follow(node, f"to {path}", weights)
    reader._follow(node, path, Cells(Gate(np.ones(()))))
    _note_gates(reader, node, path, name)


def take_gate(reader: Any, node: fx.Node, path: str, name: str, least: int) -> None:
    """Take what is computed of two signals, which is a gate if both are spikes."""
    sources = reader._sources(node)
    heard = [literal_of(reader.names[s], reader.nodes, reader.edges) for s in sources]
    if len({value(s).shape for s in sources}) > 1:
        reader._refuse(node, f"{name} of signals of different shapes")
    elif None in heard:
        reader._refuse(node, f"{name} {OF_NUMBERS}")
    elif len(sources) == 1:
        # Of a signal with itreader.
        reader.names[node] = reader.names[sources[0]]
    else:
        reader._add(node, path, Cells(Gate(np.asarray(float(least)))))
        _note_gates(reader, node, path, name)


def _note_gates(reader: Any, node: fx.Node, path: str, what: str) -> None:
    count = math.prod(reader._shape(node))
    reader.notes.append(gates_note(path, f"{what} of spikes", count))
