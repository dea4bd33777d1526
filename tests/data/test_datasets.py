"""Published data sets, read from small files written here byte by byte as their formats say.

Formats: N-MNIST's 40-bit events (Orchard et al. 2015, https://www.garrickorchard.com/datasets);
AEDAT 2.0 and 3.1 (docs.inivation.com, file formats).
"""

from __future__ import annotations

import json
import struct
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import peak
from command import osbc
from osbc_deploy.cli.deploy import deploy_command
from osbc_deploy.cli.main import main
from osbc_deploy.data.datasets import CIFAR10_CLASSES, DATASETS, DatasetRequest, load_dataset
from osbc_deploy.data.events import (
    Events,
    bin_events,
    read_aedat2,
    read_aedat3,
    read_aedat4,
    read_nmnist,
)
from osbc_deploy.errors import ArtefactError, UsageError

needs_tonic = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("tonic") is None,
    reason="tonic is not installed (pip install 'osbc-deploy[datasets]')",
)

Event = tuple[int, int, int, int]
"""x, y, polarity, microseconds."""


def random_events(rng: np.random.Generator, count: int, sensor: int, last: int) -> list[Event]:
    columns = [rng.integers(0, high, count) for high in (sensor, sensor, 2)]
    times = np.sort(rng.integers(0, last, count))
    return [tuple(map(int, row)) for row in np.stack([*columns, times], axis=1)]  # type: ignore[misc]


def nmnist_bytes(events: Sequence[Event]) -> bytes:
    """8 bits x, 8 bits y, 1 bit polarity and 23 bits time, the most significant first."""
    out = bytearray()
    for x, y, p, t in events:
        out += bytes([x, y]) + (p << 23 | t).to_bytes(3, "big")
    return bytes(out)


def aedat2_bytes(addresses: Sequence[tuple[int, int]]) -> bytes:
    head = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    return head + b"".join(struct.pack(">Ii", address, t) for address, t in addresses)


def dvs128_address(x: int, y: int, p: int) -> int:
    """The camera's address of a pixel of the upright picture; ON is 0."""
    return (127 - x) << 8 | (127 - y) << 1 | (1 - p)


def packet(events: Sequence[tuple[int, int]], kind: int = 1, overflow: int = 0) -> bytes:
    n = len(events)
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, n, n, n)
    return head + b"".join(struct.pack("<Ii", word, t) for word, t in events)


def word(x: int, y: int, p: int, valid: int = 1) -> int:
    return x << 17 | y << 2 | p << 1 | valid


AEDAT3_HEAD = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2017-01-01 00:00:00 (TZ+0000)\r\n#!END-HEADER\r\n"
)


def as_list(events: Events) -> list[Event]:
    return list(
        zip(
            events.x.tolist(),
            events.y.tolist(),
            events.polarity.tolist(),
            events.t.tolist(),
            strict=True,
        )
    )


def frames_by_hand(
    events: Sequence[Event], steps: int, sensor: int, size: int, start: int, stop: int
) -> np.ndarray:
    """One event after the other; the step is found by looking where its slice ends."""
    frames = np.zeros((steps, 2, size, size), np.uint8)
    for x, y, p, t in events:
        step = next(k for k in range(steps) if (t - start) * steps < (k + 1) * (stop - start))
        frames[step, p, int(y * size / sensor), int(x * size / sensor)] = 1
    return frames


@needs_tonic
def test_nmnist_events_are_those_written(tmp_path: Path, rng: np.random.Generator) -> None:
    events = random_events(rng, 500, 34, 310_000)
    path = tmp_path / "00001.bin"
    path.write_bytes(nmnist_bytes(events))
    assert as_list(read_nmnist(path)) == events


