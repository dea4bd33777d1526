"""The parent side: what is needed, and how the worker is started."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.child import simulated
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import Progress

__all__ = ["BACKEND", "SinabsBackend"]

_NEEDED = {"sinabs": "sinabs", "pbr": "pbr", "nirtorch": "nirtorch"}
_REMEDY = (
    "Install it with: pip install 'osbc-deploy[sinabs]' and then pip install --no-deps "
    "sinabs==3.1.3 (without what it declares: simulating needs no driver of the chip)."
)


class SinabsBackend:
    """Runs networks on sinabs' layers in a child process with a time limit."""

    name = "sinabs"
    summary = "SynSense's simulation of Speck's neurons (sinabs)"
    arithmetics = ("speck",)
    command: tuple[str, ...] = (sys.executable, "-m", "osbc_backend_sinabs.worker")

    def availability(self) -> Availability:
        """Tell whether sinabs and what it imports are installed."""
        missing = [
            name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None
        ]
        if missing:
            return Availability(False, f"not installed: {', '.join(missing)}", _REMEDY)
        try:
            return Availability(True, f"sinabs {version('sinabs')}")
        except PackageNotFoundError:
            return Availability(True, "sinabs")

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        """Run samples; see :class:`osbc_deploy.backends.Backend`.

        Raises
        ------
        BackendError
            When sinabs is missing, fails, or takes longer than `time_limit` seconds.
        """
        return simulated(
            self,
            self.command,
            network,
            spikes,
            time_limit=time_limit,
            progress=progress,
            states=states,
        )


BACKEND = SinabsBackend()
