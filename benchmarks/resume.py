"""Kill a compression at random moments and resume it: the same bytes every time.

python benchmarks/resume.py [--times 20]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = """
import sys
from osbc_deploy.cli.job import load_inputs
from osbc_deploy.compress import CompressionOptions, compress
from osbc_deploy.job import VerbCall, prepare
from osbc_deploy.options import InputOptions

job = prepare(VerbCall(**load_inputs(None, InputOptions()), backend_samples=0))
print("ready", flush=True)
options = CompressionOptions(mixed=True, allocation="global")
compress(job.network, job.typical.spikes, options, state=sys.argv[1])
print("done", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    chance = random.Random(0)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        took = run(whole)
        wanted = content(whole)
        print(f"{len(wanted)} files in {took:.1f} s")
        for number in range(times):
            state = Path(folder) / f"killed-{number}"
            moment = chance.uniform(0, took)
            run(state, moment)
            before = len(content(state)) if state.exists() else 0
            run(state)
            same = content(state) == wanted
            print(
                f"killed after {moment:5.2f} s with {before} of {len(wanted)} files: "
                f"{'the same bytes' if same else 'DIFFERENT'}",
                flush=True,
            )
            assert same


def run(state: Path, kill_after: float | None = None) -> float:
    """Run the job from when it is ready, and return the seconds it took."""
    with subprocess.Popen(
        [sys.executable, "-c", JOB, str(state)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        start = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        else:
            assert process.stdout.readline() == "done\n"
        process.wait()
        return time.perf_counter() - start


def content(state: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in state.iterdir() if not p.name.startswith(".")}


if __name__ == "__main__":
    main()
