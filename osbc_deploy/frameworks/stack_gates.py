"""Poolings by maximum in a stack of layers: populations of gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from osbc_deploy.frameworks.gating import OF_CURRENTS, gates_note, max_pooling
from osbc_deploy.model.gates import Gate

if TYPE_CHECKING:
    from osbc_deploy.frameworks.stack import StackReader

__all__ = ["take_largest"]


def take_largest(reader: StackReader, path: str, layer: Any) -> None:
    """Take a pooling by maximum, which is a population of gates."""
    name = type(layer).__name__
    if reader.current is not None or reader.pool is not None:
        reader.skip(path, layer, f"{name} {OF_CURRENTS}")
        return
    try:
        connection = max_pooling(layer, reader.shape)
    except ValueError as why:
        reader.mismatch(path, str(why))
        reader.lost = True
        return
    reader.shape = connection.output_shape(reader.shape)
    reader.add(path, Gate(np.ones(())), f"to {path}", connection, compressible=False)
    reader.notes.append(gates_note(path, f"{name} of spikes", reader.populations[-1].size))
