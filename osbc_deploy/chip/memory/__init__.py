"""Memory models: exact integer arithmetic of what a slice of a layer costs on one core.

A model is a table of facts with a method `cost`; the table's key ``model`` in a target file names
it. A chip with rules of a kind listed here needs a TOML file only; rules of another kind need one
module here and its name in the union below.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from osbc_deploy.chip.memory.chunks import Chunks
from osbc_deploy.chip.memory.records import Records
from osbc_deploy.chip.memory.shared import SharedCore
from osbc_deploy.chip.memory.tables import Tables

__all__ = ["Chunks", "MemoryModel", "Records", "SharedCore", "Tables"]

MemoryModel = Annotated[Records | Chunks | Tables | SharedCore, Field(discriminator="model")]
