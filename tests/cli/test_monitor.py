"""The monitor's commands: a baseline by the engine, verdicts by exit code, a gateway's round."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from device_records import IDENTITY, LAYERS, device_records, few_streams
from osbc_deploy.cli.main import cli
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.monitor.baseline import (
    Baseline,
    Promise,
    make_baseline,
    read_baseline,
    save_baseline,
)
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.monitor.judgement import NoRecordsError
from osbc_deploy.telemetry.counting import count_window
from osbc_deploy.telemetry.record import Window
from osbc_deploy.testing import random_networks
from osbc_deploy.writing import new_folder


def osbc(*arguments: Any) -> Result:
    done = CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)
    # What main() ends with.
    done.exit_code = done.exit_code or done.return_value or 0
    return done


def write(name: str, windows: list[Window]) -> None:
    Path(name).write_bytes(b"".join(w.to_bytes() for w in windows))


@pytest.fixture(scope="module")
def baseline() -> Iterator[Baseline]:
    promise = Promise(days=200, per_day=50)
    with few_streams():
        yield make_baseline(Intake(tuple(device_records(1000)), {}, ()), LAYERS, promise,
                            source="device", short=True)  # fmt: skip


@pytest.fixture
def place(baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a baseline of an imaginary device and records of three kinds."""
    monkeypatch.chdir(tmp_path)
    save_baseline(baseline, tmp_path / "b.json")
    write("ok", device_records(100, 3))
    write("moved", device_records(60, 4, start=100, level=1.1))
    write("silent", device_records(60, 4, start=100, silent=18))
    return tmp_path


def test_verdicts_are_exit_codes(place: Path) -> None:
    for names, code, said in (
        (["ok"], 0, "verdict: OK (100 records)"),
        (["moved", "ok"], 7, "moved first: fc"),
        (["ok", "silent"], 8, "unhealthy: silent 0.9"),
    ):
        done = osbc("monitor", "judge", *names, "--baseline", "b.json", "--html", "page.html")
        assert done.exit_code == code, done.output
        assert said in done.stdout
        assert "<svg" in (place / "page.html").read_text()
    done = osbc("monitor", "judge", "ok", "--baseline", "b.json", "--json")
    assert json.loads(done.stdout)["verdict"] == "ok"