@needs_tonic
def test_nmnist_overflows_add_their_time(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(nmnist_bytes([(1, 2, 1, 5), (0, 240, 0, 0), (3, 4, 0, 7)]))
    assert as_list(read_nmnist(path)) == [(1, 2, 1, 5), (3, 4, 0, 7 + 2**13)]


def test_aedat2_events_are_those_written(tmp_path: Path, rng: np.random.Generator) -> None:
    events = random_events(rng, 500, 128, 1_300_000)
    written = [(dvs128_address(x, y, p), t) for x, y, p, t in events]
    written.insert(7, (1 << 15, written[6][1]))  # an external event is not a pixel
    path = tmp_path / "cifar10_cat_3.aedat"
    path.write_bytes(aedat2_bytes(written))
    first = events[0][3]
    assert as_list(read_aedat2(path)) == [(x, y, p, t - first) for x, y, p, t in events]


def test_aedat2_stamps_may_run_over(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat2_bytes([(0, 2**31 - 3), (0, -(2**31) + 4)]))
    assert read_aedat2(path).t.tolist() == [0, 7]


def test_aedat3_events_are_those_written(tmp_path: Path, rng: np.random.Generator) -> None:
    events = random_events(rng, 600, 128, 2**31 - 1)
    first = [(word(x, y, p), t) for x, y, p, t in events[:300]]
    second = [(word(x, y, p), t) for x, y, p, t in events[300:]]
    invalid = (word(5, 5, 1, valid=0), 4)
    path = tmp_path / "user01_lab.aedat"
    path.write_bytes(
        AEDAT3_HEAD
        + packet([(0x23232323, 1)] * 3, kind=0)  # special events
        + packet([*first, invalid])
        + packet(second, overflow=1)
    )
    expected = events[:300] + [(x, y, p, t + 2**31) for x, y, p, t in events[300:]]
    assert as_list(read_aedat3(path)) == expected


@pytest.mark.parametrize(("sensor", "size"), [(34, 34), (128, 48), (34, 10)])
@pytest.mark.parametrize("steps", [1, 7, 15])
def test_binning_against_one_event_after_the_other(
    rng: np.random.Generator, sensor: int, size: int, steps: int
) -> None:
    written = random_events(rng, 400, sensor, 1000)
    events = Events("x", *np.array(written).T)
    start, stop = written[0][3], written[-1][3] + 1
    expected = frames_by_hand(written, steps, sensor, size, start, stop)
    np.testing.assert_array_equal(bin_events(events, steps, sensor, size), expected)
    inside = [e for e in written if 200 <= e[3] < 611]
    expected = frames_by_hand(inside, steps, sensor, size, 200, 611)
    np.testing.assert_array_equal(bin_events(events, steps, sensor, size, (200, 611)), expected)


@pytest.mark.parametrize(("number", "steps", "size"), [(400, 7, 34), (403, 100, 10), (9, 9, 34)])
def test_counts_and_steps_by_number_against_one_event_after_the_other(
    rng: np.random.Generator, number: int, steps: int, size: int
) -> None:
    """As SpikingJelly's frames of ``split_by="number"``: M steps of floor(N / M) events."""
    written = random_events(rng, number, 34, 1000)
    expected = np.zeros((steps, 2, size, size), int)
    each = number // steps
    for k, (x, y, p, _) in enumerate(written):
        expected[min(k // each, steps - 1), p, y * size // 34, x * size // 34] += 1
    events = Events("x", *np.array(written).T)
    found = bin_events(events, steps, 34, size, split="number", count=True)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == number
    found = bin_events(events, steps, 34, size, split="number")
    np.testing.assert_array_equal(found, expected > 0)
    # By time, as many events are counted as there are, wherever frames are 1.
    found = bin_events(events, steps, 34, size, count=True)
    assert found.sum() == number
    np.testing.assert_array_equal(found > 0, bin_events(events, steps, 34, size))
    with pytest.raises(ArtefactError, match=f"holds {number} events, {number + 1} steps by number"):
        bin_events(events, number + 1, 34, split="number")


AEDAT3_FULL = AEDAT3_HEAD + packet([(word(1, 2, 1), 3), (word(3, 2, 1), 4)])


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        pytest.param(read_nmnist, b"four", "within an event", marks=needs_tonic),
        (read_aedat2, aedat2_bytes([(1, 1)])[:-3], "within an event"),
        (read_aedat2, AEDAT3_FULL, "begins with '#!AER-DAT3.1"),
        (read_aedat2, b"", "begins with ''"),
        (read_aedat2, b"#!AER-DAT2.0\r\n# no end", "within its header"),
        (read_aedat2, aedat2_bytes([(1 << 20, 1)]), "addresses up to 0x100000"),
        (read_aedat3, aedat2_bytes([(1, 1)]), "begins with '#!AER-DAT2.0"),
        (read_aedat3, AEDAT3_HEAD[:30], "header"),
        (read_aedat3, b"#!AER-DAT3.1\r\n\1\1\1", "no last line '#!END-HEADER'"),
        (read_aedat3, AEDAT3_HEAD, "no packet of polarity events"),
        (read_aedat3, AEDAT3_FULL[:-1], "packet of 2 events"),
        (read_aedat3, AEDAT3_FULL + b"\1\0\1", "header of a packet"),
        (
            read_aedat3,
            AEDAT3_HEAD + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, -1, 0),
            "-1 of 1 events of 8 bytes",
        ),
        (
            read_aedat3,
            AEDAT3_HEAD + struct.pack("<hhiiiiii", 1, 1, 0, 4, 0, 9, 9, 9),
            "9 events of 0 bytes",
        ),
    ],
)
def test_a_broken_file_is_named(
    tmp_path: Path, read: Callable[[Path], Events], content: bytes, words: str
) -> None:
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("read", "content"),
    [
        pytest.param(
            read_aedat2,
            aedat2_bytes([(dvs128_address(1, 2, 1), 5), (dvs128_address(3, 4, 0), 9)]),
            id="aedat2",
        ),
        pytest.param(
            read_aedat3, AEDAT3_FULL + packet([(word(9, 9, 0), 7)], overflow=1), id="aedat3"
        ),
    ],
)
def test_whatever_is_damaged_is_read_or_refused(
    tmp_path: Path, rng: np.random.Generator, read: Callable[[Path], Events], content: bytes
) -> None:
    damaged = [content[:length] for length in range(len(content))]
    for _ in range(400):
        changed = bytearray(content)
        # Mostly behind the header, where the numbers are.
        changed[-int(rng.integers(1, min(90, len(content)) + 1))] = int(rng.integers(256))
        damaged.append(bytes(changed))
    path = tmp_path / "damaged.aedat"
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            frames = bin_events(read(path), 5, 128)
        except ArtefactError as error:
            refused += str(path) in str(error)
        else:
            assert frames.any()
    assert len(content) // 2 < refused < len(damaged)


