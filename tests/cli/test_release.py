"""The release commands, from a key to a rollback, and what they refuse."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from osbc_deploy.cli.main import cli
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.release.selftest import SelfTest
from osbc_deploy.testing import random_networks
from osbc_deploy.writing import new_folder


def osbc(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["release", *map(str, arguments)])


def state(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(osbc("status", store, "--json").stdout)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with keys, a store and three signed releases."""
    monkeypatch.chdir(tmp_path)
    assert osbc("keygen", "k.pem").exit_code == 0
    for version in (1, 2, 3):
        Path("image").write_bytes(bytes([version]) * 500)
        done = osbc("sign", "image", "-o", f"r{version}", "--key", "k.pem", "--target", "cam",
                    "--version", version, "--no-self-test")  # fmt: skip
        assert done.exit_code == 0, done.output
    done = osbc("create", "store", "--target", "cam", "--key", "k.pub.pem", "--slot", 8192)
    assert done.exit_code == 0, done.output
    return tmp_path


def test_a_life_of_a_gateway(place: Path) -> None:
    for release, action in (("r1", "confirm"), ("r2", "confirm"), ("r3", "rollback")):
        assert osbc("install", "store", release).exit_code == 0
        assert osbc("boot", "store", "-o", "running").exit_code == 0
        assert (place / "running").read_bytes() == bytes([int(release[1])]) * 500
        assert osbc(action, "store").exit_code == 0
    found = state(place / "store")
    assert (found["state"], found["reason"], found["floor"]) == ("reverted", "host", 3)
    assert found["good"]["version"] == 2
    assert osbc("boot", "store", "-o", "running").exit_code == 0
    assert (place / "running").read_bytes() == bytes([2]) * 500
    done = osbc("install", "store", "r3")
    assert "r3: is version 3, and only versions above 3 are taken" in str(done.exception)


def test_a_trial_is_judged_by_counts(place: Path) -> None:
    osbc("install", "store", "r1")
    osbc("boot", "store")
    done = osbc("judge", "store", "--samples", 10, "--silent", 11, "--clipped", 0)
    assert "--silent: 11 of 10 samples, which is more than there are" in str(done.exception)
    assert state(place / "store")["state"] == "trial"
    counts = ["--samples", 10, "--silent", 0, "--clipped", 1]
    assert osbc("judge", "store", *counts).exit_code == 0
    found = state(place / "store")
    assert (found["state"], found["reason"], found["good"]) == ("reverted", "clipped", None)
    done = osbc("boot", "store")
    assert "holds no image that may run" in str(done.exception)


@pytest.mark.parametrize(
    ("share", "samples", "most"), [("0.29", 100, 29), ("0.57", 100, 57), ("0.5", 3, 1), ("1", 7, 7)]
)
def test_the_share_that_may_be_silent_is_as_written(
    share: str, samples: int, most: int, place: Path
) -> None:
    asked = ["--silent", share, "--trial-samples", samples]
    done = osbc("sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4,
                "--no-self-test", *asked, "--json", "-q")  # fmt: skip
    assert json.loads(done.stdout)["trial"]["silent_most"] == most


