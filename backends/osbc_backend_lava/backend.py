"""The parent side: starts the worker, watches the clock, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import numpy as np

from osbc_backend_lava.worker_files import INPUT, OUTPUT, PREFIX
from osbc_deploy.arrays import SpikeArray
from osbc_deploy.artefact import write_network
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.progress import Progress, task

__all__ = ["BACKEND", "LavaBackend"]

_NEEDED = {"lava": "lava-nc", "asteval": "asteval", "networkx": "networkx"}
_REMEDY = (
    "Install it with: pip install 'osbc-deploy[lava]' and then "
    "pip install --no-deps --ignore-requires-python lava-nc==0.10.0."
)
_POLL = 0.5
"""Seconds between looks at whether the worker itself still runs."""
_GRACE = 3.0
"""Seconds between asking the worker's processes to end and ending them."""


class LavaBackend:
    """Runs networks on Lava in a child process with a time limit."""

    name = "lava"
    summary = "Lava's fixed-point CPU simulator"
    command: tuple[str, ...] = (sys.executable, "-m", "osbc_backend_lava.worker")

    def availability(self) -> Availability:
        """Tell whether Lava and what it imports are installed."""
        found, missing = [], []
        for module, package in _NEEDED.items():
            if importlib.util.find_spec(module) is None:
                missing.append(package)
                continue
            try:
                found.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                found.append(package)
        if os.name != "posix":
            return Availability(
                False,
                "Lava's simulator needs process groups, which this system lacks",
                "Run it on Linux or macOS.",
            )
        if missing:
            return Availability(False, f"not installed: {', '.join(missing)}", _REMEDY)
        return Availability(True, ", ".join(found))

    def run(
        self,
        network: FixedPointNetwork,
        spikes: SpikeArray,
        *,
        time_limit: float,
        progress: Progress,
    ) -> BackendRun:
        """Run samples; see :class:`osbc_deploy.backends.Backend`.

        Raises
        ------
        BackendError
            When Lava is missing, fails, takes longer than `time_limit` seconds, or cannot
            represent a layer.
        """
        state = self.availability()
        if not state.ok:
            raise BackendError(f"backend 'lava': cannot run here ({state.detail}). {state.remedy}")
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
            folder = Path(name)
            write_network(network, folder)
            np.savez(folder / INPUT, spikes=spikes)
            with task(progress, "Lava", len(spikes)):
                self._supervise(folder, time_limit, progress)
            with np.load(folder / OUTPUT, allow_pickle=False) as archive:
                arrays = [archive[f"p{i}"] for i in range(len(network.populations))]
        named = dict(zip((p.name for p in network.populations), arrays, strict=True))
        spiking = {p.name: named[p.name] for p in network.populations if p.spiking}
        return BackendRun(spiking, named[network.output.name].astype(np.int32))

    def _supervise(self, folder: Path, time_limit: float, progress: Progress) -> None:
        log = folder / "log.txt"
        with log.open("wb") as errors, _session([*self.command, str(folder)], errors) as worker:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_forward, args=(worker.stdout, lines), daemon=True).start()
            deadline = time.monotonic() + time_limit
            while True:
                left = deadline - time.monotonic()
                try:
                    line = lines.get(timeout=max(0.0, min(_POLL, left)))
                except queue.Empty:
                    # Processes it left behind keep its stdout open, so look at the worker, too.
                    if worker.poll() is not None:
                        break
                    if left > 0:
                        continue
                    raise BackendError(
                        f"backend 'lava': not done after {time_limit:g} s, the time limit. Its "
                        "processes were ended. Compare fewer samples (--backend-samples) or raise "
                        "--time-limit."
                    ) from None
                if line is None:
                    break
                if line.strip() == "done":
                    progress.advance()
            try:
                code = worker.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = -1
        if code != 0 or not (folder / OUTPUT).is_file():
            raise BackendError(
                f"backend 'lava': failed with code {code} ({_cause(log)}). Run "
                "'osbc-deploy doctor', or use --backend engine."
            )


@contextlib.contextmanager
def _session(command: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """Start a command as the leader of a session and end the whole session afterwards."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # The worker finds the packages where this process found them, installed or not.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    worker = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        yield worker
    finally:
        _end(worker)
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()


def _end(worker: subprocess.Popen[str]) -> None:
    """End every process of the worker's session: ask first, then insist."""
    for how, wait in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        try:
            os.killpg(worker.pid, how)
        except (ProcessLookupError, PermissionError):
            break
        end = time.monotonic() + wait
        while _alive(worker) and time.monotonic() < end:
            time.sleep(0.02)
        if not _alive(worker):
            break
    worker.wait()


def _alive(worker: subprocess.Popen[str]) -> bool:
    worker.poll()
    try:
        os.killpg(worker.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return _any_runs(worker.pid)


def _any_runs(group: int) -> bool:
    """Tell whether a process group has more than zombies; assume so where /proc cannot tell.

    In a container, orphans that have ended may stay zombies for long: nobody reaps them.
    """
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (command, which may hold anything) state parent group ...
            state, _, of_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            states += [state] if int(of_group) == group else []
    return not states or any(state not in "ZX" for state in states)


def _forward(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _cause(log: Path) -> str:
    """Return the last line of the log that names an error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "Exception" in line]
    return (named or lines or ["it printed nothing"])[-1]


BACKEND = LavaBackend()
