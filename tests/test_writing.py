"""What is written is there whole or not at all, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from osbc_deploy import writing
from osbc_deploy.errors import UsageError
from osbc_deploy.folders import FolderKind
from osbc_deploy.writing import check_file, check_folder, check_inside, new_folder, write_whole

MARKER = "mine.json"
KIND = FolderKind(MARKER, lambda _: (MARKER, "second"))


def write_folder(path: Path, text: str) -> None:
    with new_folder(path, KIND) as work:
        (work / MARKER).write_text(text)
        (work / "second").write_text(text)


def read_folder(path: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in path.iterdir()}


def both(text: str) -> dict[str, str]:
    return {MARKER: text, "second": text}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", "x")
        write_folder(tmp_path / "folder", "x")
    finally:
        os.umask(before)
    for path, full in (("file", 0o666), ("folder", 0o777), ("folder/second", 0o666)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == full & ~mask


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for text in ("\u00e9\n", "new"):
        write_whole(tmp_path / "a" / "b.svg", text)
        assert (tmp_path / "a" / "b.svg").read_text("utf-8") == text
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.svg"]


def test_a_folder_is_written_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for text in ("first", "second", "third"):
        write_folder(tmp_path / "out", text)
        assert read_folder(tmp_path / "out") == both(text)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


STRANGE: dict[str, Any] = {
    "notes.txt": lambda path: path.write_text("years"),
    ".hidden": lambda path: path.write_text("years"),
    "sub/notes.txt": lambda path: path.write_text("years"),
    "sub/deep": lambda path: path.mkdir(),
    "own": lambda path: path.mkdir(),
    "second": lambda path: (path.unlink(), path.mkdir()),
    "sub/third": lambda path: (path.unlink(), path.symlink_to("../second")),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_someone_put_into_a_folder_of_ours_is_not_lost(tmp_path: Path, name: str) -> None:
    kind = FolderKind(MARKER, lambda _: (MARKER, "second", "sub/third"))

    def write() -> None:
        with new_folder(tmp_path / "out", kind) as work:
            (work / "sub").mkdir()
            for file in kind.files(work):
                (work / file).write_text("x")

    write()
    # A killed run's; not its user's.
    (tmp_path / "out" / ".osbc-deploy-0123456789abcdef").touch()
    write()
    STRANGE[name](tmp_path / "out" / name)
    before = sorted(tmp_path.rglob("*"))
    said = rf"out: holds {name}, which is no part of what is written there and would be lost\. Move"
    for check in (write, lambda: check_folder(tmp_path / "out", kind)):
        with pytest.raises(UsageError, match=said):
            check()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_comes_while_a_folder_is_written_is_not_lost(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "old")
    writing = new_folder(tmp_path / "out", KIND)
    writing.__enter__()
    for number in range(7):
        (tmp_path / "out" / str(number)).touch()
    with pytest.raises(UsageError, match=r"holds 0, 1, 2, 3, 4 and 2 more, which"):
        writing.__exit__(None, None, None)
    assert len(list((tmp_path / "out").iterdir())) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_temporary_names_cannot_be_guessed(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with new_folder(tmp_path / "out", KIND) as work:
            names.append(work.name)
            assert work.parent == tmp_path
            assert writing.is_temporary(work)
            (work / MARKER).touch()
    assert len(set(names)) == 3


def link(path: Path, to: str) -> None:
    path.symlink_to(to)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


LINK = r"is a link, and links are not replaced\. Name the place it leads to\.$"
PLACES: dict[str, tuple[Any, str]] = {
    "link": (lambda p: link(p, "kept"), LINK),
    "link to a folder": (lambda p: link(p, "."), LINK),
    "dangling": (lambda p: link(p, "nowhere"), LINK),
    "pipe": (os.mkfifo, "is a device, pipe or socket"),
    "socket": (listening, "is a device, pipe or socket"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_links_and_devices_are_never_replaced(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").write_text("years")
    make, said = PLACES[kind]
    place = tmp_path / "place"
    make(place)
    before = place.lstat()
    for write in (
        lambda: check_file(place),
        lambda: write_whole(place, "x"),
        lambda: check_folder(place, KIND),
        lambda: write_folder(place, "x"),
    ):
        with pytest.raises(UsageError, match=f"place: {said}"):
            write()
    assert place.lstat() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "place"]
    assert (tmp_path / "kept").read_text() == "years"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/full"])
def test_files_of_the_system_are_left_alone(name: str) -> None:
    with pytest.raises(UsageError, match="are not replaced"):
        check_file(Path(name))
    assert not Path(name).is_file() or Path(name).is_symlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, r"cannot be written \(File name too long\)"),
        ("x/" * 3000 + "x", r"cannot be written \(File name too long\)"),
        ("a\0b", r"'.*a\\x00b': holds a NUL character"),
        ("kept/x", r"cannot be written \(Not a directory\)|kept is not a folder"),
    ],
)
def test_names_that_cannot_be_are_refused_first(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "kept").write_text("years")
    for check in (
        check_file,
        lambda path: check_file(path, parents=True),
        lambda path: check_folder(path, KIND),
        lambda path: write_whole(path, "x"),
        lambda path: write_folder(path, "x"),
        check_inside,
    ):
        with pytest.raises(UsageError, match=said):
            check(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_names_of_all_lengths_that_can_be_are_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), "y")
    write_folder(tmp_path / ("z" * 255), "y")
    write_folder(tmp_path / ("z" * 255), "new")
    assert read_folder(tmp_path / ("z" * 255)) == both("new")


def test_a_folder_where_a_file_belongs_and_the_other_way(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "x")
    (tmp_path / "file").write_text("years")
    with pytest.raises(UsageError, match=r"--html: .*folder is a folder\. Name a file in it"):
        check_file(tmp_path / "folder", "--html")
    for check in (lambda p: check_folder(p, KIND), lambda p: write_folder(p, "x")):
        with pytest.raises(UsageError, match="file: exists and was not written by osbc-deploy"):
            check(tmp_path / "file")
    with pytest.raises(UsageError, match="file: is not a folder"):
        check_inside(tmp_path / "file")
    with pytest.raises(UsageError, match="no is not a folder. Create it first"):
        check_file(tmp_path / "no" / "x")
    check_file(tmp_path / "no" / "x", parents=True)
    check_inside(tmp_path / "no" / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/"])
def test_the_current_folder_is_not_pulled_away(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    for folder in (tmp_path, here.parent, here):
        (folder / MARKER).touch()
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match="is the current folder, or one that holds it"):
        check_folder(Path(name), KIND)
    with pytest.raises(UsageError, match="is the current folder, or one that holds it"):
        write_folder(here.absolute(), "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_into_is_refused_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for check in (
        lambda: check_file(tmp_path / "x"),
        lambda: check_folder(tmp_path / "x", KIND),
        lambda: check_inside(tmp_path),
    ):
        with pytest.raises(
            UsageError, match=r"cannot be written \(Permission denied\)\. Choose another"
        ):
            check()
    tmp_path.chmod(0o700)


def test_a_system_that_is_read_only_is_refused_first() -> None:
    for check in (check_file, lambda path: check_folder(path, KIND)):
        with pytest.raises(UsageError, match=r"/proc/x: cannot be written \("):
            check(Path("/proc/x"))


FULL = """
import resource, signal, sys
from pathlib import Path
from osbc_deploy.folders import FolderKind
from osbc_deploy.writing import new_folder, write_whole
from osbc_deploy.errors import UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
here = Path(sys.argv[1])
def folder():
    kind = FolderKind("mine.json", lambda _: ("mine.json", "second"))
    with new_folder(here / "out", kind) as work:
        (work / "mine.json").write_text("x" * 2000)
