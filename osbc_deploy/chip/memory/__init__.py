"""Memory models: exact integer arithmetic of what a slice of a layer costs on one core.

A model is a table of facts with a method `cost`; the table's key ``model`` in a target file names
it. A chip with rules of a kind that is there needs a TOML file only; rules of another kind need one
class like :class:`MemoryBase` and an entry point of the group ``osbc_deploy.memory_models``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from osbc_deploy.chip.memory.base import Arrangement, MemoryBase
from osbc_deploy.errors import OsbcError, TargetError
from osbc_deploy.plugins import Group

__all__ = ["MEMORY_MODELS", "Arrangement", "MemoryBase", "MemoryModel"]


def _accept(name: str, plugin: Any) -> type[MemoryBase]:
    del name
    if not (isinstance(plugin, type) and issubclass(plugin, MemoryBase)):
        found = plugin.__name__ if isinstance(plugin, type) else f"a {type(plugin).__name__}"
        raise ValueError(f"it is {found}, not a class that derives from MemoryBase")
    abstract = [
        method
        for method in ("cost", "limits", "scale_groups", "least")
        if getattr(plugin, method) is getattr(MemoryBase, method)
        and (method != "least" or plugin.arrangement == "split")
    ]
    if abstract:
        raise ValueError(f"it does not define {', '.join(abstract)}")
    return plugin


MEMORY_MODELS: Group[type[MemoryBase]] = Group(
    "osbc_deploy.memory_models",
    "memory model",
    ("records", "chunks", "tables", "shared", "runtime"),
    _accept,
    TargetError,
)


def _modeled(table: Any) -> Any:
    """Read a target's table with the model that it names."""
    if isinstance(table, MemoryBase) or not isinstance(table, dict):
        return table
    name = table.get("model")
    if not isinstance(name, str):
        raise ValueError(f"model is {name!r:.40}, one of {', '.join(MEMORY_MODELS.names())} needed")
    try:
        model = MEMORY_MODELS.load(name)
    except OsbcError as error:
        raise ValueError(str(error)) from error
    return model.model_validate(table)


MemoryModel = Annotated[SerializeAsAny[MemoryBase], BeforeValidator(_modeled)]
