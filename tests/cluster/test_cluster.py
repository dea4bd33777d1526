"""Schedulers and workers that do not do what is asked of them: one clear error each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import LocalCluster

import osbc_deploy
from osbc_deploy.cluster import client, crew_of, spread
from osbc_deploy.errors import ClusterError
from osbc_deploy.options.work import ClusterOptions
from spread_work import deadly, slow, squared


def test_items_in_this_process() -> None:
    found = spread(squared, 1, [3, 4, 5], ClusterOptions(workers=1))
    assert list(found) == [(0, 10), (1, 17), (2, 26)]


@contextmanager
def address(*, answers: bool) -> Iterator[str]:
    """Yield an address at which nobody listens, or somebody who says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers:
            listener.listen()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("answers", [False, True])
def test_a_scheduler_that_does_not_answer(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER", 0.5)
    with address(answers=answers) as where, pytest.raises(ClusterError) as error:
        list(spread(squared, 1, [1, 2], ClusterOptions(scheduler=where)))
    assert str(error.value).startswith(f"scheduler: no scheduler answers at {where}")
    assert error.value.exit_code == 2


@pytest.fixture(scope="module")
def scheduler() -> Iterator[LocalCluster]:
    """Return a cluster in this process, without workers."""
    with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=":0") as made:
        yield made


def test_a_scheduler_without_workers(
    scheduler: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_GATHER", 0.5)
    with pytest.raises(ClusterError, match="has no worker, and got none in 0.5 seconds"):
        list(spread(squared, 1, [1], ClusterOptions(scheduler=scheduler.scheduler_address)))


def test_workers_of_another_version(scheduler: LocalCluster, tmp_path: Path) -> None:
    package = Path(osbc_deploy.__file__).parent
    shutil.copytree(package, tmp_path / "other" / "osbc_deploy", ignore=lambda *_: ["bundled"])
    (tmp_path / "other" / "osbc_deploy" / "_version.py").write_text('__version__ = "0.0.7"\n')
    (tmp_path / "bare" / "osbc_deploy").mkdir(parents=True)
    broken = tmp_path / "bare" / "osbc_deploy" / "__init__.py"
    broken.write_text('raise ImportError("half installed")\n')
    options = ["--no-nanny", "--no-dashboard", "--nthreads", "1"]
    workers = [
        subprocess.Popen(
            [
                sys.executable, "-m", "distributed.cli.dask_worker", scheduler.scheduler_address,
                *options, "--local-directory", str(tmp_path / name),
            ],
            env={**os.environ, "PYTHONPATH": str(tmp_path / name)},
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )
        for name in ("other", "bare")
    ]  # fmt: skip
    try:
        scheduler.wait_for_workers(2, timeout=1800)
        with pytest.raises(ClusterError) as error:
            list(spread(squared, 1, [1], ClusterOptions(scheduler=scheduler.scheduler_address)))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    first, *offenders, last = str(error.value).splitlines()
    assert first == "scheduler: 2 of its 3 processes run other versions:"
    other, bare = sorted(offenders, key=lambda line: "has no" in line)
    assert f"has osbc-deploy 0.0.7, not {osbc_deploy.__version__}" in other
    assert f"has no osbc-deploy {osbc_deploy.__version__} (" in bare
    assert "half installed" in bare
    assert last.strip() == "Install the same on all of them."


def test_workers_of_other_versions_of_what_adds_up() -> None:
    told = client._other("worker tcp://w:1", {**client._versions(), "numpy": "1.0", "torch": "2"})
    ours = client._versions()
    assert told == (
        f"worker tcp://w:1: has numpy 1.0, not {ours['numpy']}; torch 2, not {ours['torch']}"
    )


def test_an_item_that_no_worker_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LIVES", 1)
    found = spread(deadly, 2, [1, 2], ClusterOptions(workers=2))
    with pytest.raises(ClusterError, match="^2: 2 workers died computing it"):
        dict(found)


def test_a_worker_of_another_version_that_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "get_worker", lambda: SimpleNamespace(address="tcp://late:1"))
    with pytest.raises(ClusterError, match="^worker tcp://late:1: has osbc-deploy .*, not 0.0.7"):
        client._done("0.0.7", 1, squared, 1, 1)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_scheduler_that_goes_away(at_work: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER", 0.5)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp",
            dashboard_address=":0",
        ) as cluster,
        crew_of(ClusterOptions(scheduler=cluster.scheduler_address)) as crew,
    ):  # fmt: skip
        assert crew is not None
        if at_work:
            threading.Timer(0.3, cluster.close).start()
        else:
            cluster.close()
            with pytest.raises(ClusterError, match="scheduler: was lost before all was comp"):
                print(crew.hands)
        with pytest.raises(ClusterError, match="scheduler: was lost before all was computed"):
            crew.each(slow, 1.0, [1, 2])


SIGNALLED = """
import os, signal, threading, time
from osbc_deploy.cluster.client import on_this_machine
from spread_work import squared

def send():
    while not done.wait(0.05):
        for number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(0, number)

if __name__ == "__main__":
    # A handler is this process's own: what it starts would die.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    done = threading.Event()
    sender = threading.Thread(target=send)
    sender.start()
    with on_this_machine(2) as team:
        print(team.each(squared, 1, [3, 4, 5]))
    done.set()
    sender.join()
"""


def test_signals_of_a_terminal_are_for_the_process_that_started_the_workers(
    tmp_path: Path,
) -> None:
    """Ctrl-C and a terminal that closes reach all processes, also those that just start."""
    (tmp_path / "run.py").write_text(SIGNALLED)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), *sys.path])
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=1800,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[10, 17, 26]\n", "")
