"""The export command, on a network deployed through Python."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import osbc_deploy
from command import osbc
from osbc_deploy.cli.main import cli
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.folders import C_LIBRARY, DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.testing import random_networks
from osbc_deploy.writing import check_folder, new_folder


@pytest.fixture
def folder(tmp_path: Path, formats: NumberFormats) -> Path:
    """A deployed network's folder, without a report."""
    case = next(c for c in random_networks(20, formats, start=3) if "calm" in c.features)
    with new_folder(tmp_path / "out", DEPLOYMENT) as work:
        write_network(case.network, work)
    return tmp_path


def test_a_library_an_image_and_what_they_take(folder: Path) -> None:
    done = osbc("export", "out", "--format", "c", "-o", "fw", "--name", "net", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "measured with gcc" in done.stdout
    assert (folder / "fw" / "net.h").is_file()
    assert (folder / "fw" / C_LIBRARY.marker).is_file()
    done = osbc(
        "export", "out", "--format", "image", "--target", "loihi2", "-o", "net.img", "--json",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["image_bytes"] == (folder / "net.img").stat().st_size
    mapped = osbc("map", "net.img", "--target", "loihi1", cwd=folder)
    plain = osbc("map", "out", "--target", "loihi1", cwd=folder)
    assert mapped.stdout == plain.stdout


@pytest.mark.parametrize("given", [None, 5, b"out", object()])
def test_what_is_no_deployed_network_is_said(given: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"network: a \w+ is not a deployed network\. Give"):
        osbc_deploy.export(given, tmp_path / "fw", format="c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("form", "what"), [("c", "a C library"), ("runtime", "a C runtime")])
def test_what_was_made_from_a_network_is_not_taken_for_it(
    form: str, what: str, folder: Path
) -> None:
    osbc_deploy.export(folder / "out", folder / "made", format=form)
    with pytest.raises(ArtefactError, match=rf"made: is {what} .* it was made from"):
        osbc_deploy.export(folder / "made", folder / "net.img", format="image", target="loihi2")
    assert not (folder / "net.img").exists()


@pytest.mark.parametrize(("there", "wanted"), [("c", "runtime"), ("runtime", "c")])
def test_a_folder_of_another_kind_is_said_to_be_one(there: str, wanted: str, folder: Path) -> None:
    osbc_deploy.export(folder / "out", folder / "made", format=there)
    before = {path.name for path in (folder / "made").iterdir()}
    with pytest.raises(UsageError, match="made: exists and is a folder of another kind"):
        osbc_deploy.export(folder / "out", folder / "made", format=wanted)
    with pytest.raises(UsageError, match="made: exists and is a folder of another kind"):
        check_folder(folder / "made", DEPLOYMENT)
    assert {path.name for path in (folder / "made").iterdir()} == before
    osbc_deploy.export(folder / "out", folder / "made", format=there)


def test_a_broken_image_ends_with_code_6(folder: Path) -> None:
    osbc("export", "out", "--format", "image", "--target", "loihi2", "-o", "a.img", cwd=folder)
    data = bytearray((folder / "a.img").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "a.img").write_bytes(bytes(data))
    for command in (["map", "a.img", "--target", "loihi2"],
                    ["export", "a.img", "--format", "c", "-o", "fw"]):  # fmt: skip
        done = osbc(*command, cwd=folder)
        assert done.returncode == 6
        assert "a.img: broken image" in done.stderr
    assert not (folder / "fw").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "c", "-o", "fw", "--compiler", "nogcc"], 2, "nogcc: is not installed"),
        (["--format", "c", "-o", "fw", "--name", "9"], 2, "cannot be a prefix"),
        # As of a variable of the shell that is not set.
        (["--format", "c", "-o", "fw", "--name", ""], 2, "'' cannot be a prefix"),
        (["--format", "image", "-o", "a.img"], 2, "--target: is missing"),
        (["--format", "image", "--target", "loihi2", "-o", "a.bin"], 2, "Name it a.bin.img"),
        (
            ["--format", "netx", "-o", "a.net", "--samples", "x", "--repeat", "3"],
            2,
            "--samples, --repeat: belong to --format c",
        ),
        (["--format", "image", "--target", "nochip", "-o", "a.img"], 2, "nochip"),
    ],
)
def test_wrong_usage_names_the_remedy(
    arguments: list[str], code: int, said: str, folder: Path
) -> None:
    done = osbc("export", "out", *arguments, cwd=folder)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in folder.iterdir()] == ["out"]


