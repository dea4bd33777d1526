"""Real runs told to end at random moments: one word, the documented code, nothing half-done.

    python benchmarks/interrupts.py            # 20 runs, some minutes
    python benchmarks/interrupts.py --runs 100 --seed 3

Each run deploys a small network on Lava or the engine, with ``-o``, ``--html`` and ``--resume``,
over the folder of a run before it, and gets SIGINT or SIGTERM at some time, mostly before it would
have ended. Afterwards it must have said "interrupted" and nothing else, the output must be the old
one or the new one, no temporary file may lie around, and the same command must go on to the end.
What is ended before Python ran our first line is counted apart: there it is Python that answers.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path

from osbc_deploy.formats.folder import read_network
from osbc_deploy.writing import is_temporary

MODEL = """
import norse.torch as norse
import numpy as np
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = norse.SequentialState(
        nn.Conv2d(2, 6, 3, padding=1), norse.LIFBoxCell(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(96, 12), norse.LIFBoxCell(), nn.Linear(12, 4), norse.LICell(),
    )
    with torch.no_grad():
        for p in layers.parameters():
            p.mul_(6)
    return layers

def data():
    rng = np.random.default_rng(0)
    return (rng.random((40, 8, 2, 8, 8)) < 0.3).astype(np.uint8), np.arange(40) % 4
"""
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def command(target: str) -> list[str]:
    words = f"verify model.py:net --calibration model.py:data --target {target} -o out "
    return [sys.executable, "-m", "osbc_deploy", *words.split(), "--html", "page.html",
            "--resume", "state", "--backend-samples", "4"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)  # noqa: S311
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.py").write_text(textwrap.dedent(MODEL))
        took = {}
        for target in ("loihi2-sim", "loihi2"):
            start = time.monotonic()
            subprocess.run(command(target), cwd=folder, check=True, capture_output=True)
            took[target] = time.monotonic() - start
        for number in range(given.runs):
            target = ("loihi2-sim", "loihi2")[number % 2]
            if chance.random() < 0.5:
                shutil.rmtree(folder / "state", ignore_errors=True)
            seen[once(folder, target, took[target], chance)] += 1
            print(f"{number + 1}: {dict(seen)}", flush=True)
        done = subprocess.run(command("loihi2"), cwd=folder, check=True, capture_output=True)
        assert done.stdout
    print(f"{given.runs} runs: {', '.join(f'{count} {what}' for what, count in seen.items())}")


def once(folder: Path, target: str, took: float, chance: random.Random) -> str:
    """Run and end a command; return how it ended, or stop with what is wrong."""
    number = chance.choice(list(ENDS))
    page = (folder / "page.html").read_bytes()
    with subprocess.Popen(
        command(target), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(chance.uniform(0.0, 0.8 * took))
        process.send_signal(number)
        out, err = process.communicate(timeout=1800)
    # Whatever the moment, what can be read is whole.
    read_network(folder / "out")
    whole = (folder / "page.html").read_text().rstrip().endswith("</html>")
    left = [path.name for path in folder.iterdir() if is_temporary(path)]
    assert whole, "half a page"
    assert not left, f"left behind: {left}"
    if process.returncode == 0:
        return "ended before"
    ours = out or "interrupted" in err or "osbc_deploy" in err
    if not ours and (process.returncode == -number or "Traceback" in err):
        return "before our first line"
    assert process.returncode == ENDS[number], (process.returncode, out[-300:], err)
    lines = [line for line in err.splitlines() if line and not line.startswith("wrote ")]
    assert lines == ["interrupted"], err
    assert page == (folder / "page.html").read_bytes() or out
    return "interrupted"


if __name__ == "__main__":
    main()
