"""Lava's LIF neurons, with two things added: they write traces, and may reset by subtraction.

Everything else, and so the arithmetic, is Lava's own: the models inherit its bit-accurate ones and
override the one method that it calls between firing and sending.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc
from lava.proc.lif.process import LIF, LIFReset

__all__ = ["TracedLIF", "TracedLIFReset"]


class TracedLIF(LIF):  # type: ignore[misc]
    """Lava's LIF with `traces` (paths of .npy files by "s", "u", "v") and `drop`.

    `drop` is what a spike takes off the potential, per neuron; None resets it to 0.
    """

    def __init__(self, *, traces: dict[str, str], drop: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.proc_params["traces"], self.proc_params["drop"] = traces, drop


class TracedLIFReset(LIFReset):  # type: ignore[misc]
    """Lava's LIFReset with the same."""

    def __init__(self, *, traces: dict[str, str], drop: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.proc_params["traces"], self.proc_params["drop"] = traces, drop


class _Traced:
    """What is added to both models."""

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)  # type: ignore[call-arg]
        self.files = {
            name: np.load(path, mmap_mode="r+", allow_pickle=False)
            for name, path in proc_params["traces"].items()
        }
        self.drop = proc_params["drop"]

    def reset_voltage(self, spike_vector: Any) -> None:
        """Reset what fired, and write the step down."""
        if self.drop is not None:
            self.v[spike_vector] -= self.drop[spike_vector]  # type: ignore[attr-defined]
        else:
            super().reset_voltage(spike_vector)  # type: ignore[misc]
        row = self.time_step - 1  # type: ignore[attr-defined]
        for name, values in (("s", spike_vector), ("u", self.u), ("v", self.v)):  # type: ignore[attr-defined]
            if name in self.files:
                self.files[name][row] = values


class TracedLIFModel(_Traced, PyLifModelBitAcc):  # type: ignore[misc]
    """Lava's bit-accurate LIF; its decorator would refuse a model that inherits one."""

    implements_process = TracedLIF


class TracedLIFResetModel(_Traced, PyLifResetModelBitAcc):  # type: ignore[misc]
    """Lava's bit-accurate LIF that sets its states to 0 at intervals."""

    implements_process = TracedLIFReset