def test_events_outside_the_sensor_and_none_at_all() -> None:
    column = np.array([34])
    zero = np.zeros(1)
    with pytest.raises(ArtefactError, match="1 of 1 events are outside the sensor .x up to 34"):
        bin_events(Events("x", column, zero, zero, zero), 5, 34)
    with pytest.raises(ArtefactError, match="x from 5 to 9 us: holds no events"):
        bin_events(Events("x", zero, zero, zero, zero), 5, 34, interval=(5, 9))
    two = np.zeros(2)
    with pytest.raises(ArtefactError, match="span 4.61e.12 s"):
        bin_events(Events("x", two, two, two, np.array([0, 2**62])), 5, 34)


@pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("aedat") is not None, reason="aedat is installed"
)
@needs_tonic
def test_aedat4_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pip install aedat"):
        read_aedat4(tmp_path / "a.aedat4")


def test_without_tonic_the_command_that_adds_it_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(UsageError, match=r"pip install 'osbc-deploy\[datasets\]'"):
        read_nmnist(tmp_path / "a.bin")


def write_nmnist(base: Path, train: int, test: int) -> dict[str, list[Event]]:
    """A small N-MNIST in which a digit d fires in the columns from 3 d on; events by file."""
    rng = np.random.default_rng(0)
    written = {}
    for part, count in (("Train", train), ("Test", test)):
        for digit in range(10):
            folder = base / part / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                events = [
                    (int(x), int(y), int(p), int(t))
                    for x, y, p, t in zip(
                        3 * digit + rng.integers(0, 4, 300),
                        rng.integers(0, 34, 300),
                        rng.integers(0, 2, 300),
                        np.sort(rng.integers(0, 300_000, 300)),
                        strict=True,
                    )
                ]
                path = folder / f"{number:05d}.bin"
                path.write_bytes(nmnist_bytes(events))
                written[str(path)] = events
    return written


