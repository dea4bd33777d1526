"""The Lava process that plays the input from a file.

Lava hands a variable's elements over one message at a time, which for a raster takes longer than
the simulation; a memory-mapped file does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

__all__ = ["Player"]


class Player(AbstractProcess):  # type: ignore[misc]
    """Sends row ``time_step - 1 - late`` of an .npy file (steps, ...), and zeros around them."""

    def __init__(self, *, path: Path, shape: tuple[int, ...], late: int = 0) -> None:
        super().__init__(path=str(path), late=late)
        self.s_out = OutPort(shape=shape)


@implements(proc=Player, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PlayerModel(PyLoihiProcessModel):  # type: ignore[misc]
    """Plays in the process that Lava starts for it."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r", allow_pickle=False)
        self.late = proc_params["late"]

    def run_spk(self) -> None:
        """Send one row."""
        index = self.time_step - 1 - self.late
        there = 0 <= index < len(self.rows)
        row = self.rows[index] if there else np.zeros_like(self.rows[0])
        self.s_out.send(row.astype(np.int32))