for write in (folder, lambda: write_whole(here / "file", "x" * 2000)):
    try:
        write()
    except UsageError as error:
        print(error)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", "old")
    write_whole(tmp_path / "file", "old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True
    )
    remedy = "Choose a place that takes files of this size."
    assert done.stdout == (
        f"{tmp_path}/out: cannot be written (File too large). {remedy}\n"
        f"{tmp_path}/file: cannot be written (File too large). {remedy}\n"
    )
    assert done.stderr == ""
    assert read_folder(tmp_path / "out") == both("old")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_was_left_long_ago_is_removed(tmp_path: Path) -> None:
    old = [tmp_path / f".osbc-deploy-{n:016x}" for n in (1, 2, 3)]
    old[0].mkdir()
    (old[0] / "x").touch()
    old[1].touch()
    old[2].touch()
    others = [tmp_path / ".osbc-deploy-mine", tmp_path / "x.osbc-deploy-0000000000000001"]
    for path in others:
        path.touch()
    long_ago = time.time() - 3 * 3600
    for path in (*old[:2], *others):
        os.utime(path, (long_ago, long_ago))
    write_whole(tmp_path / "file", "x")
    assert sorted(tmp_path.iterdir()) == sorted([old[2], *others, tmp_path / "file"])


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from osbc_deploy import writing
from osbc_deploy.folders import FolderKind