@needs_tonic
def test_nmnist_is_balanced_and_hangs_on_the_seed_alone(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "NMNIST", train=4, test=2)
    request = DatasetRequest("nmnist", tmp_path, steps=5, samples_per_class=2)
    first = load_dataset(request, "train", seed=3)
    again = load_dataset(request, "train", seed=3)
    other = load_dataset(request, "train", seed=4)
    assert first.spikes.shape == (20, 5, 2, 34, 34)
    assert first.labels is not None
    assert first.labels.tolist() == [*range(10)] * 2
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    test = load_dataset(request, "test")
    assert test.labels is not None
    assert test.labels.tolist() == [*range(10)] * 2
    for raster, label in zip(test.spikes, test.labels.tolist(), strict=True):
        columns = np.flatnonzero(raster.any(axis=(0, 1, 2)))
        assert columns.tolist() == [3 * label + k for k in range(4)]


def write_cifar10dvs(base: Path, count: int, classes: Sequence[str] = CIFAR10_CLASSES) -> None:
    """Recording k of a class fires in column k."""
    for name in classes:
        (base / name).mkdir(parents=True)
        for k in range(count):
            content = aedat2_bytes([(dvs128_address(k, 1, 1), 10), (dvs128_address(k, 2, 0), 20)])
            (base / name / f"cifar10_{name}_{k}.aedat").write_bytes(content)


def test_cifar10dvs_splits_each_class_by_number(tmp_path: Path) -> None:
    write_cifar10dvs(tmp_path, 12)
    request = DatasetRequest("cifar10dvs", tmp_path, steps=2, samples_per_class=None)
    train, test = (load_dataset(request, part) for part in ("train", "test"))
    assert (len(train), len(test)) == (100, 20)
    assert test.labels is not None
    assert test.labels.tolist() == [*range(10)] * 2
    # 10 comes after 9, not after 1.
    assert np.flatnonzero(train.spikes.any(axis=(0, 1, 2, 3))).tolist() == [*range(10)]
    assert np.flatnonzero(test.spikes.any(axis=(0, 1, 2, 3))).tolist() == [10, 11]
    for raster in test.spikes:
        assert raster[0, 1, 1].sum() == raster[1, 0, 2].sum() == 1
        assert raster.sum() == 2


def write_gestures(base: Path, trials: dict[str, list[tuple[int, int, int]]]) -> None:
    """Every recording fires at pixel (gesture, step of 100 us) in its trials."""
    for name, labelled in trials.items():
        events = [
            (word(gesture, k, k % 2), t)
            for gesture, start, stop in labelled
            for k, t in enumerate(range(start, stop, 100))
        ]
        (base / f"{name}.aedat").write_bytes(AEDAT3_HEAD + packet(events))
        rows = "".join(f"{g},{start},{stop}\n" for g, start, stop in labelled)
        text = "class,startTime_usec,endTime_usec\n" + rows
        (base / f"{name}_labels.csv").write_text(text)


