"""NIR graphs: the file, its neurons, reading and writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osbc_deploy.formats.format import Format

if TYPE_CHECKING:
    from osbc_deploy.model.graph import Network

__all__ = ["FORMAT"]


def _read(model: Any, *, source: str, dt: float | None, reset: str | None) -> Network:
    from osbc_deploy.formats.nir.read import read_nir

    return read_nir(model, dt=dt, reset=reset, source=source)


def _is_graph(model: Any) -> bool:
    kind = type(model)
    return kind.__name__ == "NIRGraph" and kind.__module__.split(".")[0] == "nir"


FORMAT = Format(
    title="NIR graph",
    suffix=".nir",
    read_network=_read,
    is_object=_is_graph,
    options=("dt", "reset"),
)
