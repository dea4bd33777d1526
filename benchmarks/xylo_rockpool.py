"""Exported Xylo configurations, loaded and simulated by Rockpool itself: every output spike.

    python benchmarks/xylo_rockpool.py --python PYTHON [--networks 100] [--seed 0]

PYTHON is an interpreter that has rockpool 3.1.0, installed with ``--no-deps``, and xylosim 0.1.3.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from osbc_deploy.exporting import export
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.testing.xylo import xylo_cases

SCRIPT = Path(__file__).parent / "peers" / "rockpool_xylo.py"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cases = list(xylo_cases(given.networks, start=given.seed))
    compared = fired = differ = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, case in enumerate(cases):
            export(case.network, folder / f"{number:05}.json", format="xylo")
            n, steps, inputs = case.spikes.shape
            late = max(case.network.depth.values()) - 1
            signal = np.zeros((n, steps + late, inputs), np.int64)
            signal[:, :steps] = case.spikes
            np.save(folder / f"{number:05}.npy", signal)
        done = subprocess.run(
            [given.python, str(SCRIPT), name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        for number, case in enumerate(cases):
            theirs = np.load(folder / f"{number:05}.out.npy")
            # An answer is as late as layers lie between.
            late = theirs.shape[1] - case.spikes.shape[1]
            ours = run(case.network, case.spikes).output
            compared, fired = compared + ours.size, fired + int(ours.sum())
            differ += int(np.count_nonzero(ours != theirs[:, late:]))
    print(
        f"{len(cases)} networks loaded by rockpool {done.stdout.strip()}: {differ} of "
        f"{compared:,} output spikes differ ({fired:,} fired)"
    )
    return int(differ > 0 or not fired)


if __name__ == "__main__":
    raise SystemExit(main())
