"""A short run of the fuzzer; ``benchmarks/fuzz.py`` is the long one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fuzz_mutations
import fuzzing
from fuzz_corpus import Corpus, make
from fuzzing import KINDS, Job, fuzz


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_damaged_is_read(
    kind: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(given: Any, *more: Any) -> Any:
        return given

    for name in set(fuzz_mutations.__all__) - {"damage_state"}:
        monkeypatch.setattr(fuzz_mutations, name, same)
    monkeypatch.setattr(fuzzing.Job, "chance", lambda job, *choices: choices[0]())
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        job = Job(corpus, folder, np.random.default_rng(seed))
        assert KINDS[kind][0](job) == 0
        shutil.rmtree(folder)


def test_damaged_files_are_refused_without_a_traceback(corpus: Corpus, tmp_path: Path) -> None:
    done = fuzz(corpus, tmp_path, 250, seed=0)
    assert done.failures == []
    assert sum(seen.inputs for seen in done.kinds.values()) == 250
    assert all(seen.inputs for seen in done.kinds.values())
    # Damage is mostly noticed, and some does no harm.
    read = sum(seen.codes[0] for seen in done.kinds.values())
    assert 10 < read < 125


def test_failures_are_seen(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(job: Job) -> int:
        while True:
            pass

    def broken(job: Job) -> int:
        raise ZeroDivisionError

    def unknown(job: Job) -> int:
        return 1

    def greedy(job: Job) -> int:
        return int(np.ones(2 * fuzzing.LIMIT // 8)[0]) - 1

    for read, counts in (
        (endless, (0, 1, 0)), (broken, (1, 0, 0)), (unknown, (1, 0, 0)), (greedy, (0, 0, 1)),
    ):  # fmt: skip
        # Only what never ends is stopped: to take much memory takes its time.
        monkeypatch.setattr(fuzzing, "SECONDS", 0.05 if read is endless else 600.0)
        monkeypatch.setitem(KINDS, "npz", (read, 1))
        done = fuzz(corpus, tmp_path, 1, seed=0, only="npz", keep=tmp_path / "kept")
        seen = done.kinds["npz"]
        assert (seen.tracebacks, seen.hangs, seen.over_memory) == counts
        assert len(done.failures) == 1
        assert (tmp_path / "kept" / "0-0").is_dir()
