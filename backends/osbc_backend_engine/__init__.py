"""The core's own integer engine as a backend: its specification, run beside what is compiled.

Every result of the core comes from the compiled engine. A backend that ran it again would only
show that it repeats itself, so this one runs the NumPy code that defines the bits.
"""

from __future__ import annotations

from collections.abc import Collection

from osbc_deploy._version import __version__
from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import Progress

__all__ = ["BACKEND", "EngineBackend"]


class EngineBackend:
    """Runs the engine's specification; needs nothing but the core, and no time limit."""

    name = "engine"
    summary = "NumPy specification of the core's integer engine"
    arithmetics = None
    """Whatever the engine computes."""

    def availability(self) -> Availability:
        """Return that it is always there."""
        return Availability(True, f"osbc-deploy {__version__}")

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        """Run samples; see :class:`osbc_deploy.backends.Backend`."""
        names = [p.name for p in network.populations]
        done = run(
            network,
            spikes,
            record=names,
            states=states,
            kernels="plain",
            progress=progress,
            title="engine's specification",
        )
        return BackendRun(done.spikes, done.output, done.u, done.v)


BACKEND = EngineBackend()
