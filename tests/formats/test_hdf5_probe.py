"""HDF5 files are read by another process first, which may hang, crash or be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from osbc_deploy.errors import ArtefactError
from osbc_deploy.formats import hdf5_probe
from osbc_deploy.formats.hdf5_probe import check_readable

SERVE = "import sys; sys.path[:] = sys.argv[1:]; from osbc_deploy.formats import hdf5_probe as p\n"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    hdf5_probe._end()
    yield
    hdf5_probe._end()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good\udcff.h5"
    with h5py.File(os.fsencode(path), "w") as file:
        file["group/numbers"] = np.arange(1000)
        file["text"] = "text"
        file["group/odd"] = h5py.Empty("f")
    return path


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import time; time.sleep(1000)",
            "HDF5 does not come to an end of it. Write or copy it again",
        ),
        (
            SERVE + "p._COMPUTING = 0\ndef walk(*given):\n    while True: pass\n"
            "p._walk = walk\np.serve()",
            "HDF5 does not come to an end of it. Write",
        ),
        ("import os; os.abort()", "HDF5 stops at it with exit code -6"),
        ("raise ImportError", "HDF5 stops at it with exit code 1"),
        ("print('no memory')", "HDF5 asks for more memory than it may take"),
    ],
)
def test_a_file_that_never_ends_is_refused(
    code: str, words: str, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_probe, "_SECONDS", 0.5 if "sleep" in code else 1800.0)
    monkeypatch.setattr(hdf5_probe, "_CODE", code)
    with pytest.raises(ArtefactError, match=words):
        check_readable(good)
    assert hdf5_probe._Helper.process is None


def test_one_process_reads_many_files_and_another_takes_its_place(good: Path) -> None:
    check_readable(good)
    first = hdf5_probe._Helper.process
    assert first is not None
    check_readable(good)
    assert hdf5_probe._Helper.process is first
    # What a damaged file left behind is not held against the next.
    first.send_signal(signal.SIGKILL)
    first.wait()
    check_readable(good)
    assert hdf5_probe._Helper.process is not first


def test_a_process_that_hangs_at_a_good_file_is_replaced(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_readable(good)
    helper = hdf5_probe._Helper.process
    assert helper is not None
    helper.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(hdf5_probe, "_SECONDS", 5.0)
    check_readable(good)
    assert hdf5_probe._Helper.process is not helper


def test_the_folder_we_are_in_is_not_imported_from(good: Path, tmp_path: Path) -> None:
    (tmp_path / "h5py.py").write_text("print('read')\nraise SystemExit")
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    code = (
        "import sys, os; sys.path.remove(''); from pathlib import Path\n"
        "from osbc_deploy.formats.hdf5_probe import check_readable, _Helper\n"
        "os.chdir(sys.argv[1]); check_readable(Path(os.fsdecode(os.fsencode(sys.argv[2]))))\n"
        "print(_Helper.process.pid)"
    )
    command: list[Any] = [sys.executable, "-W", "error", "-c", code, tmp_path, os.fsencode(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert done.stderr == ""
    # It ends with who started it.
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_small_file_is_read_within_little_memory(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By a process that has read nothing yet: what it loads for that is not the file's.
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", "30K")
    check_readable(good)


def test_memory_is_limited(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hungry = "x = bytearray(300 * 2**20)"
    monkeypatch.setattr(
        hdf5_probe,
        "_CODE",
        SERVE + f"def walk(*given):\n    {hungry}\np._walk = walk\np.serve()",
    )
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", "1G")
    check_readable(good)
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", "100M")
    with pytest.raises(ArtefactError, match="asks for more memory than it may take"):
        check_readable(good)
