"""Random networks on Speck's engine, on its specification and on sinabs: every spike and potential.

    python benchmarks/speck_sinabs.py [--networks 300] [--seed 0] [--python PYTHON]

Chains of convolutions and matrices, with and without poolings and biases, several events of an
input in a step, thresholds from 30 to 32767; potentials are driven to their lower bound. PYTHON is
an interpreter of the same version that has sinabs 3.1.3, installed with ``--no-deps``, and pbr;
this one by default. The result is written to results/speck_sinabs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from osbc_deploy.child import environment
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import write_network
from osbc_deploy.testing.networks import Case
from osbc_deploy.testing.speck import speck_cases

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "speck_sinabs.json"
SCRIPT = """
import sys
from importlib.metadata import version
from pathlib import Path
import numpy as np
from osbc_backend_sinabs.worker import run
from osbc_deploy.formats.folder import read_network

for folder in sorted(Path(sys.argv[1]).iterdir()):
    np.savez(folder / "answer.npz", **run(read_network(folder), np.load(folder / "spikes.npy")))
assert "samna" not in sys.modules
print(version("sinabs"))
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    start, seen = time.perf_counter(), Counter[str]()
    cases = list(speck_cases(given.networks, start=given.seed))
    with tempfile.TemporaryDirectory() as name:
        version = simulated(cases, Path(name), given.python)
        for number, case in enumerate(cases):
            with np.load(Path(name) / f"{number:05}" / "answer.npz") as theirs:
                compare(case, dict(theirs), seen)
    for name, count in sorted(seen.items()):
        print(f"  {name:<34}{count:>12,}")
    differ = sum(count for name, count in seen.items() if " differ" in name)
    print(
        f"{given.networks} networks, {differ} mismatches (sinabs {version}), "
        f"{time.perf_counter() - start:.0f} s"
    )
    result = {
        "against": f"sinabs {version}",
        "networks": given.networks,
        "seed": given.seed,
        "mismatches": differ,
        **dict(sorted(seen.items())),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(differ > 0 or not seen["potentials at the bound"])


def simulated(cases: list[Case], root: Path, python: str) -> str:
    """Have sinabs simulate all cases in one process; return its version."""
    for number, case in enumerate(cases):
        folder = root / f"{number:05}"
        folder.mkdir()
        write_network(case.network, folder)
        np.save(folder / "spikes.npy", case.spikes)
    # Packages of a clone are found by a hook of this interpreter's, not by a path.
    found = environment()
    paths = [str(ROOT), str(ROOT / "backends"), found["PYTHONPATH"]]
    done = subprocess.run(
        [python, "-c", SCRIPT, str(root)],
        env=found | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip()


def compare(case: Case, theirs: dict[str, np.ndarray], seen: Counter[str]) -> None:
    """Count what is compared, and what differs."""
    network: FixedPointNetwork = case.network
    names = [p.name for p in network.populations]
    seen.update(case.features)
    for kernels in ("compiled", "plain"):
        ours = run(network, case.spikes, record=names, states=names, kernels=kernels)
        for number, name in enumerate(names):
            for what, mine in (("s", ours.spikes[name]), ("v", ours.v[name])):
                seen[f"{what} compared, {kernels}"] += mine.size
                seen[f"{what} differ, {kernels}"] += int((mine != theirs[f"{what}{number}"]).sum())
    seen["potentials at the bound"] += sum(a.saturations for a in ours.activity.values())
    several = [int(np.count_nonzero(raster > 1)) for raster in ours.spikes.values()]
    seen["steps of several spikes"] += sum(several)


if __name__ == "__main__":
    sys.exit(main())