base, swaps = Path(sys.argv[1]), sys.argv[2] == "swap"
if not swaps:
    writing._exchange = lambda one, other: False
before = {name: getattr(os, name) for name in
          ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "open")}
exchange = writing._exchange


def write(path):
    kind = FolderKind("mine.json", lambda _: ("mine.json", "second"))
    with writing.new_folder(path, kind) as work:
        (work / "mine.json").write_text("new")
        (work / "second").write_text("new")


def dying(step):
    left = [step]

    def wrap(call):
        def called(*args, **kwargs):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args, **kwargs)
        return called

    for name, call in before.items():
        setattr(os, name, wrap(call))
    writing._exchange = wrap(exchange)


step = 0
while True:
    path = base / str(step) / "out"
    path.mkdir(parents=True)
    for name in ("mine.json", "second"):
        (path / name).write_text("old")
    child = os.fork()
    if not child:
        dying(step)
        write(path)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    step += 1
print(step)
"""


@pytest.mark.parametrize("how", ["swap", "aside"])
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(tmp_path: Path, how: str) -> None:
    if how == "swap":
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        if not writing._exchange(tmp_path / "a", tmp_path / "b"):
            pytest.skip("this file system cannot swap names")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, how], capture_output=True, text=True, check=True
    )
    steps = int(done.stdout)
    assert steps > 12
    found = []
    for step in range(steps + 1):
        path = tmp_path / str(step) / "out"
        if how == "aside":
            # Whoever reads or writes it next does this first.
            writing.recover(path)
        found.append(read_folder(path))
        assert found[-1] in (both("old"), both("new"))
        write_folder(path, "next")
        assert read_folder(path) == both("next")
    assert found[0] == both("old")
    assert found[-1] == both("new")


def test_an_error_between_two_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "out", "old")
    monkeypatch.setattr(writing, "_exchange", lambda one, other: False)
    rename = os.rename

    def interrupted(one: Any, other: Any) -> None:
        if writing.is_temporary(Path(one)) and not os.path.lexists(other):
            raise KeyboardInterrupt
        rename(one, other)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", "new")
    assert read_folder(tmp_path / "out") == both("old")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("what", ["rmtree", "unlink"])
def test_ctrl_c_while_cleaning_up_leaves_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "net", "old")
    module = shutil if what == "rmtree" else Path
    clean, fallen = getattr(module, what), []

    def interrupted(path: Any, **given: Any) -> None:
        if ".osbc-deploy-" in str(path) and os.path.lexists(path) and not fallen:
            fallen.append(path)
            raise KeyboardInterrupt
        clean(path, **given)

    monkeypatch.setattr(module, what, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "net", "new")
    assert fallen
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert read_folder(tmp_path / "net") in (both("old"), both("new"))


def test_a_link_that_was_put_aside_for_us_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.osbc-deploy-old").symlink_to("elsewhere")
    writing.recover(tmp_path / "out")
    assert not (tmp_path / "out").exists()