def test_a_net_file_that_is_none_ends_with_code_6(folder: Path) -> None:
    (folder / "a.net").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    np.savez(folder / "data.npz", spikes=np.ones((2, 3, 4), np.uint8))
    for command in (["map", "a.net", "--target", "loihi2"],
                    ["a.net", "--target", "loihi2", "--calibration", "data.npz"]):  # fmt: skip
        done = osbc(*command, cwd=folder)
        assert done.returncode == 6, done.stderr
        assert "a.net: is not a NetX network" in done.stderr


def lava_dl_file(path: Path, rng: np.random.Generator) -> None:
    """Two dense layers of 12, 20 and 5 neurons, as lava-dl writes them."""
    with h5py.File(path, "w") as file:
        for number, (post, pre) in enumerate([(20, 12), (5, 20)]):
            layer = file.create_group(f"layer/{number}")
            layer["type"] = np.array([b"dense"])
            layer["shape"] = np.array([post])
            layer["weight"] = rng.integers(-50, 60, (post, pre))
            for key, value in {"iDecay": 4096, "vDecay": 500, "vThMant": 100}.items():
                layer[f"neuron/{key}"] = value
            layer["neuron/type"] = "CUBA"


def test_a_net_file_is_compressed_and_written_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lava_dl_file(tmp_path / "a.net", rng)
    np.savez(tmp_path / "data.npz", spikes=(rng.random((12, 20, 12)) < 0.3).astype(np.uint8))
    done = osbc(
        "a.net", "--target", "loihi2-netx", "--calibration", "data.npz", "--sparsity", "0.5",
        "--bits", "8", "--backend-samples", "2", "-o", "out", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["fidelity"]["mismatched_spikes"] == 0
    assert any("sparse_fc_layer=True" in d["message"] for d in report["deviations"])
    done = osbc("export", "out", "--format", "netx", "-o", "b.net", cwd=tmp_path)
    assert done.returncode == 0
    assert "hdf5.Network(net_config=..., sparse_fc_layer=True): 2 cores" in done.stdout
    for command in (["out"], ["b.net"]):
        mapped = osbc("map", *command, "--target", "loihi2", cwd=tmp_path)
        assert mapped.returncode == 0, mapped.stderr
    done = osbc(
        "a.net", "--weights", "w.safetensors", "--target", "loihi2", "--calibration", "data.npz",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "holds its own weights" in done.stderr


ROOT = Path(__file__).parents[2]


def commands(page: str, containing: str) -> list[list[str]]:
    """The lines of the first shell block of a page that holds a text, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    block = next(b for b in blocks if containing in b)
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]


def test_the_commands_of_the_pages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What docs/netx.md reads, and what comes of it written again, in one folder."""
    rng = np.random.default_rng(0)
    lava_dl_file(tmp_path / "network.net", rng)
    spikes = (rng.random((12, 20, 12)) < 0.3).astype(np.uint8)
    for name in ("calibration", "samples"):
        np.savez(tmp_path / f"{name}.npz", spikes=spikes)
    asked = commands("docs/netx.md", "map network.net")
    assert len(asked) == 3
    asked.append(["osbc-deploy", "export", "smaller", "--format", "netx", "-o", "again.net"])
    monkeypatch.chdir(tmp_path)
    for program, *arguments in asked:
        assert program == "osbc-deploy"
        if "--target" in arguments and "-o" in arguments:
            arguments += ["--no-tune", "--backend-samples", "0"]
        assert cli.main(arguments, standalone_mode=False) == 0, capsys.readouterr().err
    assert {"again.net", "firmware", "smaller"} <= {p.name for p in tmp_path.iterdir()}