def test_gestures_are_cut_out_of_their_recordings(tmp_path: Path) -> None:
    base = tmp_path / "DvsGesture"
    base.mkdir()
    train = [(g, 1000 * g, 1000 * g + 400) for g in range(1, 12)]
    test = [(g, 500 * g, 500 * g + 200) for g in range(11, 0, -1)]
    write_gestures(base, {"user01_led": train, "user24_lab": test})
    (base / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (base / "trials_to_test.txt").write_text("user24_lab.aedat\n\n")
    request = DatasetRequest("dvs128gesture", tmp_path, steps=4, samples_per_class=1)
    samples = load_dataset(request, "train")
    assert samples.labels is not None
    assert samples.labels.tolist() == [*range(11)]
    for gesture, raster in enumerate(samples.spikes, start=1):
        found = np.argwhere(raster).tolist()
        assert found == [[k, k % 2, k, gesture] for k in range(4)]
    assert load_dataset(request, "test").spikes.sum() == 11 * 2
    small = DatasetRequest("dvs128gesture", tmp_path, steps=4, size=32, samples_per_class=1)
    assert load_dataset(small, "train").spikes.shape == (11, 4, 2, 32, 32)

    (base / "user01_led_labels.csv").write_text("class,a,b\n12,1,2\n")
    with pytest.raises(ArtefactError, match=r"labels\.csv: line 2 is '12,1,2', needed class"):
        load_dataset(request, "train")
    (base / "user01_led_labels.csv").unlink()
    with pytest.raises(UsageError, match=r"1 of their files are missing \(.*_labels\.csv\)"):
        load_dataset(request, "train")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps: 0 is less than 1"),
        ({"steps": 10**15, "samples_per_class": 1}, "needs .* of memory"),
        ({"steps": 10**19, "samples_per_class": 1}, "needs .* of memory"),
        ({"size": 129}, "size: 129 is outside 1 to 128"),
        ({"size": 0}, "size: 0 is outside"),
        ({"samples_per_class": 0}, "samples per class: 0"),
        ({"test_samples_per_class": -1}, "samples per class: -1"),
        ({"samples_per_class": 10}, r"train part has too few .* \(0 holds 9, .*10 of each"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    write_cifar10dvs(tmp_path, 10)
    with pytest.raises(UsageError, match=words):
        load_dataset(DatasetRequest("cifar10dvs", tmp_path, **options), "train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    for name in ("nmnist", "cifar10dvs", "dvs128gesture"):
        for root, words in ((tmp_path / "no", "no such folder"), (tmp_path, "needed in it")):
            with pytest.raises(UsageError, match=words) as caught:
                load_dataset(DatasetRequest(name, root), "train")
            assert str(caught.value).startswith(f"{root}: ")
    write_cifar10dvs(tmp_path, 2, [name for name in CIFAR10_CLASSES if name not in ("cat", "dog")])
    # What is there is taken, under the numbers that its classes have.
    some = load_dataset(DatasetRequest("cifar10dvs", tmp_path, samples_per_class=1), "train")
    assert some.labels is not None
    assert some.labels.tolist() == [0, 1, 2, 4, 6, 7, 8, 9]
    (tmp_path / "Train").mkdir()
    with pytest.raises(UsageError, match=r"Train.0, .*Train.9: no such folder"):
        load_dataset(DatasetRequest("nmnist", tmp_path), "train")
    (tmp_path / "Train" / "3").mkdir()
    with pytest.raises(UsageError, match="nmnist: the train part has no recordings"):
        load_dataset(DatasetRequest("nmnist", tmp_path, samples_per_class=None), "train")


MODEL = """
    import norse.torch as norse
    import torch
    from torch import nn

    def net():
        # A digit d fires in the columns 3 d to 3 d + 3; output d sums the inner two.
        weight = torch.zeros(10, 2, 34, 34)
        for d in range(10):
            weight[d, :, :, 3 * d + 1 : 3 * d + 3] = 0.3
        layers = norse.SequentialState(
            nn.Flatten(), nn.Linear(2312, 10, bias=False), norse.IAFCell()
        )
        layers[1].weight.data = weight.flatten(1)
        return layers
"""


@needs_tonic
def test_a_network_deploys_on_nmnist_by_command_line(tmp_path: Path) -> None:
    (tmp_path / "mymodel.py").write_text(textwrap.dedent(MODEL))
    written = write_nmnist(tmp_path / "data", train=2, test=1)
    model = [f"{tmp_path / 'mymodel.py'}:net", "--target", "loihi2-sim", "--backend", "engine"]
    data = ["--dataset", "nmnist", "--data-root", str(tmp_path / "data"), "--steps", "10"]
    asked = [*model, *data, "--samples-per-class", "2", "--sparsity", "0.5", "--no-tune", "--json"]
    done = osbc(*asked)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy"]["data"] == "nmnist/test"
    assert report["accuracy"]["samples"] == 10
    assert report["accuracy"]["float"] == report["accuracy"]["fixed_point"] == 1.0
    # Before anything is read: the folder is wrong, too.
    assert "nope" in osbc(*asked, "--data-root", tmp_path, "--backend", "nope").stderr
    broken = Path(next(iter(written)))
    broken.write_bytes(b"abc")
    done = osbc(*asked)
    assert done.returncode == ArtefactError.exit_code
    assert f"{broken}: ends within an event" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["m.py:f", "--dataset", "nmnist"], "--data-root: is missing"),
        (["m.py:f", "--steps", "3", "--data-root", "x"], "--data-root, --steps: needs --dataset"),
        (["--dataset", "nmnist", "--data-root", "x"], "--dataset: needs a MODEL"),
        (
            ["m.py:f", "--dataset", "nmnist", "--data-root", "x", "--test", "a.npz"],
            "Leave --test out",
        ),
        (["m.py:f", "--dataset", "nmnist", "--data-root", "x", "--steps", "0"], "less than 1"),
    ],
)
def test_options_that_make_no_sense_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("deploy", "fit"):
        with pytest.raises(SystemExit) as caught:
            main([command, *options, "--target", "loihi2-sim"])
        assert caught.value.code == UsageError.exit_code
        assert words in capsys.readouterr().err


