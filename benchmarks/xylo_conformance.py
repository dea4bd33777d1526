"""Random networks on Xylo's engine, on its specification and on xylosim: every s, u and v.

    python benchmarks/xylo_conformance.py [--networks 300] [--seed 0]

Recurrent and feedforward, one and two hidden populations, all weight shifts, thresholds and decays
of their own in every neuron, with and without biases, up to 15 spikes an input; states are driven
into saturation. Needs xylosim (see README). The result is written to results/xylo_conformance.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from osbc_backend_xylo import BACKEND
from osbc_backend_xylo.worker import run as simulated
from osbc_deploy.backends import BackendRun
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.testing.xylo import xylo_cases
from osbc_deploy.verification.bits import quantities

RESULT = Path(__file__).parent / "results" / "xylo_conformance.json"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if not (runs := BACKEND.availability()).ok:
        sys.exit(f"backend xylo: {runs.detail}. {runs.remedy}")
    start, seen = time.perf_counter(), Counter[str]()
    for number, case in enumerate(xylo_cases(given.networks, start=given.seed)):
        names = [p.name for p in case.network.populations]
        # The backend's own worker, here: a process for each network would take most of the time.
        found = simulated(case.network, case.spikes)
        s, u, v = ({n: found[f"{x}{i}"] for i, n in enumerate(names)} for x in "suv")
        theirs = BackendRun(s, s[names[-1]].astype(np.int32), u, v)
        seen.update(case.features)
        for kernels in ("compiled", "plain"):
            ours = run(case.network, case.spikes, record=names, states=names, kernels=kernels)
            for name in names:
                for what, (a, b) in quantities(name, ours, theirs).items():
                    seen[f"{what} compared, {kernels}"] += a.size
                    seen[f"{what} differ, {kernels}"] += int(np.count_nonzero(a != b))
            if kernels == "plain":
                activity = ours.activity.values()
                seen["saturations"] += sum(a.saturations for a in activity)
                seen["networks that saturate"] += any(a.saturations for a in activity)
                several = [np.count_nonzero(r > 1) for r in ours.spikes.values()]
                seen["steps of several spikes"] += int(sum(several))
        if number % 50 == 49:
            print(f"{number + 1} networks, {time.perf_counter() - start:.0f} s", flush=True)
    for name, count in sorted(seen.items()):
        print(f"  {name:<28}{count:>12,}")
    differ = sum(count for name, count in seen.items() if " differ" in name)
    print(f"{given.networks} networks, {differ} mismatches ({BACKEND.availability().detail})")
    result = {
        "against": BACKEND.availability().detail,
        "networks": given.networks,
        "seed": given.seed,
        "mismatches": differ,
        **dict(sorted(seen.items())),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(differ > 0 or not seen["saturations"])


if __name__ == "__main__":
    sys.exit(main())