def test_the_self_test_is_what_the_engine_answers(place: Path, formats: NumberFormats) -> None:
    case = next(c for c in random_networks(9, formats, start=3) if "calm" in c.features)
    first, *rest = case.network.projections
    deaf = replace(first.connection, weight=0 * first.connection.weight)
    other = replace(case.network, projections=(replace(first, connection=deaf), *rest))
    with new_folder(place / "net", DEPLOYMENT) as work:
        write_network(case.network, work)
    Path("network.bin").write_bytes(write_blob(case.network, lay_out(case.network)))
    Path("other.bin").write_bytes(write_blob(other, lay_out(other)))
    np.savez("data.npz", spikes=case.spikes)

    def sign(image: str, version: int, *more: Any) -> Result:
        return osbc("sign", image, "-o", f"r{version}", "--key", "k.pem", "--target", "cam",
                    "--version", version, "--samples", "data.npz", *more)  # fmt: skip

    for version, image, named in ((8, "network.bin", ()), (9, "image", ("--network", "net"))):
        done = sign(image, version, "--vectors", 1, "--json", *named)
        assert done.exit_code == 0, done.output
        size = json.loads(done.stdout)["selftest_bytes"]
        osbc("install", "store", f"r{version}")
        assert osbc("boot", "store", "--self-test", "vectors").exit_code == 0
        data = (place / "vectors").read_bytes()
        assert len(data) == size
        assert SelfTest.unpack(data).failures(case.network) == 0
    there = len(case.spikes)
    assert f"data.npz holds {there} sample" in str(
        sign("network.bin", 9, "--vectors", there + 1).exception
    )
    said = str(sign("image", 9).exception)
    assert "--samples: a self-test needs the network of image" in said
    assert "Name the network with --network" in said
    said = str(sign("network.bin", 9, "--network", "other.bin").exception)
    assert "--network: other.bin answers the samples otherwise than network.bin" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sign", "image", "-o", "r", "--key", "k.pub.pem", "--target", "cam", "--version", 4,
          "--no-self-test"], "k.pub.pem: is a public key"),
        (["sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4],
         "--samples: is missing"),
        (["sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4,
          "--no-self-test", "--silent", "2"], "--silent: 2 is outside 0 to 1"),
        (["sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 0,
          "--no-self-test"], "--version: 0 is outside 1 to"),
        (["sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4,
          "--no-self-test", "--vectors", "2"], "--no-self-test: leaves --vectors without use"),
        (["sign", "image", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4,
          "--no-self-test", "--mcuboot-slot", "99"], "--mcuboot-slot: needs --mcuboot FILE"),
        (["sign", "nothing", "-o", "r", "--key", "k.pem", "--target", "cam", "--version", 4,
          "--no-self-test"], "nothing: cannot be read"),
        (["create", "store", "--target", "cam", "--key", "k.pub.pem"], "store: exists, and what"),
        (["create", "s2", "--target", "cam", "--key", "k.pem"], "belongs on no device"),
        (["create", "s2", "--target", "cam", "--key", "k.pub.pem", "--sector", "100"],
         "sector: 100 is not a multiple of 32"),
        (["create", "s2", "--target", "cam", "--key", "k.pub.pem", "--slot", "5000"],
         "slot: 5000 is not a multiple of the sector"),
        (["install", "store", "image"], "image: is not a release"),
        (["install", "k.pem", "r1"], "k.pem: is not a store"),
        (["confirm", "store"], "no image is on trial"),
        (["rollback", "store"], "there is nothing to go back to"),
        (["keygen", "k.pem"], "k.pem: exists, and keys are not overwritten"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_sentence(arguments: list[Any], said: str, place: Path) -> None:
    before = (place / "store" / "store.bin").read_bytes()
    done = osbc(*arguments)
    assert said in str(done.exception)
    assert getattr(done.exception, "exit_code", 1) in (2, 6)
    assert (place / "store" / "store.bin").read_bytes() == before


def test_what_is_wrong_with_a_damaged_release_is_said(place: Path) -> None:
    whole = (place / "r1").read_bytes()
    for damaged, said in (
        (whole[:-32], f"r: is damaged (has {len(whole) - 32} B, {len(whole)} were signed)"),
        (whole[:300] + b"?" + whole[301:], "r: is damaged (its image or self-test has other bytes"),
    ):
        (place / "r").write_bytes(damaged)
        assert said in str(osbc("install", "store", "r").exception)
    assert state(place / "store")["state"] == "empty"


def test_a_store_in_use_is_waited_for(place: Path) -> None:
    with (place / "store" / "store.bin").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        threading.Timer(0.3, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        assert osbc("status", "store").exit_code == 0
        assert osbc("install", "store", "r1").exit_code == 0


def test_a_full_a_locked_and_a_damaged_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osbc_deploy.release.storage._PATIENCE", 0.1)
    Path("image").write_bytes(bytes(8192))
    osbc("sign", "image", "-o", "big", "--key", "k.pem", "--target", "cam", "--version", 4,
         "--no-self-test")  # fmt: skip
    assert "has 8,448 B, a slot holds 8,192" in str(osbc("install", "store", "big").exception)
    slots, facts = place / "store" / "store.bin", place / "store" / "store.json"
    with slots.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert "is in use by another process" in str(osbc("install", "store", "r1").exception)
        assert osbc("status", "store").exit_code == 0
    slots.write_bytes(slots.read_bytes()[:-1])
    assert "has 24,575 B, a store of this layout has" in str(osbc("status", "store").exception)
    facts.write_text(facts.read_text().replace("cam", "a b"))
    assert "store.json: is damaged" in str(osbc("status", "store").exception)


def test_a_store_that_is_lost_can_be_made_anew_as_its_errors_say(place: Path) -> None:
    slots = place / "store" / "store.bin"
    anew = "move the store's folder away and make it anew with 'osbc-deploy release create'"
    create = ("create", "store", "--target", "cam", "--key", "k.pub.pem", "--slot", 8192)
    for lose, said in (
        (lambda: slots.write_bytes(bytes(slots.stat().st_size)), "journal: both of its records"),
        (slots.unlink, "store.bin: cannot be opened (No such file or directory). Restore it"),
        (lambda: (place / "store" / "store.json").write_text("?"), "store.json: is damaged"),
    ):
        lose()
        found = str(osbc("install", "store", "r1").exception)
        assert said in found
        assert anew in found
        assert "or move this one away first" in str(osbc(*create).exception)
        (place / "store").rename(place / f"old {len(list(place.iterdir()))}")
        assert osbc(*create).exit_code == 0
        assert osbc("install", "store", "r1").exit_code == 0
    slots.chmod(0o400)
    if not os.access(slots, os.W_OK):  # To root, nothing is forbidden.
        assert "Let this user read and write it." in str(osbc("boot", "store").exception)


def test_the_library_is_written(place: Path) -> None:
    assert osbc("library", "-o", "fw").exit_code == 0
    assert "osbc_slots_boot" in (place / "fw" / "osbc_slots.h").read_text()
    assert (place / "fw" / "osbc_slots.c").is_file()


def test_keys_are_a_pair_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write = os.fdopen
    opened: list[int] = []

    def full(handle: int, mode: str) -> Any:
        opened.append(handle)
        if len(opened) == failing:
            os.close(handle)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, mode)

    monkeypatch.setattr(os, "fdopen", full)
    for failing in (1, 2):  # noqa: B007 - full() reads it
        opened.clear()
        assert "cannot be written (No space left on device)" in str(osbc("keygen", "k").exception)
        assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert osbc("keygen", "k").exit_code == 0
    assert (tmp_path / "k").stat().st_mode & 0o077 == 0
    for there in ("k", "k.pub.pem"):
        before = (tmp_path / there).read_bytes()
        assert "keys are not overwritten" in str(osbc("keygen", "k").exception)
        assert (tmp_path / there).read_bytes() == before


def test_a_boot_whose_image_cannot_be_written_is_not_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert osbc("install", "store", "r1").exit_code == 0
    asked: list[int] = []

    def full(handle: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for _ in range(5):
            said = str(osbc("boot", "store", "-o", "running").exception)
            assert "-o: running cannot be written (No space left on device)" in said
        assert asked == [500] * 5
    assert state(place / "store")["state"] == "staged"
    assert osbc("boot", "store", "-o", "running").exit_code == 0
    assert state(place / "store")["boots"] == 1
    assert (place / "running").read_bytes() == bytes([1]) * 500
    assert not [path for path in place.iterdir() if path.name.startswith(".osbc")]
