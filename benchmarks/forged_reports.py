"""Forged and mixed-up artefact folders through ``osbc-deploy check``: none may pass.

    python benchmarks/forged_reports.py [--folders 200] [--seed 0]

The kinds are those of tests/helpers/forgeries.py, each drawn equally often; the folders they start
from are real deployments, which have to pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np

from forgeries import FORGERIES, Site, checked, make_site


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    codes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        site = make_site(root)
        wrong = untouched(site)
        for number in range(given.folders):
            kind = list(FORGERIES)[number % len(FORGERIES)]
            work = root / f"forged{number}"
            work.mkdir()
            code, said = checked(site, work, FORGERIES[kind](rng, site, work))
            codes[kind][code] += 1
            if code not in (4, 5, 6) or len(said) != 1:
                wrong += 1
                print(f"WRONG: {kind} exits with {code}: {said}", flush=True)
    for kind, found in codes.items():
        listed = ", ".join(f"{count} x exit {code}" for code, count in sorted(found.items()))
        print(f"  {kind.replace('_', ' '):<40} {listed}")
    total = sum(codes.values(), Counter())
    print(
        f"{total.total()} folders of {len(codes)} kinds: {total[0]} pass, "
        f"{', '.join(f'{total[c]} exit {c}' for c in (4, 5, 6))} "
        f"({time.perf_counter() - start:.0f} s)"
    )
    return int(wrong > 0)


def untouched(site: Site) -> int:
    """Check the deployments themselves, and return how many do not pass."""
    wrong = 0
    for name in (*site.HONEST, "own"):
        target = ["--target", str(site.root / "own.toml")] if name == "own" else []
        code, said = checked(site, site.root, target, image=name)
        if code:
            wrong += 1
            print(f"WRONG: {name}, untouched, exits with {code}: {said}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
