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

__all__ = ["BACKEND", "XyloBackend"]

_REMEDY = (
    "Install it with: pip install pybind11 setuptools wheel and then pip install "
    "--no-build-isolation xylosim==0.1.3 (a C++ compiler builds it)."
)


class XyloBackend:
    """Runs networks on xylosim in a child process with a time limit."""

    name = "xylo"
    summary = "SynSense's bit-exact simulator of Xylo cores (xylosim)"
    arithmetics = ("xylo",)
    command: tuple[str, ...] = (sys.executable, "-m", "osbc_backend_xylo.worker")

    def availability(self) -> Availability:
        """Tell whether xylosim is installed."""
        if importlib.util.find_spec("xylosim") is None:
            return Availability(False, "not installed: xylosim", _REMEDY)
        try:
            return Availability(True, f"xylosim {version('xylosim')}")
        except PackageNotFoundError:
            return Availability(True, "xylosim")

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
            When xylosim is missing, fails, or takes longer than `time_limit` seconds.
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


BACKEND = XyloBackend()
