"""Simulators of others that run a network in a child process: both sides of it.

A mistake in such a simulator must not end the program, nor may it run on for ever. The parent
writes network and samples to a folder, starts the worker and reads what came out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, Backend, BackendRun
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import read_network, write_network
from osbc_deploy.progress import Progress, task

__all__ = ["PREFIX", "SimulatorBackend", "answer", "check_ready", "environment"]

PREFIX = "osbc-{}-"
"""Of the folders, with the backend's name."""
_INPUT, _ANSWER, _LOG = "input.npz", "answer.npz", "log.txt"


def check_ready(backend: Backend) -> None:
    """Refuse, by a BackendError, a backend that cannot run here."""
    state = backend.availability()
    if not state.ok:
        raise BackendError(
            f"backend {backend.name!r}: cannot run here ({state.detail}). {state.remedy}"
        )


def environment() -> dict[str, str]:
    """Return the environment of a worker, which finds packages where this process found them."""
    # Installed or not.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@dataclass(frozen=True)
class SimulatorBackend:
    """A backend whose simulator runs in a worker that :func:`answer` is the other side of.

    Attributes
    ----------
    name, summary, arithmetics
        See :class:`osbc_deploy.backends.Backend`.
    needed : dict of str
        Packages by the modules they bring, the simulator's own first.
    remedy : str
        How to install them.
    command : tuple of str
        Starts the worker, but for the folder.
    """

    name: str
    summary: str
    arithmetics: tuple[str, ...]
    needed: Mapping[str, str]
    remedy: str
    command: tuple[str, ...]

    def availability(self) -> Availability:
        """Tell whether the simulator and what it imports are installed."""
        missing = [
            p for module, p in self.needed.items() if importlib.util.find_spec(module) is None
        ]
        if missing:
            return Availability(False, f"not installed: {', '.join(missing)}", self.remedy)
        package = next(iter(self.needed.values()))
        try:
            return Availability(True, f"{package} {version(package)}")
        except PackageNotFoundError:
            return Availability(True, package)

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
            When the simulator is missing, fails, or takes longer than `time_limit` seconds.
        """
        check_ready(self)
        with (
            tempfile.TemporaryDirectory(prefix=PREFIX.format(self.name)) as name,
            task(progress, self.name, len(spikes)),
        ):
            folder = Path(name)
            write_network(network, folder)
            np.savez(folder / _INPUT, spikes=spikes)
            _work(self.name, [*self.command, name], folder / _LOG, time_limit)
            progress.advance(len(spikes))
            with np.load(folder / _ANSWER, allow_pickle=False) as archive:
                found = dict(archive)
        asked = [(i, p.name) for i, p in enumerate(network.populations) if p.name in states]
        return BackendRun(
            spikes={p.name: found[f"s{i}"] for i, p in enumerate(network.populations)},
            output=found[f"s{len(network.populations) - 1}"].astype(np.int32),
            u={name: found[f"u{i}"] for i, name in asked if f"u{i}" in found},
            v={name: found[f"v{i}"] for i, name in asked if f"v{i}" in found},
        )


def _work(name: str, command: Sequence[str], log: Path, time_limit: float) -> None:
    """Run a worker, and end it with all that it started."""
    with log.open("wb") as errors:
        worker = subprocess.Popen(  # noqa: S603 - our own module in an interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
            env=environment(),
        )
        try:
            code = worker.wait(timeout=time_limit)
        except subprocess.TimeoutExpired as error:
            raise BackendError(
                f"backend {name!r}: not done after {time_limit:g} s, the time limit. Compare "
                "fewer samples (--backend-samples) or raise --time-limit."
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    if code != 0:
        lines = log.read_text(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        raise BackendError(
            f"backend {name!r}: failed with code {code} ({said}). Run 'osbc-deploy doctor', or "
            "use --backend engine."
        )


def answer(run: Callable[[FixedPointNetwork, IntArray], dict[str, IntArray]]) -> int:
    """Run what lies in the folder that the command line names; a worker's whole program.

    Parameters
    ----------
    run : callable
        ``run(network, spikes)`` returns arrays (n, T, size) by "s", "u" or "v" and the number of
        the population.
    """
    folder = Path(sys.argv[1])
    with np.load(folder / _INPUT, allow_pickle=False) as archive:
        spikes = archive["spikes"]
    np.savez(folder / _ANSWER, **run(read_network(folder), spikes))  # type: ignore[arg-type]
    return 0
