"""Power cuts in the two-slot store, in Python and in C: every byte on a small store, random lives.

    python benchmarks/power_cuts.py [--lives 2000] [--twice 7]

The small store is cut at every tick (byte written, half of a sector erased) of every operation of a
life, then again in what recovers from that, at every ``--twice``-th tick. The large one gets random
lives by Hypothesis, with releases that must be refused among them. Needs gcc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from hypothesis import HealthCheck, Phase, given, settings

from power_cuts import (
    LARGE,
    SANITIZE,
    SMALL,
    InC,
    InPython,
    Op,
    Watch,
    build,
    cut_everywhere,
    everything,
    live,
    lives,
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lives", type=int, default=2000)
    parser.add_argument("--twice", type=int, default=7)
    given_ = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driver = build(Path(folder), *SANITIZE)
        with InC(driver, SMALL) as machine:
            watch, start = Watch((InPython(SMALL), machine)), time.perf_counter()
            cuts = cut_everywhere(watch, everything())
            print(f"small store, every tick: {cuts:,} cuts, 0 broken "
                  f"({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
        with InC(driver, SMALL) as machine:
            watch, start = Watch((InPython(SMALL), machine)), time.perf_counter()
            cuts = cut_everywhere(watch, everything(), step=given_.twice, twice=given_.twice)
            print(f"small store, a second cut in the recovery: {cuts:,} pairs, 0 broken "
                  f"({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
        with InC(driver, LARGE) as machine:
            watch, start = Watch((InPython(LARGE), machine)), time.perf_counter()
            counts = [0, 0, 0]

            @settings(max_examples=given_.lives, deadline=None, database=None, derandomize=True,
                      phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(life=lives())
            def lived(life: list[tuple[Op, int, int]]) -> None:
                counts[0] += 1
                counts[1] += len(life)
                counts[2] += live(watch, life)

            lived()
            took = time.perf_counter() - start
            done, operations, cuts = counts
            print(f"large store, random lives: {done:,}, {operations:,} operations; {cuts:,} cuts, "
                  f"0 broken ({took:.0f} s)")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
