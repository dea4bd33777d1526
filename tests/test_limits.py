"""What is read is bounded before it is allocated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osbc_deploy import limits
from osbc_deploy.errors import ArtefactError, TargetError, UsageError
from osbc_deploy.limits import Allowance, memory_limit, read_bytes, read_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 2**30),
        ("1", 1),
        ("500M", 500 * 2**20),
        ("4G", 2**32),
        ("4 GiB", 2**32),
        ("2kb", 2000),
        ("1TiB", 2**40),
    ],
)
def test_the_limit_is_a_constant_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, text: str, size: int
) -> None:
    monkeypatch.setenv(limits.VARIABLE, text)
    assert memory_limit() == size


@pytest.mark.parametrize("text", ["0", "-1", "much", "1e9", "4 G 4", "9" * 30, "0.5", "٣"])
def test_what_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(limits.VARIABLE, text)
    with pytest.raises(UsageError, match=r"OSBC_DEPLOY_MEMORY: '.*' is not a size\. Give bytes"):
        memory_limit()


def test_an_allowance_adds_up_and_gives_back_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VARIABLE, "1000")
    allowance = Allowance("x.net", error=TargetError, remedy="Give a smaller file")
    allowance.take(400, 600)
    allowance.take(400, 200)
    allowance.take(-400, -400)
    assert allowance.left == 200
    with pytest.raises(TargetError) as refused:
        allowance.take(100, 101)
    assert str(refused.value) == (
        "x.net: needs 1001 B of memory, the limit is 1000 B. Give a smaller file, or raise the "
        "limit with the environment variable OSBC_DEPLOY_MEMORY."
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1 B"),
        (2**30, "1.00 GiB"),
        (2**30 + 1, "1.01 GiB"),
        (18_600_000_000, "17.33 GiB"),
        (2**4000, "more than 2^4000 B"),
    ],
)
def test_sizes_for_people_are_never_less_than_they_are(size: int, text: str) -> None:
    assert limits.shown(size) == text


def test_products_of_shapes_do_not_overflow() -> None:
    assert limits.array_bytes((2**32, 2**32), 8) == 2**67


def test_a_file_is_read_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xc3\xa9\r\n")
    assert read_bytes(path, each=2) == b"\xc3\xa9\r\n"
    assert read_text(path) == "\u00e9\n"
    monkeypatch.setenv(limits.VARIABLE, "7")
    assert len(read_bytes(path)) == 4
    with pytest.raises(ArtefactError, match="a.json: needs 8 B of memory, the limit is 7 B"):
        read_bytes(path, each=2)
    with pytest.raises(TargetError, match="a.json: has 4 B, a file of its kind may have 3 B"):
        read_bytes(path, most=3, error=TargetError)


def test_nothing_is_read_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ArtefactError, match="is not a regular file"):
            read_bytes(path)
        with pytest.raises(ArtefactError, match="is not a regular file"):
            limits.check_tensors(path)
        with pytest.raises(ArtefactError, match="is not a regular file"):
            limits.is_there(path)
    with pytest.raises(UsageError, match="is a folder"):
        limits.is_there(tmp_path)
    assert not limits.is_there(tmp_path / "none")


def test_a_hole_is_as_large_as_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ArtefactError, match=r"needs 1,024\.00 GiB of memory, the limit is 1\.00"):
        read_bytes(path)
    with pytest.raises(ArtefactError, match=r"needs 2,048\.00 GiB of memory, the limit is 1\.00"):
        limits.check_tensors(path)
