"""Damaged files of every kind through the tool's readers: no traceback, no hang, bounded memory.

    python benchmarks/fuzz.py [--inputs 20000] [--seed 0] [--only NIR] [--keep FOLDER]

Everything runs in this process, through the readers and the commands' own entry point. Inputs are
good files, made by real writers, with bytes changed (flipped, cut, moved, spliced) or with values,
types, shapes and links changed as their format has them, checksums made right again. Inputs that
fail are kept in a folder, and named with a number that gives them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from fuzz_corpus import make
from fuzzing import LIMIT, Seen, fuzz

_CHUNK = 500
_CODES = (0, 2, 3, 4, 5, 6)
_STUCK = 600
"""Seconds after which a step that does not even come back to Python ends all."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    total: dict[str, Seen] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "good").mkdir()
        corpus = make(Path(scratch) / "good")
        # The first inputs import what is imported late.
        fuzz(corpus, Path(scratch) / "warm", 60, 999, only=given.only)
        for chunk in range(-(-given.inputs // _CHUNK)):
            faulthandler.dump_traceback_later(_STUCK, exit=True)
            count = min(_CHUNK, given.inputs - chunk * _CHUNK)
            done = fuzz(corpus, Path(scratch), count, 1000 * given.seed + chunk, only=given.only,
                        keep=given.keep)  # fmt: skip
            for name, seen in done.kinds.items():
                add(total.setdefault(name, Seen()), seen)
            failures += done.failures
            passed = time.perf_counter() - start
            inputs = sum(seen.inputs for seen in total.values())
            print(f"{inputs} inputs, {passed:.0f} s, {len(failures)} failures", file=sys.stderr)
    faulthandler.cancel_dump_traceback_later()
    show(total)
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


def add(total: Seen, seen: Seen) -> None:
    total.inputs += seen.inputs
    total.codes += seen.codes
    total.tracebacks += seen.tracebacks
    total.hangs += seen.hangs
    total.over_memory += seen.over_memory
    total.seconds += seen.seconds


def show(kinds: dict[str, Seen]) -> None:
    whole = Seen()
    for seen in kinds.values():
        add(whole, seen)
    head = ["kind", "inputs", "read", *(f"exit {c}" for c in _CODES[1:]), "tracebacks", "hangs",
            f"over {LIMIT >> 20} MiB", "seconds"]  # fmt: skip
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for name, seen in (*kinds.items(), ("all", whole)):
        cells = [seen.inputs, *(seen.codes[c] for c in _CODES), seen.tracebacks, seen.hangs,
                 seen.over_memory, round(seen.seconds)]  # fmt: skip
        print(f"| {name} | " + " | ".join(f"{n:,}" for n in cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
