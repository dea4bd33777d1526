"""Work on the processes of a dask cluster: ours on this machine, or one that is there already.

Messages between its processes are Python objects that are unpickled: a scheduler is a machine that
one trusts, as one trusts a shell on it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import platform
import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import resource_tracker
from pickle import PicklingError
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker, rpc, wait

from osbc_deploy._version import __version__
from osbc_deploy.cluster.spread import Work, cores
from osbc_deploy.errors import ClusterError, OsbcError, described, reason

__all__ = ["Team", "at_scheduler", "on_this_machine"]

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

_ANSWER = 10.0
"""Seconds that a scheduler has to answer."""

_GATHER = 60.0
"""Seconds that a cluster may be without any worker."""

_TICK = 5.0
"""Seconds after which one looks whether there are any."""

_LIVES = 3
"""Workers of this machine that may die with an item before it is taken for the cause."""

_WARNINGS = "PYTHONWARNINGS"

_SHOWN = 5
"""Workers that an error lists; the rest is counted."""

_CANCELLED = (asyncio.CancelledError, futures.CancelledError)


@dataclass(frozen=True)
class Team:
    """The workers of a cluster.

    Attributes
    ----------
    client : Client
    threads : int
        That each item may take; 0 where that is the worker's own share of its machine.
    """

    client: Client
    threads: int = 0
    _seen: set[str] = field(default_factory=set)

    @property
    def hands(self) -> int:
        """How many items are worked on at a time."""
        with self._reached():
            threads: dict[str, int] = self.client.nthreads()
        return max(1, sum(threads.values()))

    @property
    def worked(self) -> int:
        """How many processes have done anything so far."""
        return len(self._seen)

    def each(self, work: Work[C, T, R], common: C, items: Sequence[T]) -> list[R]:
        """Return the results of items, in their order."""
        found = dict(self.run(work, common, items))
        return [found[number] for number in range(len(items))]

    def run(
        self, work: Work[C, T, R], common: C, items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        """Yield the number of each item and what it comes to, as they are done.

        Raises
        ------
        ClusterError
        """
        with self._reached():
            yield from self._run(work, common, items)

    def _run(
        self, work: Work[C, T, R], common: C, items: Sequence[T]
    ) -> Generator[tuple[int, R], None, None]:
        # A task, and not scattered data: it is made again when the worker that holds it dies.
        try:
            shared = self._submitted(0, _itself, common)
        except (TypeError, AttributeError, PicklingError) as error:
            raise ClusterError(
                f"workers: what they need cannot be sent to them ({reason(error)}). Leave "
                "--workers and --scheduler out, or take that out of the model."
            ) from error

        def begun(number: int) -> Future[Any]:
            given = (__version__, self.threads, work, shared, items[number])
            return self._submitted(-number, _done, *given)

        tasks = [begun(number) for number in range(len(items))]
        numbers = {task.key: number for number, task in enumerate(tasks)}
        suspects = []
        for task in self._ended(tasks):
            number = numbers[task.key]
            if task.status == "error" and isinstance(task.exception(), KilledWorker):
                suspects.append(number)
            else:
                yield number, self._told(task, items[number])
        # A worker that dies takes the item that waits there with it: which of them is the cause
        # is seen only where each is alone.
        for number in sorted(suspects):
            (task,) = self._ended([begun(number)])
            yield number, self._told(task, items[number])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say that the scheduler went away, which is seen in many ways."""
        try:
            yield
        except OsbcError:
            raise
        except (Exception, *_CANCELLED) as error:
            if self.client.status == "running" and not isinstance(error, _CANCELLED):
                raise
            raise ClusterError(
                "scheduler: was lost before all was computed. Start it again, and resume from "
                "--ledger or --resume."
            ) from error

    def _told(self, task: Future[Any], item: object) -> Any:
        where, result = _result(task, item)
        self._seen.add(where)
        return result

    def _submitted(self, priority: int, function: Callable[..., Any], *given: Any) -> Future[Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            return self.client.submit(function, *given, pure=False, priority=priority)

    def _ended(self, tasks: Sequence[Future[Any]]) -> Iterator[Future[Any]]:
        """Yield tasks as they end, until there is nobody left to do them."""
        left, alone = set(tasks), 0.0
        while left:
            try:
                with self.client.as_current():
                    ended, left = wait(left, timeout=_TICK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                alone = 0.0 if self.client.nthreads() else alone + _TICK
                if alone >= _GATHER:
                    raise _nobody() from None
                continue
            yield from ended


def _result(task: Future[Any], item: object) -> Any:
    try:
        return task.result()
    except OsbcError:
        raise
    except KilledWorker as error:
        raise ClusterError(
            f"{item}: {_LIVES + 1} workers died computing it, the last one {error.last_worker}. "
            "They may be short of memory: take fewer --workers or a smaller --solver-memory."
        ) from error
    except (ImportError, AttributeError, RuntimeError) as error:
        if "deserializ" not in str(error) and "osbc_deploy" not in str(error):
            raise
        raise ClusterError(
            f"scheduler or worker: cannot read what it is sent ({reason(error)}). Install "
            f"osbc-deploy {__version__} on all of them."
        ) from error


def _itself(common: C) -> C:
    return common


def _done(ours: str, threads: int, work: Work[C, T, R], common: C, item: T) -> tuple[str, R]:
    """Return where an item was worked on, and its result."""
    # Workers may come late, after all others were asked.
    if ours != __version__:
        raise ClusterError(
            f"worker {get_worker().address}: has osbc-deploy {__version__}, not {ours}. Install "
            "the same on all of them."
        )
    here = get_worker()
    return here.address, work(common, item, threads or max(1, cores() // here.state.nthreads))


@contextmanager
def on_this_machine(workers: int) -> Iterator[Team]:
    """Start workers on this machine, which end with the block, or with this process.

    Raises
    ------
    ClusterError
        When they do not start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "workers: a script that spreads work is imported again by each. Put the call "
            "under: if __name__ == '__main__'"
        )
    settings = {
        "distributed.scheduler.allowed-failures": _LIVES,
        "distributed.comm.timeouts.connect": _GATHER,
        "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with dask.config.set(settings), _quiet():
        try:
            cluster = _started(workers)
        except Exception as error:
            raise ClusterError(
                f"workers: {workers} could not be started ({described(error)}). Take fewer, or "
                "--workers 1, which is this process."
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            try:
                yield Team(client, max(1, cores() // workers))
            except ClusterError:
                # A worker that died is just starting again, and cannot be closed before it has.
                with suppress(TimeoutError, OSError):
                    client.wait_for_workers(workers, timeout=_GATHER)
                raise


def _started(workers: int) -> LocalCluster:
    """Start workers from a thread whose children never see Ctrl-C or a terminal that closes.

    Both go to all processes of a terminal; what they end is for the first of them to say.
    """
    pool = futures.ThreadPoolExecutor(1, initializer=_undisturbed)
    begun = pool.submit(
        LocalCluster,
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        # What an item may take is said by --solver-memory; dask would end what takes more.
        memory_limit=0,
        # Any free port of this machine: it cannot be done without.
        dashboard_address="127.0.0.1:0",
    )
    try:
        return begun.result()
    except BaseException:
        # Half of a cluster cannot be closed.
        with suppress(Exception):
            begun.result(_ANSWER).close()
        raise
    finally:
        pool.shutdown(wait=False)


def _undisturbed() -> None:
    """Block signals for this thread, and for all threads and processes that it starts."""
    signals = {signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # What cleans up after processes that are ended outlives them, and need not say so.
    given = os.environ.get(_WARNINGS, "")
    os.environ[_WARNINGS] = f"{given},ignore:resource_tracker".lstrip(",")
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ[_WARNINGS] = given
    # It takes SIGINT off the list of whoever starts it.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


@contextmanager
def at_scheduler(address: str) -> Iterator[Team]:
    """Join the cluster of a scheduler that is there already.

    Raises
    ------
    ClusterError
        When it does not answer, has no workers, or they run another version.
    """
    with dask.config.set({"distributed.comm.timeouts.connect": _ANSWER}), _quiet():
        try:
            # A thread of its own: the caller may have an event loop already, as notebooks do.
            with futures.ThreadPoolExecutor(1) as pool:
                kind = pool.submit(asyncio.run, _kind_of(address)).result()
            if kind != "Scheduler":
                raise TypeError(f"it is a {kind}")
            client = Client(address, timeout=_ANSWER, set_as_default=False)
        except Exception as error:
            raise ClusterError(
                f"scheduler: no scheduler answers at {address} within {_ANSWER:g} seconds "
                f"({described(error)}). Start one with 'dask scheduler', or leave "
                "--scheduler out."
            ) from error
        with client:
            _check_team(client, address)
            yield Team(client)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask's log to itself: what matters in it is an error of ours."""
    loggers = [logging.getLogger(n) for n in logging.root.manager.loggerDict if _of_dask(n)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _of_dask(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in ("distributed", "tornado", "asyncio")


async def _kind_of(address: str) -> str:
    """Return what answers at an address: a client would wait for whatever is silent."""

    async def ask() -> str:
        async with rpc(address) as there:
            identity = await there.identity()
            return str(identity["type"])

    return await asyncio.wait_for(ask(), _ANSWER)


def _check_team(client: Client, address: str) -> None:
    """Refuse a cluster without workers, or whose processes run another version."""
    try:
        client.wait_for_workers(1, timeout=_GATHER)
    except TimeoutError as error:
        raise _nobody() from error
    try:
        found = {f"scheduler {address}": client.run_on_scheduler(_versions)}
    except Exception as error:  # noqa: BLE001 - it may lack us, or anything else
        found = {f"scheduler {address}": error}
    asked = client.run(_versions, on_error="return")
    found |= {f"worker {where}": said for where, said in asked.items()}
    faults = [_other(name, said) for name, said in found.items() if said != _versions()]
    if faults:
        more = f"\n  - and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        listed = "\n".join(f"  - {fault}" for fault in faults[:_SHOWN])
        raise ClusterError(
            f"scheduler: {len(faults)} of its {len(found)} processes run other versions:\n{listed}"
            f"{more}\nInstall the same on all of them."
        )


def _versions() -> dict[str, str]:
    """Return what must be the same in all processes for the same bytes, and to be understood."""
    return {
        "osbc-deploy": __version__,
        # Other versions of these may sum in another order.
        **{name: version(name) for name in ("numpy", "torch", "numba", "distributed")},
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _other(name: str, said: object) -> str:
    """Return how a process differs from this one."""
    ours = _versions()
    if not isinstance(said, dict):
        why = described(said) if isinstance(said, BaseException) else "no answer"
        return f"{name}: has no osbc-deploy {__version__} ({why})"
    differ = [key for key, own in ours.items() if said.get(key) != own]
    return f"{name}: has " + "; ".join(f"{key} {said.get(key)}, not {ours[key]}" for key in differ)


def _nobody() -> ClusterError:
    return ClusterError(
        f"scheduler: has no worker, and got none in {_GATHER:g} seconds. Start some with 'dask "
        "worker', then go on with what is in --ledger or --resume."
    )
