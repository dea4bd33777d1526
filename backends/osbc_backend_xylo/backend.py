"""The parent side: writes what is to be run, starts the worker, reads what came out."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from osbc_backend_xylo.layout import ANSWER, INPUT, LOG, PREFIX
from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation
from osbc_deploy.formats.folder import write_network
from osbc_deploy.progress import Progress, task

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
        state = self.availability()
        if not state.ok:
            raise BackendError(f"backend 'xylo': cannot run here ({state.detail}). {state.remedy}")
        with (
            tempfile.TemporaryDirectory(prefix=PREFIX) as name,
            task(progress, "xylosim", len(spikes)),
        ):
            folder = Path(name)
            write_network(network, folder)
            np.savez(folder / INPUT, spikes=spikes)
            self._work(folder, time_limit)
            progress.advance(len(spikes))
            with np.load(folder / ANSWER, allow_pickle=False) as archive:
                found = dict(archive)
        return BackendRun(
            spikes={p.name: found[f"s{i}"] for i, p in enumerate(network.populations)},
            output=found[f"s{len(network.populations) - 1}"].astype(np.int32),
            u={p.name: found[f"u{i}"] for i, p in _asked(network, states)},
            v={p.name: found[f"v{i}"] for i, p in _asked(network, states)},
        )

    def _work(self, folder: Path, time_limit: float) -> None:
        """Run the worker, and end it with all that it started."""
        # The worker finds the packages where this process found them, installed or not.
        paths = os.pathsep.join(path for path in sys.path if path)
        log = folder / LOG
        with log.open("wb") as errors:
            worker = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
                [*self.command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
            try:
                code = worker.wait(timeout=time_limit)
            except subprocess.TimeoutExpired as error:
                raise BackendError(
                    f"backend 'xylo': not done after {time_limit:g} s, the time limit. Compare "
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
                f"backend 'xylo': failed with code {code} ({said}). Run 'osbc-deploy doctor', or "
                "use --backend engine."
            )


def _asked(
    network: FixedPointNetwork, states: Collection[str]
) -> list[tuple[int, FixedPopulation]]:
    return [(i, p) for i, p in enumerate(network.populations) if p.name in states]


BACKEND = XyloBackend()