def test_a_baseline_from_samples_is_what_the_engine_counts(
    formats: NumberFormats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = next(c for c in random_networks(9, formats, start=3) if "calm" in c.features)
    with new_folder(tmp_path / "net", DEPLOYMENT) as work:
        write_network(case.network, work)
    random = np.random.default_rng(0)
    spikes = (random.random((120, *case.spikes.shape[1:])) < 0.3).astype(np.uint8)
    np.savez("held.npz", spikes=spikes)
    common = ["monitor", "baseline", "net", "-o", "b.json", "--per-day", 1]
    samples = ["--samples", "held.npz", "--window", 2]
    done = osbc(*common, *samples)
    assert "has 60 records, one false alarm in 30 days at 1 a day needs" in str(done.exception)
    assert osbc(*common, *samples, "--short").exit_code == 0
    engine = read_baseline(tmp_path / "b.json")
    write("records", [count_window(case.network, spikes[2 * i : 2 * i + 2], sequence=i)
                      for i in range(60)])  # fmt: skip
    assert osbc(*common, "--records", "records", "--short").exit_code == 0
    device = read_baseline(tmp_path / "b.json")
    assert device == engine.model_copy(update={"source": "device"})
    first = engine.channels[0]
    by_hand = [count_window(case.network, spikes).layers[0].spikes / 120]
    assert first.mean == pytest.approx(by_hand[0])
    assert osbc("monitor", "judge", "records", "--baseline", "b.json").exit_code == 0


@pytest.mark.parametrize("policy", ["report", "rollback"])
def test_a_gateway_goes_back_where_its_policy_says_so(
    policy: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = b"OSBCNET\0" + bytes(8) + IDENTITY + bytes(100)
    Path("image").write_bytes(image)
    Path("old").write_bytes(b"the network before")
    osbc("release", "keygen", "k.pem")
    osbc("release", "create", "store", "--target", "cam", "--key", "k.pub.pem", "--slot", 8192,
         "--on-drift", policy)  # fmt: skip
    for version, name in enumerate(("old", "image"), start=1):
        osbc("release", "sign", name, "-o", "r", "--key", "k.pem", "--target", "cam",
             "--version", version, "--no-self-test")  # fmt: skip
        for command in (["install", "store", "r"], ["boot", "store"], ["confirm", "store"]):
            assert osbc("release", *command).exit_code == 0
    arrived = place / "arrived"
    arrived.mkdir()
    watch = ["monitor", "watch", "arrived", "--baseline", "b.json", "--store", "store", "--once"]
    (arrived / "0").write_bytes((place / "ok").read_bytes())
    (arrived / ".half").write_bytes(b"being written")
    assert osbc(*watch).exit_code == 0
    (arrived / "1").write_bytes((place / "moved").read_bytes())
    if policy == "rollback":
        # An image that was confirmed while records were judged is not the one that drifted.
        with monkeypatch.context() as patch:
            running = (1, IDENTITY.hex())
            patch.setattr("osbc_deploy.monitor.watch._running", lambda store: running)
            done = osbc(*watch)
        assert done.exit_code == 7
        assert "action: none: version 1 is not the one to leave, 2 is" in done.stderr
    monkeypatch.setattr("osbc_deploy.release.storage._PATIENCE", 0.1)
    with (place / "store" / "store.bin").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        done = osbc(*watch)
        # What cannot be changed drifts all the same.
        assert done.exit_code == 7
        in_use = "action: none: store/store.bin: is in use by another process"
        assert (in_use in done.stderr) == (policy == "rollback")
        fcntl.flock(file, fcntl.LOCK_EX)
        done = osbc(*watch)
        assert done.exception.exit_code == 2
        assert "store.bin: is in use by another process" in str(done.exception)
    done = osbc(*watch)
    assert done.exit_code == 7
    state = json.loads(osbc("release", "status", "store", "--json").stdout)
    if policy == "report":
        assert "action: none: the store's policy is to report" in done.stderr
        assert (state["state"], state["good"]["version"]) == ("confirmed", 2)
    else:
        assert "action: rollback" in done.stderr
        assert (state["state"], state["good"]["version"], state["floor"]) == ("reverted", 1, 2)
        # What runs now is another image; its drift is another matter.
        assert "there are baselines of 0001020304050607" in str(osbc(*watch).exception)


def test_without_a_store_names_of_files_do_not_say_which_image_is_judged(
    baseline: Baseline, place: Path
) -> None:
    arrived, identity = place / "arrived", b"otherone"
    arrived.mkdir()
    save_baseline(baseline.model_copy(update={"identity": identity.hex()}), place / "old.json")
    both = ["--baseline", "old.json", "--baseline", "b.json"]
    watch = ["monitor", "watch", "arrived", "--once"]
    write("arrived/drift", [*device_records(100, 3), *device_records(60, 4, start=100, level=1.1)])
    for stray in ("a", "z"):
        write(f"arrived/{stray}", device_records(30, 5, identity=identity))
        for known in (both, both[2:]):
            done = osbc(*watch, *known)
            assert done.exit_code == 7
            assert "moved first: fc" in done.stdout
            assert "left out: 30 of another image" in done.stdout
            assert (f"note: image {identity.hex()}: ok (30 records)" in done.stdout) == (
                known is both
            )
        (arrived / stray).unlink()


def test_a_file_that_is_too_large_is_set_aside(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = place / "arrived"
    arrived.mkdir()
    watch = ["monitor", "watch", "arrived", "--baseline", "b.json", "--once"]
    (arrived / "0").write_bytes((place / "moved").read_bytes())
    (arrived / "2").write_bytes((place / "ok").read_bytes())
    with (arrived / "1").open("wb") as file:
        file.truncate(2**30)
    done = osbc(*watch, "--json")
    assert done.exit_code == 7
    found = json.loads(done.stdout)
    assert found["records"] == 160
    assert "set aside: arrived: 1 needs 60.0" in " ".join(found["remarks"])
    # Where not all fit together, the last ones are judged.
    size = (arrived / "2").stat().st_size
    monkeypatch.setenv("OSBC_DEPLOY_MEMORY", str(60 * size))
    done = osbc(*watch, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["records"] == 100
    (arrived / "0").unlink()
    (arrived / "2").unlink()
    assert "arrived: nothing in it can be judged" in str(osbc(*watch).exception)


OTHER = b"".join(w.to_bytes() for w in device_records(3, identity=b"otherone"))


@pytest.mark.parametrize(
    ("content", "stored", "said"),
    [
        ([], False, "(none given)"),
        ([], True, "(none given)"),
        ([b"junk", b"\xff" * 50], False, "(2 torn)"),
        ([b"junk", b"\xff" * 50], True, "(2 torn)"),
        ([OTHER, b"junk"], False, "(1 torn; 3 of another image)"),
        ([OTHER, b"junk"], True, "(1 torn; 3 of another image)"),
    ],
)
def test_where_nothing_can_be_judged_the_reason_is_said(
    content: list[bytes], stored: bool, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = place / "arrived"
    arrived.mkdir()
    for number, data in enumerate(content):
        (arrived / str(number)).write_bytes(data)
    watch = ["monitor", "watch", "arrived", "--baseline", "b.json"]
    if stored:
        monkeypatch.setattr("osbc_deploy.monitor.watch._running", lambda _: (1, IDENTITY.hex()))
        watch += ["--store", "store"]
    done = osbc(*watch, "--once", "--json")
    assert isinstance(done.exception, NoRecordsError)
    assert f"none can be judged {said}" in str(done.exception)
    assert done.exception.exit_code == 6
    # A gateway goes on, and complains once.
    rounds = iter([None, None])

    def sleep(_: float) -> None:
        if next(rounds, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert osbc(*watch).stderr.count("none can be judged") == 1


def test_a_gateway_keeps_its_page_and_says_what_is_new_though_the_page_cannot_be_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, page = place / "arrived", place / "pages" / "p.html"
    arrived.mkdir()
    page.parent.mkdir()
    write("arrived/0", device_records(100, 3))
    seen: list[str] = []

    def sleep(_: float) -> None:
        seen.append(page.read_text() if page.exists() else "")
        match len(seen):
            case 1:  # Nothing new but more records.
                write("arrived/1", device_records(20, 5, start=100))
            case 2:
                page.unlink()
                page.parent.rmdir()
                page.parent.write_text("in the way")
                write("arrived/2", device_records(30, 6, start=120, silent=18))
            case 3:  # The same verdict for one more reason, and still no room for the page.
                write("arrived/3", device_records(30, 7, start=150, faults=9))
            case 4:
                page.parent.unlink()
                page.parent.mkdir()
            case _:
                raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    done = osbc("monitor", "watch", "arrived", "--baseline", "b.json", "--html", page)
    assert [f"{n} records" in text for n, text in zip((100, 120), seen, strict=False)] == [True] * 2
    assert "180 records" in seen[4]
    assert done.stdout.count("verdict: ") == 3
    assert done.stdout.count("unhealthy: faults") == 1
    assert done.stderr.count("p.html") == 1


def test_a_baseline_says_which_records_it_could_not_use(
    formats: NumberFormats, place: Path
) -> None:
    case = next(c for c in random_networks(9, formats, start=3) if "calm" in c.features)
    with new_folder(place / "net", DEPLOYMENT) as work:
        write_network(case.network, work)
    done = osbc("monitor", "baseline", "net", "-o", "x.json", "--records", "ok", "--short")
    said = "has 0 records, 50 are the least; left out: 100 of another image."
    assert said in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge", "none", "--baseline", "b.json"], "none: cannot be read"),
        (["judge", "ok", "--baseline", "ok"], "ok: is not a baseline"),
        (["judge", "b.json", "--baseline", "b.json"], "none can be judged (1 torn)"),
        (["watch", "none", "--baseline", "b.json", "--once"], "none: cannot be read"),
        (["watch", ".", "--baseline", "b.json", "--every", "0"], "--every: 0 is not above 0"),
        (["watch", ".", "--baseline", "b.json", "--every", "9", "--once"], "no use with --once"),
        (["watch", ".", "--baseline", "b.json", "--every", "inf"], "--every: inf is not above 0"),
        (["watch", ".", "--baseline", "b.json", "--every", "1e300"], "at most 31,622,400 (a year)"),
        (["watch", ".", "--baseline", "b.json", "--every", "nan"], "--every: nan is not above 0"),
        (["baseline", ".", "-o", "x.json", "--samples", "a", "--clipped", "inf"], "--clipped fin"),
        (["baseline", ".", "-o", "x.json", "--samples", "a", "--silent", "nan"], "--silent is a"),
        (["baseline", ".", "-o", "x.json", "--samples", "a", "--days", "inf"], "must be finite"),
        (["baseline", ".", "-o", "x.json"], "one of them is needed"),
        (["baseline", ".", "-o", "x.json", "--records", "a", "--window", "9"], "--window: --reco"),
        (["baseline", "ok", "-o", "x.json", "--samples", "d"], "ok: does not end in .img or .net"),
        (["baseline", ".", "-o", "x.json", "--samples", "a", "--days", "-1"], "finite and above 0"),
    ],
)
def test_what_is_refused_is_one_sentence(arguments: list[str], said: str, place: Path) -> None:
    done = osbc("monitor", *arguments)
    assert said in str(done.exception)
    assert getattr(done.exception, "exit_code", 1) in (2, 6)
