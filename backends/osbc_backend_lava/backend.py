"""The parent side: starts the worker, watches the clock, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np

from osbc_backend_lava.layout import INPUT, OPTIONS, PREFIX, Schedule, trace_path
from osbc_deploy.arrays import IntArray
from osbc_deploy.backends import Availability, BackendRun
from osbc_deploy.child import check_ready, environment
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import write_network
from osbc_deploy.progress import SILENT, Progress, task

__all__ = ["BACKEND", "LavaBackend", "LavaJob"]

_NEEDED = {"lava": "lava-nc", "asteval": "asteval", "networkx": "networkx"}
_REMEDY = (
    "Install it with: pip install 'osbc-deploy[lava]' and then "
    "pip install --no-deps --ignore-requires-python lava-nc==0.10.0."
)
_POLL = 0.5
"""Seconds between looks at whether the worker itself still runs."""
_STALL = 120.0
"""Seconds without a step after which the worker of a small network is taken to hang."""
_MANY, _EACH = 20, 5.0
"""Populations and projections, a process each, from which each more takes so many seconds more."""
_ATTEMPTS = 3
"""Times in a row that it may hang before it has answered one more sample."""
_SPARSE_BELOW = 0.05
"""Density below which Lava's Sparse is faster than its Dense (measured)."""
_GRACE = 3.0
"""Seconds between asking the worker's processes to end and ending them."""


