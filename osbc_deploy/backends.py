"""Backends: plugins that run a fixed-point network, found by entry point.

A backend is an object with the attributes of :class:`Backend`, registered under the entry-point
group ``osbc_deploy.backends``. The core never imports one by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol

from osbc_deploy.arrays import IntArray, SpikeArray
from osbc_deploy.errors import BackendError, OsbcError, UsageError, described, reason
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import Progress

__all__ = ["GROUP", "Availability", "Backend", "BackendRun", "backend_names", "load_backend"]

GROUP = "osbc_deploy.backends"


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here.

    Attributes
    ----------
    ok : bool
    detail : str
        Versions where it can run, the reason where it cannot.
    remedy : str
        What to do about it; empty where it can run.
    """

    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, eq=False)
class BackendRun:
    """What a backend computed.

    Attributes
    ----------
    spikes : dict of ndarray of uint8 (n, T, size)
        Of every spiking population.
    output : ndarray of int32 (n, T, size)
        Spikes of the output population, or its potentials if it is a readout.
    u, v : dict of ndarray of int32 (n, T, size)
        Of the populations whose states were asked for.
    restarts : int
        Times the backend hung and was started again; its results are what they would have been.
    """

    spikes: Mapping[str, SpikeArray]
    output: IntArray
    u: Mapping[str, IntArray] = field(default_factory=dict)
    v: Mapping[str, IntArray] = field(default_factory=dict)
    restarts: int = 0


class Backend(Protocol):
    """What a backend plugin provides."""

    @property
    def name(self) -> str:
        """Name of the backend, as targets refer to it."""

    @property
    def summary(self) -> str:
        """One line for the list of backends."""

    def availability(self) -> Availability:
        """Tell whether the backend can run here, quickly and without importing heavy parts."""

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        """Run samples (n, T, *input_shape), spikes of uint8 or a graded input of int32.

        `states` names the populations whose u and v are wanted. BackendError after `time_limit`
        seconds.
        """


def backend_names() -> list[str]:
    """Return the names of all installed backends, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_backend(name: str) -> Backend:
    """Load a backend plugin.

    Raises
    ------
    UsageError
        When no such backend is installed.
    BackendError
        When its package cannot be imported.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise UsageError(
            f"backend {name!r}: is not installed (found: "
            f"{', '.join(sorted(found)) or 'none'}). Install the package that "
            "provides it."
        )
    try:
        return _Guarded(name, found[name].load())
    except Exception as error:
        raise BackendError(
            f"backend {name!r}: its plugin cannot be loaded ({reason(error)}). Repair or "
            "remove the package that provides it."
        ) from error


class _Guarded:
    """A plugin whose errors are those of a backend, whatever its code raises."""

    def __init__(self, name: str, plugin: Backend) -> None:
        self._plugin = plugin
        self.name = name
        self.summary = str(plugin.summary)

    def availability(self) -> Availability:
        try:
            found = self._plugin.availability()
            return Availability(bool(found.ok), str(found.detail), str(found.remedy))
        except Exception as error:  # noqa: BLE001 - the plugin's own code
            remedy = "Repair or remove the package that provides it."
            return Availability(False, f"asking it failed: {reason(error)}", remedy)

    def run(
        self,
        network: FixedPointNetwork,
        spikes: IntArray,
        *,
        time_limit: float,
        progress: Progress,
        states: Collection[str] = (),
    ) -> BackendRun:
        try:
            return self._plugin.run(
                network, spikes, time_limit=time_limit, progress=progress, states=states
            )
        except OsbcError:
            raise
        except Exception as error:
            raise BackendError(
                f"backend {self.name!r}: failed ({described(error)}). Report "
                "it to those who provide it, or skip it with --backend-samples 0."
            ) from error
