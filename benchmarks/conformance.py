"""Random networks on the engine, on its plain specification and on Lava: every s, u and v.

    python benchmarks/conformance.py [--networks 500] [--seed 0]

Networks are drawn as osbc_deploy.testing draws them. Half run on Lava's Dense
and Sparse as the backend chooses, half on Sparse alone; two Lava sessions run side by side.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from osbc_backend_lava.backend import BACKEND, LavaJob
from osbc_backend_lava.layout import Schedule
from osbc_deploy.chip.target import load_target
from osbc_deploy.fixedpoint.engine import EngineRun
from osbc_deploy.testing import Case
from osbc_deploy.testing.backends import engine_states
from osbc_deploy.testing.networks import collect

AT_ONCE = 25


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.perf_counter()
    cases, seen = collect(given.networks, load_target("loihi2-sim").number_formats, given.seed)
    print(f"{len(cases)} networks drawn in {time.perf_counter() - start:.0f} s", flush=True)
    chunks = [cases[i : i + AT_ONCE] for i in range(0, len(cases), AT_ONCE)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, counted in enumerate(pool.map(compare, chunks, range(len(chunks))), start=1):
            seen += counted
            print(f"{done * AT_ONCE} networks, {time.perf_counter() - start:.0f} s", flush=True)
    print("\ncovered (networks, or events where so named):")
    for name, count in sorted(seen.items()):
        if not name.endswith(("compared", "differ")):
            print(f"  {name:<32}{count:>12,}")
    differ = 0
    for kind in ("spikes", "u", "v"):
        wrong = seen[f"{kind} differ"] + seen[f"{kind} differ, plain"]
        differ += wrong
        print(f"{kind}: {seen[f'{kind} compared']:,} compared with Lava, {wrong} differ")
    reached = seen["wraps (events)"] > 0 and seen["saturations (events)"] > 0
    print(f"{len(cases)} networks, {differ} mismatches, wrap and saturation reached: {reached}")
    return int(differ > 0 or not reached or len(cases) < given.networks)


def compare(cases: list[Case], number: int) -> Counter[str]:
    """Run some networks everywhere and count what was compared and what differs."""
    names = [[p.name for p in case.network.populations] for case in cases]
    below = 2.0 if number % 2 else 0.05
    jobs = [LavaJob(c.network, c.spikes, n, below) for c, n in zip(cases, names, strict=True)]
    counted: Counter[str] = Counter()
    for case, theirs in zip(cases, BACKEND.run_many(jobs, 1800.0), strict=True):
        ours = engine_states(case)
        found = differences(case, ours, theirs)
        plain = differences(case, ours, engine_states(case, kernels="plain"))
        counted += found
        counted += Counter({f"{k}, plain": v for k, v in plain.items() if k.endswith("differ")})
        if any(v for k, v in (found + plain).items() if k.endswith("differ")):
            print(f"DIFFERS: {case.features} {found}", flush=True)
        counted.update(set(case.features))
        streaming = Schedule.of(case.network, case.spikes.shape[1]).streaming
        counted["streamed samples" if streaming else "paused samples"] += 1
        for seen in ours.activity.values():
            counted["wraps (events)"] += seen.wraps
            counted["saturations (events)"] += seen.saturations
            counted["spikes (events)"] += seen.spikes
    return counted


def differences(case: Case, ours: EngineRun, theirs: Any) -> Counter[str]:
    """Count compared and differing values of two runs with all states."""
    counted: Counter[str] = Counter()
    for kind in ("spikes", "u", "v"):
        left, right = getattr(ours, kind), getattr(theirs, kind)
        assert set(left) == set(right), (kind, sorted(left), sorted(right))
        for name in left:
            assert left[name].shape == right[name].shape, (case.features, name)
            counted[f"{kind} compared"] += left[name].size
            counted[f"{kind} differ"] += int(np.count_nonzero(left[name] != right[name]))
    return counted


if __name__ == "__main__":
    sys.exit(main())
