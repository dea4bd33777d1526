"""Own data on a deployed network: the engine, the runtime on this computer, and on a Cortex-M4."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import osbc_deploy
from osbc_deploy.cli.main import cli
from osbc_deploy.errors import UsageError
from osbc_deploy.firmware.about import about
from osbc_deploy.firmware.blob import write_blob
from osbc_deploy.firmware.machine import MACHINES
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.firmware.restore import network_of
from osbc_deploy.firmware.runtime import export_runtime
from osbc_deploy.firmware.tables import lay_out
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.model.readout import decode
from osbc_deploy.release.selftest import SelfTest
from osbc_deploy.running.run import places
from osbc_deploy.testing import Case, random_networks
from osbc_deploy.testing.backends import engine_states
from osbc_deploy.writing import new_folder


def osbc(*arguments: Any) -> Result:
    done = CliRunner().invoke(cli, ["run", *map(str, arguments)], standalone_mode=False)
    done.exit_code = getattr(done.exception, "exit_code", done.exit_code or done.return_value or 0)
    return done


@pytest.fixture(scope="module")
def cases(formats: NumberFormats) -> list[Case]:
    return random_networks(16, formats, start=30)


@pytest.mark.parametrize("number", range(16))
def test_the_engine_runs_what_a_blob_holds(number: int, cases: list[Case]) -> None:
    """Of a network that only a blob is left of: s, u and v, names and readout or none."""
    case = cases[number]
    data = write_blob(case.network, lay_out(case.network))
    expected = engine_states(case)
    for known in (None, about(case.network, data)):
        network = network_of(read_blob(data), known)
        names = [p.name for p in network.populations]
        spikes = case.spikes.reshape(*case.spikes.shape[:2], *network.input_shape)
        found = run(network, spikes, record=names, states=names)
        assert np.array_equal(found.output, expected.output), case.features
        for p, name in zip(case.network.populations, names, strict=True):
            assert np.array_equal(found.v[name], expected.v[p.name])
            assert np.array_equal(found.u[name], expected.u[p.name])
        assert (network.readout, network.input) == (case.network.readout, case.network.input)
    assert network.layers == case.network.layers


@pytest.fixture
def place(cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network in three forms, and data with labels."""
    monkeypatch.chdir(tmp_path)
    case = next(c for c in cases if c.network.input.kind == "spikes" and "calm" in c.features)
    with new_folder(tmp_path / "net", DEPLOYMENT) as work:
        write_network(case.network, work)
    export_runtime(case.network, tmp_path / "rt")
    random = np.random.default_rng(0)
    spikes = (random.random((30, *case.spikes.shape[1:])) < 0.4).astype(np.uint8)
    output = run(case.network, spikes).output
    found = decode(output, case.network.readout, spiking=case.network.output.spiking)
    # Two in three are right.
    labels = np.where(np.arange(30) % 3, np.maximum(found, 0), 0)
    np.savez("data.npz", spikes=spikes, labels=labels)
    return tmp_path


def load() -> dict[str, Any]:
    with np.load("data.npz") as stored:
        return dict(stored)


def needs(name: str) -> Any:
    missing = MACHINES[name].missing if name in MACHINES else []
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"{missing} missing"))


@pytest.mark.parametrize("on", ["engine", needs("host-c"), needs("qemu-m4")])
def test_every_place_gives_the_same_answers(on: str, place: Path) -> None:
    data = load()
    reports = []
    # A machine's program is built for each.
    images = {"host-c": ["net"], "qemu-m4": ["rt/network.bin"]}
    for image in images.get(on, ["net", "rt/network.bin", "rt"]):
        done = osbc(image, "--test", "data.npz", "--on", on, "--json", "--golden", "g", "-q")
        assert done.exit_code == 0, done.exception
        reports.append(json.loads(done.stdout))
        assert reports[-1].pop("image") == image
    assert all(report == reports[0] for report in reports)
    report = reports[0]
    network = network_of(read_blob((place / "rt/network.bin").read_bytes()))
    expected = run(network, data["spikes"].reshape(30, -1, *network.input_shape)).output
    classes = decode(expected, network.readout, spiking=network.output.spiking)
    assert [-1 if a["class"] is None else a["class"] for a in report["answers"]] == list(classes)
    assert report["accuracy"] == np.mean(classes == data["labels"])
    for row in report["classes"]:
        mine = classes[data["labels"] == row["class"]]
        assert row["samples"] == len(mine)
        assert row["right"] == np.count_nonzero(mine == row["class"])
        assert row["no_answer"] == np.count_nonzero(mine < 0)
        assert row["answers"] == [np.count_nonzero(mine == c) for c in range(len(row["answers"]))]
    assert report["engine_differs"] == (None if on == "engine" else 0)
    assert (place / "g" / "outputs.bin").read_bytes() == expected.astype("<i4").tobytes()
    vectors = SelfTest.unpack((place / "g" / "selftest.bin").read_bytes())
    assert vectors.failures(network) == 0
    assert len(vectors.crcs) == 30


