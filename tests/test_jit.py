"""Compiled functions run whether or not their machine code can be kept."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from osbc_deploy import jit

SOURCE = """
from osbc_deploy.jit import compiled

@compiled
def twice(x):
    return 2 * x
"""


def twice(folder: Path) -> Any:
    """Import a compiled function from a file of its own."""
    path = folder / "doubling.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("doubling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


def test_machine_code_is_kept_between_runs(tmp_path: Path) -> None:
    assert twice(tmp_path)(21) == 42
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ic]")}
    assert kept
    again = twice(tmp_path)
    assert again(21) == 42
    assert sum(again.stats.cache_hits.values()) == 1


def test_machine_code_is_made_anew_where_what_it_calls_has_changed(tmp_path: Path) -> None:
    jit._stamp.cache_clear()
    assert twice(tmp_path)(21) == 42
    (tmp_path / "called.py").write_text("FACTOR = 2\n")
    jit._stamp.cache_clear()
    again = twice(tmp_path)
    assert again(21) == 42
    assert not sum(again.stats.cache_hits.values())


def test_a_full_disk_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, place: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert twice(tmp_path)(21) == 42
    assert not [path for path in tmp_path.rglob("*") if ".nb" in path.name]


def test_where_nothing_can_be_kept_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(self: Any, function: Any) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(jit._Cache, "__init__", nowhere)
    assert twice(tmp_path)(21) == 42
    assert not list(tmp_path.rglob("*.nb[ic]"))
