"""Compress a network in this process and on workers: the same bytes, and what it takes.

    python benchmarks/workers.py [ROW] [--scale 0.25] [--workers 0 1 2 4]

Rows are those of ``sizes.py``. 0 is this process alone, with a thread per core; workers share the
cores. The last run is that of two workers, one of which is killed on the way. Seconds are those of
``compress`` and of the start of workers, CPU seconds those of all processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from _accuracy import table, write
from sizes import ROWS

from osbc_deploy.cluster.client import on_this_machine
from osbc_deploy.compress import CompressedNetwork, CompressionOptions, compress
from osbc_deploy.job import seed_everything
from osbc_deploy.progress import Silent


class Killer(Silent):
    """Kills a worker when the first samples are done."""

    killed = False

    def advance(self, steps: int = 1) -> None:
        children = multiprocessing.active_children()
        if steps and children and not self.killed:
            self.killed = True
            os.kill(children[0].pid or 0, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", nargs="?", default="conv", choices=ROWS)
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        print(json.dumps(measured(asked.row, asked.scale, asked.child, kill=asked.kill)))
        return
    found: dict[str, dict[str, Any]] = {}
    for count in asked.workers:
        name = f"{count} workers" if count else "this process"
        found[name] = child(asked, count)
        print(name, found[name], flush=True)
    found["2 workers, one killed"] = child(asked, 2, "--kill")
    digests = {one["digest"] for one in found.values()}
    assert len(digests) == 1, found
    rows = [
        [name, f"{one['seconds']:.1f} s", f"{one['cpu_seconds']:.1f} s", f"{one['worked']}"]
        for name, one in found.items()
    ]
    table(["", "wall", "CPU", "processes that took part"], rows)
    print(f"\none digest of all codes, scales, biases and thresholds: {digests.pop()[:16]}")
    write("workers", {"row": asked.row, "scale": asked.scale, "runs": found})


def child(asked: argparse.Namespace, count: int, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, asked.row, "--scale", str(asked.scale)]
    done = subprocess.run(
        [*command, "--child", str(count), *more], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(row: str, scale: float, workers: int, *, kill: bool) -> dict[str, Any]:
    seed_everything(0)
    network, samples = ROWS[row].make(scale)
    options = CompressionOptions(**ROWS[row].options)
    before, start = cpu(), time.perf_counter()
    # One worker is no other process for the verbs; here it shows what sending costs.
    with on_this_machine(workers) if workers else nullcontext() as crew:
        progress = Killer() if kill else Silent()
        done = compress(network, samples, replace(options, crew=crew), progress=progress)
        worked = 0 if crew is None else crew.worked
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu() - before, 1),
        "worked": worked,
        "digest": digest_of(done),
    }


def digest_of(done: CompressedNetwork) -> str:
    """Return the SHA-256 of all codes, scales, biases and thresholds."""
    digest = hashlib.sha256()
    for projection in done.projections.values():
        bias = b"" if projection.bias is None else projection.bias.tobytes()
        digest.update(projection.codes.tobytes() + projection.scale.tobytes() + bias)
        digest.update(np.float64(projection.threshold).tobytes())
    return digest.hexdigest()


def cpu() -> float:
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


if __name__ == "__main__":
    main()