def test_picked_samples_are_golden_for_the_exported_program(place: Path) -> None:
    done = osbc("net", "--test", "data.npz", "--pick", "29,3-4", "--golden", "g")
    assert done.exit_code == 0, done.exception
    said = json.loads((place / "g" / "golden.json").read_text())
    data = load()
    assert said["samples"] == [29, 3, 4]
    assert said["labels"] == list(data["labels"][[29, 3, 4]])
    head = np.array([3, data["spikes"].shape[1]], "<u4").tobytes()
    rasters = (place / "g" / "rasters.bin").read_bytes()
    assert rasters == head + data["spikes"][[29, 3, 4]].tobytes()
    subprocess.run(["make", "-s", "CFLAGS=-O0", "osbc_host"], cwd=place / "rt", check=True)
    program = ["rt/osbc_host", "rt/network.bin", "g/rasters.bin", "out"]
    subprocess.run(program, check=True)
    assert (place / "out").read_bytes() == (place / "g" / "outputs.bin").read_bytes()
    # Data without labels have answers, and no accuracy.
    np.savez("bare.npz", spikes=data["spikes"])
    done = osbc("rt", "--test", "bare.npz")
    assert "answers" in done.stdout
    assert "accuracy" not in done.stdout


def test_what_is_refused_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    data, blob = load(), (place / "rt" / "network.bin").read_bytes()
    np.savez("wide.npz", spikes=np.ones((2, 3, 77), np.uint8))
    np.savez("high.npz", spikes=data["spikes"], labels=np.full(30, 999))
    (place / "torn").write_bytes(blob[:-1])
    (place / "flipped.bin").write_bytes(b"\0" + blob[1:])
    (place / "signed").write_bytes(b"OSBR" + bytes(300))
    (place / "lib").mkdir()
    (place / "lib" / "firmware.json").write_text("{}")
    before = sorted(place.iterdir())
    for image, more, code, said in (
        ("none", "", 2, "none: is not there. Name a folder written with -o"),
        ("net", "--test none.npz", 2, "none.npz: no such file"),
        ("lib", "", 6, "lib: is a C library with its network compiled in"),
        ("signed", "", 6, "signed: is a signed release"),
        ("data.npz", "", 6, "data.npz: is no network: it does not begin with OSBCNET"),
        ("flipped.bin", "", 6, "flipped.bin: is no network: it does not begin with OSBCNET"),
        ("net", "--test /dev/null", 6, "/dev/null: is not a regular file"),
        ("net", "--test net", 2, "net: is a folder. Name a file"),
        ("torn", "", 6, "torn: blob: has"),
        ("net", "--target loihi1", 2, "--target: net holds its own registers"),
        ("net", "--test wide.npz", 2, "wide.npz: samples have shape (77,) per time step"),
        ("net", "--test high.npz", 6, "high.npz: labels go up to 999"),
        ("net", "--pick 30", 2, "pick: 30 is outside 0 to 29"),
        ("net", "--pick 0-3,2-5", 2, "pick: 0-3,2-5 names sample 2 more than once"),
        ("net", "--pick 1-x", 2, "pick: '1-x' is neither"),
        ("net", "--time-limit nan", 2, "time limit: nan is not a finite number above 0"),
        ("net", "--time-limit inf --on host-c", 2, "time limit: inf is not a finite number"),
        ("net", "--time-limit 0", 2, "time limit: 0 is not a number above 0"),
        ("net", "--golden net", 2, "--golden: net is what IMAGE names"),
        ("net", "--on host-c", 2, "host-c: gcc cannot be found. Install gcc."),
        ("net", "--on qemu-m4", 2, "arm-none-eabi-gcc and qemu-system-arm cannot be found"),
    ):
        done = osbc(image, "--test", "data.npz", *more.split())
        assert said in str(done.exception), done.output
        assert done.exit_code == code
        assert sorted(place.iterdir()) == before


def test_numbers_of_samples_are_read_in_their_order() -> None:
    assert places("3, 0-1,2", 4) == [3, 0, 1, 2]


def test_a_network_deployed_on_a_target_of_ones_own_is_run_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder holds all registers; only what is laid out for the chip needs its description."""
    monkeypatch.chdir(tmp_path)
    norse = pytest.importorskip("norse.torch")
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(12, 6), norse.LIFBoxCell(), nn.Linear(6, 3))
    spikes = (rng.random((6, 5, 12)) < 0.4).astype(np.uint8)
    np.savez("x.npz", spikes=spikes)
    for name in ("mine", "loihi2"):
        Path("chip.toml").write_text(
            f'schema = 1\nname = "{name}"\ninherits = "loihi2"\ntitle = "mine"\n'
            '[sources]\nme = "x"\n[memory.caps]\n'
            'synapses = { value = 9000, unit = "words", grade = "assumed", source = "me" }\n'
        )
        done = osbc_deploy.deploy(
            net, spikes, target="chip.toml", tune=False, backend_samples=0, sparsity=0.5
        )
        done.save("own")
        ran = osbc("own", "--test", "x.npz", "-q")
        assert ran.exit_code == 0, ran.output
        for form in ("c", "runtime"):
            osbc_deploy.export("own", f"{name}-{form}", format=form)
        with pytest.raises(UsageError, match="Give it, or the file that describes it"):
            osbc_deploy.export("own", f"{name}.img", format="image")
        osbc_deploy.export("own", f"{name}.img", format="image", target="chip.toml")