class LavaBackend:
    """Runs networks on Lava in a child process with a time limit."""

    name = "lava"
    summary = "Lava's fixed-point CPU simulator"
    arithmetics = ("loihi",)
    registers: Mapping[str, int] = MappingProxyType({"state_bits": 24, "decay_bits": 12})
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
            When Lava is missing, fails, takes longer than `time_limit` seconds, stands still
            again and again, or cannot represent a layer.
        """
        return self.run_many([LavaJob(network, spikes, states)], time_limit, progress)[0]

    def run_many(
        self, jobs: Sequence[LavaJob], time_limit: float, progress: Progress = SILENT
    ) -> list[BackendRun]:
        """Run several networks in one child process; errors are those of :meth:`run`."""
        check_ready(self)
        total = sum(len(job.spikes) for job in jobs)
        with (
            tempfile.TemporaryDirectory(prefix=PREFIX) as name,
            task(progress, "Lava", total),
        ):
            session = _Run(Path(name), jobs, time.monotonic() + time_limit, time_limit, progress)
            while session.left:
                self._attempt(session)
            return session.results()

    def _attempt(self, session: _Run) -> None:
        """Run what is left in a new child process, until it ends or stands still."""
        names = session.prepare()
        log = session.root / "log.txt"
        command = [*self.command, str(session.root), *names]
        with log.open("wb") as errors, _session(command, errors) as worker:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_forward, args=(worker.stdout, lines), daemon=True).start()
            moved = time.monotonic()
            while True:
                now = time.monotonic()
                left = min(session.deadline - now, moved + session.patience - now)
                try:
                    line = lines.get(timeout=max(0.0, min(_POLL, left)))
                except queue.Empty:
                    # Processes it left behind keep its stdout open, so look at the worker, too.
                    if worker.poll() is not None:
                        break
                    if left > 0:
                        continue
                    session.stalled()
                    return
                if line is None:
                    break
                if session.heard(line):
                    moved = time.monotonic()
            try:
                code = worker.wait(timeout=max(0.1, session.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = -1
        if code != 0 or session.left:
            raise BackendError(
                f"backend 'lava': failed with code {code} ({_cause(log)}). Run "
                "'osbc-deploy doctor', or use --backend engine."
            )


@dataclass(frozen=True, eq=False)
class LavaJob:
    """One network to run.

    Attributes
    ----------
    network : FixedPointNetwork
    spikes : ndarray of uint8 or int32 (n, T, *input_shape)
    states : collection of str
        Populations whose u and v are wanted.
    sparse_below : float
        Density below which Lava's Sparse is taken instead of its Dense.
    """

    network: FixedPointNetwork
    spikes: IntArray
    states: Collection[str] = ()
    sparse_below: float = _SPARSE_BELOW


class _Run:
    """The jobs of one call: what is done, what is left, and where its files are."""

    def __init__(
        self,
        root: Path,
        jobs: Sequence[LavaJob],
        deadline: float,
        time_limit: float,
        progress: Progress,
    ) -> None:
        self.root, self.jobs, self.progress = root, jobs, progress
        self.deadline, self.time_limit = deadline, time_limit
        self.parts: list[list[dict[str, IntArray]]] = [[] for _ in jobs]
        self.done = [0] * len(jobs)
        self.restarts = self.in_vain = 0
        self.shown = 0
        self.steps: dict[str, int] = {}
        self.moved: dict[str, int] = {}
        self.finished: set[str] = set()
        self.numbers: dict[str, int] = {}

    @property
    def left(self) -> bool:
        """Whether samples remain to be run."""
        return any(done < len(job.spikes) for done, job in zip(self.done, self.jobs, strict=True))

    def prepare(self) -> list[str]:
        """Write what is left for a new child process; return the names of its jobs."""
        self.steps, self.moved, self.finished, self.numbers = {}, {}, set(), {}
        for number, job in enumerate(self.jobs):
            if self.done[number] == len(job.spikes):
                continue
            name = f"{number}.{self.restarts}"
            folder = self.root / name
            folder.mkdir()
            write_network(job.network, folder)
            np.savez(folder / INPUT, spikes=job.spikes[self.done[number] :])
            options = {"states": sorted(job.states), "sparse_below": job.sparse_below}
            (folder / OPTIONS).write_text(json.dumps(options), encoding="utf-8")
            self.numbers[name] = number
        return list(self.numbers)

    def heard(self, line: str) -> bool:
        """Take a line of the worker; tell whether it says that something moved."""
        name, _, what = line.strip().partition(" ")
        if name not in self.numbers:
            return False
        if what == "finished":
            self.collect(name, len(self.jobs[self.numbers[name]].spikes))
            return True
        done, _, whole = what.partition(" ")
        if not (done.isdigit() and whole.isdigit()) or int(whole) <= self.moved.get(name, 0):
            return False
        self.steps[name], self.moved[name] = int(done), int(whole)
        shown = sum(
            self.done[number] + self._answered(other, self.moved)
            for other, number in self.numbers.items()
            if other not in self.finished
        ) + sum(done for number, done in enumerate(self.done) if number not in self._running())
        self._show(shown)
        return True

    def _running(self) -> set[int]:
        return {n for name, n in self.numbers.items() if name not in self.finished}

    def _show(self, samples: int) -> None:
        self.progress.advance(max(0, samples - self.shown))
        self.shown = max(self.shown, samples)

    def _answered(self, name: str, steps: dict[str, int]) -> int:
        job = self.jobs[self.numbers[name]]
        schedule = Schedule.of(job.network, job.spikes.shape[1])
        rest = len(job.spikes) - self.done[self.numbers[name]]
        return min(rest, schedule.finished(steps.get(name, 0)))

    def collect(self, name: str, until: int) -> None:
        """Read the samples up to number `until` of a job from its traces."""
        number = self.numbers[name]
        job, folder = self.jobs[number], self.root / name
        count = until - self.done[number]
        schedule = Schedule.of(job.network, job.spikes.shape[1])
        part = {}
        for index, population in enumerate(job.network.populations):
            for trace in "suv":
                path = trace_path(folder, index, trace)
                if path.is_file():
                    rows = np.load(path, mmap_mode="r", allow_pickle=False)
                    depth = job.network.depth[population.name]
                    part[f"{trace}.{population.name}"] = schedule.rows(
                        rows, population, depth, count
                    )
        self.parts[number].append(part)
        self.done[number] = until
        self.finished.add(name)
        shutil.rmtree(folder)
        if not self.left:
            self._show(sum(self.done))

    def stalled(self) -> None:
        """Keep what is done, and go on with the rest unless it cannot.

        Raises
        ------
        BackendError
            At the time limit, or when nothing moved in several attempts.
        """
        if time.monotonic() >= self.deadline:
            raise BackendError(
                f"backend 'lava': not done after {self.time_limit:g} s, the time limit. Its "
                "processes were ended. Compare fewer samples (--backend-samples) or raise "
                "--time-limit."
            )
        before = sum(self.done)
        for name, number in self.numbers.items():
            answered = self._answered(name, self.steps) if name not in self.finished else 0
            if answered:
                self.collect(name, self.done[number] + answered)
        self.restarts += 1
        self.in_vain = 0 if sum(self.done) > before else self.in_vain + 1
        if self.in_vain == _ATTEMPTS:
            raise BackendError(
                f"backend 'lava': stood still for {self.patience:g} s, {_ATTEMPTS} times in a row. "
                "Run 'osbc-deploy doctor', or use --backend engine."
            )

    @property
    def patience(self) -> float:
        """Seconds without a step after which the worker is taken to hang."""
        sizes = [len(j.network.populations) + len(j.network.projections) for j in self.jobs]
        return _STALL + _EACH * max(0, max(sizes) - _MANY)

    def results(self) -> list[BackendRun]:
        """Return what every job computed."""
        return [self._result(number, job) for number, job in enumerate(self.jobs)]

    def _result(self, number: int, job: LavaJob) -> BackendRun:
        keys = self.parts[number][0]
        whole = {key: np.concatenate([p[key] for p in self.parts[number]]) for key in keys}
        out = job.network.output
        return BackendRun(
            spikes={key[2:]: whole[key] for key in keys if key[0] == "s"},
            output=whole[f"{'s' if out.spiking else 'v'}.{out.name}"].astype(np.int32),
            u={key[2:]: whole[key] for key in keys if key[0] == "u"},
            v={key[2:]: whole[key] for key in keys if key[0] == "v" and key[2:] in job.states},
            restarts=self.restarts,
        )


@contextlib.contextmanager
def _session(command: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """Start a command as the leader of a session and end the whole session afterwards."""
    worker = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
        env={**environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
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
