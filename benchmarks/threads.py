"""Deploy the bundled networks with few threads and with many, as on machines of few and many cores.

    python benchmarks/threads.py [--threads 1 2 16] [--old FOLDER]

Each run is a process of its own, whose second deployment of each network counts: the first
compiles. With --old, a checkout of another version does the same in turn. More threads than cores
cost more here than where there are as many cores, but what threads wait for each other shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from _accuracy import table

MODELS = ("digits_mlp", "digits_conv")


def measured(threads: int) -> None:
    """Print seconds, CPU seconds and a digest for each network."""
    import torch
    from _bundled import deployed

    from osbc_deploy.cluster import spread
    from osbc_deploy.compress import rows

    torch.set_num_threads(threads)
    for module in (spread, rows):
        module.cores = lambda: threads  # type: ignore[attr-defined]
    found = {}
    for model in MODELS * 2:
        wall, cpu = time.perf_counter(), time.process_time()
        done = deployed(model)
        found[model] = (
            time.perf_counter() - wall,
            time.process_time() - cpu,
            done.provenance["network_sha256"],
        )
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 16])
    parser.add_argument("--old", type=Path, help="a checkout of another version")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        measured(asked.child)
        return
    versions = {"this": Path(__file__).parents[1]}
    if asked.old:
        versions["other"] = asked.old.resolve()
    rows, digests = [], set()
    for threads in asked.threads:
        for version, folder in versions.items():
            done = subprocess.run(
                [sys.executable, __file__, "--child", str(threads)],
                env={**os.environ, "PYTHONPATH": str(folder)},
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            for model, (wall, cpu, digest) in json.loads(done.stdout.splitlines()[-1]).items():
                rows.append([model, str(threads), version, f"{wall:.1f} s", f"{cpu:.1f} s"])
                digests.add((version, model, digest))
    table(["network", "threads", "version", "wall", "CPU"], sorted(rows, key=lambda row: row[0]))
    assert len(digests) == len(versions) * len(MODELS), digests


if __name__ == "__main__":
    main()
