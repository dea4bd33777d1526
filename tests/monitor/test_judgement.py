"""Records of an imaginary device judged: what moved, since when, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_records import IDENTITY, LAYERS, device_records, few_streams
from osbc_deploy.errors import ArtefactError, OsbcError, UsageError
from osbc_deploy.monitor.baseline import (
    Baseline,
    Promise,
    make_baseline,
    read_baseline,
    save_baseline,
)
from osbc_deploy.monitor.channels import stream_of
from osbc_deploy.monitor.intake import Intake, put_in_order, read_whole
from osbc_deploy.monitor.judgement import judge
from osbc_deploy.report.monitoring.page import judgement_page, lines
from osbc_deploy.telemetry.record import LayerCounts, Window

PROMISE = Promise(days=10, per_day=50)


@pytest.fixture(scope="module", autouse=True)
def _few_streams() -> Iterator[None]:
    with few_streams():
        yield


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return make_baseline(Intake(tuple(device_records(2500)), {}, ()), LAYERS, PROMISE,
                         source="device")  # fmt: skip


def stream(level: float, **more: Any) -> list[Window]:
    return device_records(200, 7, **more) + device_records(60, 8, start=200, level=level, **more)


def test_records_as_usual_are_ok(baseline: Baseline) -> None:
    found = judge(stream(1.0), baseline)
    assert (found["verdict"], found["moved"], found["since"]) == ("ok", [], None)
    assert (found["records"], found["left_out"], found["remarks"]) == (260, {}, [])


@pytest.mark.parametrize(("level", "direction"), [(1.06, "up"), (0.94, "down")])
def test_the_layer_that_moved_is_named_with_its_beginning(
    level: float, direction: str, baseline: Baseline
) -> None:
    found = judge(stream(level), baseline)
    assert (found["verdict"], found["moved"]) == ("drift", ["fc"])
    (moved,) = [c for c in found["channels"] if c["alarm"]]
    assert (moved["layer"], moved["what"], moved["direction"]) == ("fc", "spikes", direction)
    assert abs(moved["since"]["record"] - 200) <= 6
    assert moved["since"]["record"] <= moved["noticed"]["record"] < 230
    assert moved["seen"] == pytest.approx(45 * level, rel=0.01)
    assert moved["usual"] == pytest.approx(45, rel=0.01)


def test_what_moved_a_little_is_noticed_later_than_it_began(baseline: Baseline) -> None:
    found = judge(stream(1.025), baseline)
    (moved,) = [c for c in found["channels"] if c["alarm"]]
    assert (moved["layer"], moved["what"]) == ("fc", "spikes")
    assert abs(moved["since"]["record"] - 200) <= 20
    assert moved["noticed"]["record"] >= moved["since"]["record"] + 8


def test_a_histogram_moves_where_no_sum_does(baseline: Baseline) -> None:
    records = stream(1.0)
    odd = [replace(w, answers=(w.answers[0] // 2, w.answers[1] + w.answers[0] - w.answers[0] // 2,
                               w.answers[2])) for w in records[200:]]  # fmt: skip
    found = judge(records[:200] + odd, baseline)
    assert found["verdict"] == "drift"
    assert found["moved"] == ["answers"]
    assert found["since"]["record"] == 200
    # Noticed with the last record of a period of 25; seen is what came from its first on.
    (moved,) = [h for h in found["histograms"] if h["alarm"]]
    assert (baseline.period, moved["noticed"]["record"]) == (25, 224)
    total = np.sum([(*w.answers, w.silent) for w in odd], axis=0)
    assert moved["seen"] == pytest.approx(total / total.sum(), abs=1e-6)
    assert moved["usual"] == pytest.approx([0.475, 0.285, 0.19, 0.05], abs=0.01)
    assert moved["peak"] > 1


def changed(windows: list[Window], at: range, **more: Any) -> list[Window]:
    return [replace(w, **more) if i in at else w for i, w in enumerate(windows)]


@pytest.mark.parametrize(
    ("more", "what"),
    [({"silent": 15}, "silent"), ({"faults": 2}, "faults"), ({"boots": 0}, "boots")],
)
def test_hard_faults_are_no_drift(more: dict[str, int], what: str, baseline: Baseline) -> None:
    records = stream(1.0)
    if what == "boots":
        records = [replace(w, boots=max(0, i - 100) if i < 104 else 3)
                   for i, w in enumerate(records)]  # fmt: skip
    else:
        records = changed(records, range(100, 104), **more)
    found = judge(records, baseline)
    assert found["verdict"] == "unhealthy"
    assert [h["what"] for h in found["health"]] == [what]
    assert 100 <= found["health"][0]["since"]["record"] <= 103


def test_starts_that_are_no_fault_are_said_as_well(baseline: Baseline) -> None:
    records = stream(1.0)
    for starts, unwell in ((2, False), (3, True)):
        started = [replace(w, boots=starts * (i > 99)) for i, w in enumerate(records)]
        found = judge(started, baseline)
        assert (found["verdict"] == "unhealthy") == unwell
    assert "unhealthy: boots 3, at most 2 is well" in lines(found)[1]


@pytest.mark.parametrize("first", [0, 65533])
def test_starts_of_an_image_that_was_tried_are_not_those_of_the_one_before(
    first: int, baseline: Baseline
) -> None:
    before = device_records(60, 3, boots=first)
    after = device_records(60, 5, boots=(first + 5) % 2**16)
    tried = [
        record
        for n in range(1, 5)
        for record in device_records(3, n, boots=(first + n) % 2**16, identity=b"otherone")
    ]
    assert judge([*before, *tried, *after], baseline)["verdict"] == "ok"
    assert [h["what"] for h in judge([*before, *after], baseline)["health"]] == ["boots"]
    # Two starts of its own remain, and a third is a fault.
    assert judge([*before, *tried[3:], *after], baseline)["verdict"] == "ok"
    assert [h["seen"] for h in judge([*before, *tried[6:], *after], baseline)["health"]] == [3]


@pytest.mark.parametrize("first", [0, 100])
def test_one_bad_record_is_no_fault_wherever_it_is(first: int, baseline: Baseline) -> None:
    # 12 of 20 samples: beyond half of one record, not of three.
    records = changed(stream(1.0), range(first, first + 1), silent=12)
    assert not judge(records, baseline)["health"]
    (fault,) = judge(records[first : first + 1], baseline)["health"]
    assert fault["what"] == "silent"


def test_what_is_at_its_limit_is_well(baseline: Baseline) -> None:
    # Half of three records' samples, and one more.
    for silent, unwell in ((10, False), (11, True)):
        found = judge(changed(stream(1.0), range(100, 103), silent=silent), baseline)
        assert bool(found["health"]) == unwell
    # Three starts within ten records, and within eleven.
    for last, unwell in ((109, True), (110, False)):
        started = [
            replace(w, boots=(i >= 100) + (i >= 105) + (i >= last))
            for i, w in enumerate(stream(1.0))
        ]
        assert bool(judge(started, baseline)["health"]) == unwell
    # Half as many samples as usual, and twice as many.
    for samples, taken in ((9, False), (10, True), (40, True), (41, False)):
        found = put_in_order(
            device_records(3, samples=samples), identity=IDENTITY, layers=2, classes=3, samples=20
        )
        assert len(found.windows) == 3 * taken


def test_only_starts_in_between_are_another_images() -> None:
    # Of starts 3 to 9, the other image reported in 3, 5 and 9: in one that is neither end.
    found = put_in_order(
        [*device_records(1, boots=3), *device_records(1, boots=9),
         *(device_records(1, boots=n, identity=b"otherone")[0] for n in (3, 5, 9))],
        identity=IDENTITY, layers=2, classes=3,
    )  # fmt: skip
    assert found.starts == (0, 9 - 3 - 1)


@pytest.mark.parametrize("register", ["clipped_currents", "clipped_potentials"])
def test_clipping_is_a_fault_of_its_layer(register: str, baseline: Baseline) -> None:
    records = stream(1.0)
    layers = (records[0].layers[0], replace(records[0].layers[1], **{register: 100}))
    found = judge(changed(records, range(50, 53), layers=layers), baseline)
    assert [(h["what"], h["layer"]) for h in found["health"]] == [("clipped", "fc")]
    # What a baseline has of it is multiplied by ten, and one is added: 100 of 20 samples.
    clipped = Intake(tuple(changed(records, range(50, 53), layers=layers)), {}, ())
    few = Promise(days=1, per_day=50)
    usual = make_baseline(clipped, LAYERS, few, source="device", short=True)
    assert usual.limits.clipped == [1.0, 51.0]


def test_a_stream_is_what_records_hold_by_sample() -> None:
    layers = tuple(
        LayerCounts(400 * n, 7 * n, 3 * n, 5 * n, (20, *(0,) * 7)) for n in (1, 2)
    )  # fmt: skip
    one, two = device_records(2)
    one = replace(one, samples=10, silent=4, answers=(1, 2, 3), layers=layers)
    two = replace(two, samples=40, silent=2, answers=(0, 30, 8), layers=layers)
    found = stream_of([one, two], LAYERS)
    names = [channel.name for channel in found.channels]
    assert names == [f"{layer}: {what}" for layer in LAYERS
                     for what in ("spikes", "fired", "clipped")] + ["silent"]  # fmt: skip
    assert found.values.tolist() == [
        [40, 7, 0.8, 80, 14, 1.6, 0.4],
        [10, 7, 0.2, 20, 14, 0.4, 0.05],
    ]
    # Records of 25 samples in the middle; who fired is counted once a record.
    assert found.grains.tolist() == [0.04, 1, 0.04, 0.04, 1, 0.04, 0.04]
    named = {channel.name: table.tolist() for channel, table in
             zip(found.histogram_channels, found.histograms, strict=True)}  # fmt: skip
    assert named["answers"] == [[1, 2, 3, 4], [0, 30, 8, 2]]
    assert list(named) == ["conv1: counts", "fc: counts", "answers", "margins"]


def test_order_is_the_devices_and_what_cannot_be_used_is_left_out(baseline: Baseline) -> None:
    records = stream(1.06)
    late = records[50:60] + records[:50] + records[60:]
    strange = replace(records[0], identity=b"anotherx")
    empty = replace(records[1], samples=0, sequence=5000)
    few = replace(records[2], samples=3, sequence=5001)
    other = replace(records[3], silent=2)
    given = [*late, records[10], strange, empty, few, other]
    found = judge(given, baseline)
    plain = judge(records, baseline)
    assert found["channels"] == plain["channels"]
    assert found["left_out"] == {
        "twice": 1,
        "of another image": 1,
        "without samples": 1,
        "with far fewer or more samples than the baseline's": 1,
        "with the number of another, of another device?": 1,
    }
    assert found["remarks"] == ["50 records arrived out of order and were put in order"]


def test_counters_that_go_round_keep_their_order() -> None:
    ends = device_records(4, start=2**32 - 2, boots=65535)
    ends = [replace(w, sequence=w.sequence % 2**32) for w in ends]
    after = device_records(3, boots=0)
    found = put_in_order([*ends, *after], identity=IDENTITY, layers=2, classes=3)
    assert [(w.boots, w.sequence) for w in found.windows] == [
        (65535, 2**32 - 2), (65535, 2**32 - 1), (65535, 0), (65535, 1), (0, 0), (0, 1), (0, 2)
    ]  # fmt: skip
    assert not found.left_out
    assert not found.remarks


def test_gaps_and_counters_that_stopped_are_remarked() -> None:
    records = device_records(10)
    del records[3:5]
    records[0] = replace(records[0], answers=(65535, 0, 0))
    found = put_in_order(records, identity=IDENTITY, layers=2, classes=3)
    assert found.remarks == (
        "1 record holds a counter that stopped at its largest value; shorter windows count whole",
        "2 records are missing between others of the same boot",
    )


def test_reading_goes_on_behind_a_torn_record(tmp_path: Path) -> None:
    records = device_records(6)
    data = [w.to_bytes() for w in records]
    (tmp_path / "a").write_bytes(data[0] + data[1][:40] + data[2] + b"noise" + data[3])
    (tmp_path / "b").write_bytes(data[4][:-1] + b"?" + data[5][:99])
    windows, torn = read_whole([tmp_path / "a", tmp_path / "b"])
    assert windows == [records[0], records[2], records[3]]
    # The last file is one broken place from its first byte on.
    assert torn == 3
    with pytest.raises(UsageError, match=r"(?s)c: cannot be read.*d: cannot be read"):
        read_whole([tmp_path / "c", tmp_path / "d"])


def test_nothing_that_can_be_judged_is_an_error(baseline: Baseline) -> None:
    with pytest.raises(ArtefactError, match=r"none can be judged \(2 torn; 5 of another image\)"):
        judge(device_records(5, identity=b"anotherx"), baseline, torn=2)


def test_a_baseline_that_is_too_short_says_how_long_it_must_be() -> None:
    few = Intake(tuple(device_records(300)), {}, ())
    with pytest.raises(ArtefactError, match=r"has 300 records, one false alarm in 30 days at 1440"):
        make_baseline(few, LAYERS, Promise(days=30, per_day=1440), source="device")
    found = make_baseline(few, LAYERS, Promise(days=30, per_day=1440), source="device", short=True)
    assert not found.kept
    assert f"{found.needed:,}" in judge(stream(1.0), found)["remarks"][0]
    for windows, promise, said in (
        (few.windows[:49], PROMISE, "has 49 records, 50 are the least"),
        (few.windows, Promise(days=0.01, per_day=10), "one false alarm in 0 records"),
        (few.windows, Promise(days=1e6, per_day=1440), "1 to 1,000,000 are possible"),
        (few.windows, Promise(days=1e300, per_day=1), r"in 1e\+300 records, 1 to 1,000,000"),
    ):
        with pytest.raises(OsbcError, match=said):
            make_baseline(Intake(windows, {}, ()), LAYERS, promise, source="device")


def edited(text: str, field: str, value: str) -> str:
    """Return a baseline's text with another value in one place, such as ``limits.silent``."""
    *way, last = (int(part) if part.isdigit() else part for part in field.split("."))
    data = place = json.loads(text)
    for part in way:
        place = place[part]
    place[last] = "@"
    return json.dumps(data).replace('"@"', value)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_baseline_that_was_cut_is_refused(kept: int, baseline: Baseline) -> None:
    for part in ("channels", "histograms"):
        cut = baseline.model_copy(update={part: getattr(baseline, part)[:kept]})
        with pytest.raises(ArtefactError, match="baseline: has other channels"):
            judge(stream(1.0), cut)


