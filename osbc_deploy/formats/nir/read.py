"""Import graphs of the Neuromorphic Intermediate Representation (NIR).

NIR states differential equations, so a file holds neither the time step nor whether a spike sets
the potential to ``v_reset`` or takes the threshold away: `dt` and `reset` are asked for, unless the
file tells (see :mod:`osbc_deploy.formats.nir.options`). The equations of a step are those of
:mod:`osbc_deploy.formats.nir.neurons`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.errors import (
    ArtefactError,
    OsbcError,
    UnsupportedModelError,
    UsageError,
    described,
)
from osbc_deploy.formats.nir.file import NirModel, read_model, take_apart
from osbc_deploy.formats.nir.gates import with_gates
from osbc_deploy.formats.nir.nodes import SUPPORTED, Translator
from osbc_deploy.formats.nir.options import choose, own_metadata
from osbc_deploy.frameworks.assemble import Graph, assemble
from osbc_deploy.model.graph import Network

__all__ = ["read_nir"]


def read_nir(
    model: str | Path | Any,
    *,
    dt: float | None = None,
    reset: str | None = None,
    source: str = "",
) -> Network:
    """Turn a NIR graph into a float network.

    Parameters
    ----------
    model : path or nir.NIRGraph
    dt : float, optional
        Time step in the unit of the file's time constants, seconds as a rule.
    reset : {"zero", "subtract"}, optional
        Whether a spike sets the potential to ``v_reset`` or takes the threshold away.
    source : str
        Name of the model for the report; the path by default.

    Returns
    -------
    Network
        In float64 if any weight or neuron parameter is, else in float32.

    Raises
    ------
    UsageError
        When the file does not exist, or `dt` or `reset` is needed and not given, or makes no sense.
    ArtefactError
        When it is no NIR graph, or holds parameters that no neuron can have.
    UnsupportedModelError
        With every node that has no counterpart.
    """
    from_file = isinstance(model, str | Path)
    source = source or (str(model) if from_file else "NIR graph")
    try:
        read = read_model(Path(model)) if from_file else take_apart(model, source)
        return _network(read, dt, reset, source)
    except OsbcError:
        raise
    except Exception as error:
        # Any value may be of any type and shape, in a file as in a graph that was made in memory.
        raise ArtefactError(
            f"{source}: is a damaged NIR graph ({described(error)}). Export it again."
        ) from error


def _network(read: NirModel, dt: float | None, reset: str | None, source: str) -> Network:
    chosen = choose(read, dt, reset, source)
    translator = Translator(read, chosen)
    nodes = translator.nodes()
    if translator.broken:
        listed = "\n".join(f"  - {fault}" for fault in translator.broken)
        raise ArtefactError(f"{source}: parameters that are not valid:\n{listed}\nExport it again.")
    if translator.too_long:
        listed = "\n".join(f"  - {fault}" for fault in translator.too_long)
        raise UsageError(
            f"--dt: {chosen.dt:g} is longer than time constants of the model:\n{listed}\n"
            "Give a shorter one."
        )
    translator.check_ends()
    graph = Graph(translator.input_shape(source), nodes, translator.edges(), translator.output())
    notes = [*read.notes, *chosen.notes, *translator.notes]
    try:
        network = assemble(
            graph, dtype=_dtype(read), source=source, notes=notes, faults=translator.faults
        )
        return with_gates(network)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            error.summary, error.offenders, f"Supported: {SUPPORTED}."
        ) from None


def _dtype(model: NirModel) -> str:
    """Return the precision of the model: double if anything in it is."""
    own = own_metadata(model).get("dtype")
    if own in ("float32", "float64"):
        return str(own)
    values = [v for node in model.nodes.values() for v in vars(node).values()]
    doubles = [v for v in values if getattr(v, "dtype", None) == np.float64]
    return "float64" if doubles else "float32"