def test_the_command_line_offers_all_data_sets() -> None:
    offered = next(p for p in deploy_command.params if p.name == "dataset").type
    assert isinstance(offered, click.Choice)
    assert list(offered.choices) == list(DATASETS)


def test_recordings_take_no_more_than_the_limit(tmp_path: Path, rng: np.random.Generator) -> None:
    def recording(name: str, events: int) -> Path:
        stamps = np.arange(events)
        if name.endswith("2"):
            head, kind = b"#!AER-DAT2.0\r\n", ">u4"
            body = np.stack([rng.integers(0, 2**15, events), stamps], 1).astype(kind).tobytes()
        else:
            # A packet for every event: the most that a byte of a file can become.
            head = b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
            body = b"".join(packet([(word(1, 2, 1), t)]) for t in stamps.tolist())
        (tmp_path / name).write_bytes(head + body)
        return tmp_path / name

    kept = [recording("small.2", 400_000), recording("small.3", 90_000)]
    imports = "from osbc_deploy.data.events import bin_events, read_aedat2, read_aedat3"
    read = "bin_events({'.2': read_aedat2, '.3': read_aedat3}[path.suffix](path), 15, 128)"
    for size, said in peak.reading(imports, read, kept):
        assert said == ""
        assert 0 < size < peak.LIMIT
    large = tmp_path / "large.3"
    with large.open("wb") as file:
        file.truncate(8 * 2**20)
    peak.assert_refused(imports, read, {large: "large.3: needs 128.00 MiB of memory"})
    steps = f"bin_events(read_aedat2(path), {10**12}, 128)"
    peak.assert_refused(imports, steps, {kept[0]: "needs 30,517,578.13 GiB of memory"})