def test_a_baseline_is_read_as_it_was_written_or_refused(
    baseline: Baseline, tmp_path: Path
) -> None:
    save_baseline(baseline, path := tmp_path / "b.json")
    assert read_baseline(path) == baseline
    text = path.read_text()
    for broken in ("", "[]", text[:-9], text.replace("baseline/1", "baseline/2"),
                   text.replace('"threshold"', '"treshold"'),
                   text.replace('"layers"', '"layers": ["a"], "x"', 1)):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(ArtefactError, match="is not a baseline"):
            read_baseline(path)
    number = "Infinity", "-Infinity", "NaN", "1e999", "1e308"
    for field, value in (
        *(("threshold", n) for n in number),
        *(("histogram_threshold", n) for n in number),
        *(("reference", n) for n in number),
        *((f"channels.0.{name}", n) for name in ("mean", "deviation") for n in number),
        *((f"channels.0.{name}", "1e-300") for name in ("deviation",)),
        *(("channels.0.coefficients", f"[{n}]") for n in number),
        *((name, "9" * 40) for name in ("records", "needed", "period", "classes")),
        *(("histograms.0.usual", n) for n in number),
        *(("histograms.0.shares.0", n) for n in (*number, "0", "-1")),
        *(("limits.clipped.0", n) for n in (*number[:4], "-1")),
        *((f"limits.{name}", n) for name in ("silent", "faults") for n in number),
        *((f"promise.{name}", n) for name in ("days", "per_day") for n in number[:4]),
    ):
        path.write_text(edited(text, field, value))
        with pytest.raises(ArtefactError, match="is not a baseline"):
            read_baseline(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_baseline(tmp_path / "none")


def test_the_page_stands_alone_and_shows_names_as_text(baseline: Baseline) -> None:
    found = judge(stream(1.06), baseline)
    for channel in found["channels"]:
        channel["layer"] = channel["layer"] and "<script>"
    page = judgement_page(found, "device <7>")
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;script&gt;: spikes" in page
    # What never moves, here clipped and silent, is only listed.
    assert page.count("<svg") == 4 + len(found["histograms"])
    assert "without any change: &lt;script&gt;: clipped, &lt;script&gt;: clipped, silent" in page
    said = lines(found)
    assert said[0] == "verdict: DRIFT (260 records)"
    assert any(line.startswith("drift: <script>: spikes up: ") for line in said)
