"""Random odd networks of each framework through the import, against the framework's own forward.

    python benchmarks/import_proof.py [--networks 66] [--seed 0]

Networks are drawn by tests/helpers/odd_modules.py. Whatever is imported must give the framework's
spikes on fresh samples: in the model's precision, or, where a folded BatchNorm or pooling rounds
otherwise, in double precision. What only refreshes or reuses weights must be imported.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import torch

from odd_modules import FRAMEWORKS, KINDS, LOADABLE, outcome


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=66, help="of each framework")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    seen: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for framework in FRAMEWORKS:
        for number in range(given.networks):
            kind = KINDS[number % len(KINDS)]
            found = outcome(framework, kind, given.seed * 10_000 + number)
            seen[kind, found.what] += 1
            totals[found.what] += 1
            missed = kind in LOADABLE and found.what == "refused"
            totals["refused though loadable"] += missed
            if found.what == "wrong" or missed:
                print(f"{framework}, {kind}, network {number}: {found.what}: {found.said}")
    names = ("equal", "equal in double", "refused", "silent", "wrong")
    print(f"{'kind':<30}" + "".join(f"{name:>18}" for name in names))
    for kind in KINDS:
        print(f"{kind:<30}" + "".join(f"{seen[kind, name]:>18}" for name in names))
    print(f"{sum(totals[n] for n in names)} networks in {time.perf_counter() - start:.0f} s: "
          + ", ".join(f"{totals[name]} {name}" for name in names)
          + f", {totals['refused though loadable']} refused though loadable")  # fmt: skip
    return int(totals["wrong"] > 0 or totals["refused though loadable"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
