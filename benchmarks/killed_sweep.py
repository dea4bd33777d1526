"""Kill a sweep at random moments, and a worker of another one: the same table and bytes.

python benchmarks/killed_sweep.py [--times 10] [--workers 2]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from _accuracy import write

from osbc_deploy.bundled.models import weights_path

SWEEP = [
    sys.executable, "-m", "osbc_deploy", "sweep", "osbc_deploy.bundled.models:digits_mlp",
    "--weights", str(weights_path("digits_mlp")),
    "--calibration", "osbc_deploy.bundled.digits:calibration",
    "--test", "osbc_deploy.bundled.digits:test",
    "--target", "loihi2", "--sparsity", "0.8,0.9,0.95,0.97", "--bits", "2,3,4",
    "--method", "osbc", "--method", "obc", "--backend-samples", "1", "--no-tune", "-q",
]  # fmt: skip
POINTS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    chance = random.Random(0)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        alone = finish(here, "whole", 1)
        wanted = content(here, "whole")
        print(f"1 worker, undisturbed: {POINTS} points in {alone:.0f} s", flush=True)
        took = finish(here, "spread", asked.workers)
        print(f"{asked.workers} workers, undisturbed: {took:.0f} s; {said(here, 'spread', wanted)}")
        kills = []
        for number in range(asked.times):
            before = count(here, "killed")
            # A sweep mostly reads and starts; most kills hit it while points are made. The more
            # kills, the fewer points between them: the last one, too, is to find some left.
            early = chance.random() < 0.3
            moment = chance.uniform(0.0, (took if early else 4 * took / POINTS) * 5 / asked.times)
            with started(here, "killed", asked.workers) as sweep:
                wait_for(sweep, lambda seen=before: count(here, "killed") > seen, not early)
                time.sleep(moment)
                assert sweep.poll() is None, "it ended by itself"
                children = psutil.Process(sweep.pid).children(recursive=True)
                sweep.send_signal(signal.SIGKILL)
                sweep.wait()
            _, alive = psutil.wait_procs(children, timeout=30)
            found = count(here, "killed")
            kills.append({"before": before, "after": found})
            assert not alive, alive
            print(
                f"killed {number + 1}: {before} points before, {found} after; no worker lives on",
                flush=True,
            )
        finish(here, "killed", asked.workers)
        print(f"killed {asked.times} times, then finished: {said(here, 'killed', wanted)}")
        with started(here, "maimed", asked.workers) as sweep:
            wait_for(sweep, lambda: count(here, "maimed") >= POINTS // 3, True)
            victim = workers_of(sweep.pid)[0]
            os.kill(victim.pid, signal.SIGKILL)
            at = count(here, "maimed")
            assert sweep.wait() == 0
        print(f"a worker killed on the way: {said(here, 'maimed', wanted)}")
    write(
        "killed_sweep",
        {
            "points": POINTS,
            "workers": asked.workers,
            "seconds": {"1 worker": round(alone), f"{asked.workers} workers": round(took)},
            "sweep_killed_at_points": kills,
            "worker_killed_at_point": at,
            "same_bytes": sorted(["spread", "killed", "maimed"]),
        },
    )


def started(here: Path, name: str, workers: int) -> subprocess.Popen[bytes]:
    files = ["--ledger", str(here / name), "--csv", str(here / f"{name}.csv")]
    command = [*SWEEP, *files, "--workers", str(workers)]
    # Python says there of semaphores that a killed process left.
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(here: Path, name: str, workers: int) -> float:
    start = time.perf_counter()
    with started(here, name, workers) as sweep:
        assert sweep.wait() == 0
    return time.perf_counter() - start


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the workers of a sweep that do work; Python's own helper process is none."""
    try:
        found = psutil.Process(pid).children()
        return [p for p in found if "spawn_main" in " ".join(p.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_for(sweep: subprocess.Popen[bytes], ready: object, wanted: bool) -> None:
    while wanted and sweep.poll() is None and not ready():  # type: ignore[operator]
        time.sleep(0.02)


def count(here: Path, name: str) -> int:
    return len(list((here / name).glob("point-*"))) if (here / name).is_dir() else 0


def content(here: Path, name: str) -> dict[str, bytes]:
    files = [p for p in (here / name).iterdir() if not p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in files} | {"csv": (here / f"{name}.csv").read_bytes()}


def said(here: Path, name: str, wanted: dict[str, bytes]) -> str:
    found = content(here, name)
    assert found == wanted, sorted(k for k in wanted if found.get(k) != wanted[k])
    return f"the same table and {sum(k.startswith('point') for k in found)} points, to the byte"


if __name__ == "__main__":
    main()
