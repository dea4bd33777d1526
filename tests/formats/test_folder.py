"""Artefacts are whole or absent, and nothing in them is trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peak
from osbc_deploy.errors import ArtefactError, UsageError
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import (
    FixedConv,
    FixedDense,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
    Pooling,
)
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import network_digest, read_network, write_network
from osbc_deploy.testing import random_networks
from osbc_deploy.writing import new_folder


@pytest.fixture
def network(formats: Any, rng: Any) -> FixedPointNetwork:
    def neurons(name: str, shape: tuple[int, ...], spiking: bool) -> FixedPopulation:
        size = int(np.prod(shape))
        draw = lambda top: rng.integers(0, top, size)  # noqa: E731
        return FixedPopulation(
            name,
            shape,
            draw(4096),
            draw(4096),
            draw(900),
            draw(50),
            draw(8),
            draw(99),
            draw(99),
            spiking,
            rng.random(size),
            rng.random(size),
        )

    conv = FixedConv(2 * rng.integers(-9, 9, (4, 1, 3, 2)), (2, 1), (1, 0), (1, 1), 2)
    dense = FixedDense(32 * rng.integers(-8, 8, (3, 4 * 3 * 4)))
    return FixedPointNetwork(
        (2, 5, 5),
        (neurons("a.0", (4, 3, 4), True), neurons("b", (3,), False)),
        (
            FixedProjection("x.0", "input", "a.0", conv, 8, 2),
            FixedProjection("y", "a.0", "b", dense, 4, -1),
        ),
        formats,
        "max",
    )


def test_what_is_read_back_computes_the_same(network: Any, tmp_path: Path, rng: Any) -> None:
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(network, folder)
    back = read_network(tmp_path / "out")
    spikes = (rng.random((3, 9, 2, 5, 5)) < 0.5).astype(np.uint8)
    assert np.array_equal(run(back, spikes).output, run(network, spikes).output)
    assert back.readout == "max"
    assert back.formats == network.formats


def test_what_is_read_back_has_the_same_digest(formats: Any, tmp_path: Path) -> None:
    cases = random_networks(20, formats)
    for number, case in enumerate(cases):
        with new_folder(tmp_path / str(number), DEPLOYMENT) as folder:
            write_network(case.network, folder)
        assert network_digest(read_network(tmp_path / str(number))) == network_digest(case.network)
    drawn = {feature for case in cases for feature in case.features}
    assert drawn >= {"conv", "dense", "delays", "graded input"}


def edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "network.json").read_text())
    change(manifest)
    (folder / "network.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="other/1"),
        lambda m: m.pop("formats"),
        lambda m: m["formats"].update(extra=1),
        lambda m: m["populations"][0].update(shape=[4, 3, 5]),
        lambda m: m["populations"][0].update(shape=[-4, -3, 4]),
        lambda m: m["populations"].pop(),
        lambda m: m["projections"][0].update(kind="lambda"),
        lambda m: m["projections"][0].update(name="../y"),
        lambda m: m["projections"][0].update(stride="x"),
        lambda m: m["projections"][0].update(stride=[1]),
        lambda m: m["projections"][0].update(stride=[1, 1, 1]),
        lambda m: m["projections"][0].update(padding=1),
        lambda m: m["projections"][0].update(groups=[1]),
        lambda m: m["projections"][1].update(pre="nowhere"),
        lambda m: m["projections"][1].update(kind="conv"),
        lambda m: m.update(input_shape=[7]),
        lambda m: m.update(readout="guess"),
        lambda m: m.update(note="not of the format"),
        lambda m: m["populations"][0].update(reset_interval=0.5),
        lambda m: m["populations"][0].update(spiking=1),
        lambda m: m["projections"][0].update(graded="no"),
        lambda m: m["formats"].update(decay_bits=2**62),
        lambda m: m["formats"].update(state_bits=-1),
    ],
)
def test_a_tampered_manifest_is_refused(network: Any, tmp_path: Path, change: Any) -> None:
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(network, folder)
    edit(tmp_path / "out", change)
    with pytest.raises(ArtefactError, match="out: "):
        read_network(tmp_path / "out")


def test_a_pooling_is_written_down_and_not_believed(network: Any, tmp_path: Path) -> None:
    conv, dense = network.projections
    weight = np.kron(2 * np.arange(12).reshape(3, 4, 1, 1), np.ones((1, 1, 3, 4), int))
    pooled = replace(dense, connection=FixedDense(weight.reshape(3, -1)), weight_bits=8,
                     pooling=Pooling((3, 4)))  # fmt: skip
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(replace(network, projections=(conv, pooled)), folder)
    assert read_network(tmp_path / "out").projections[1].pooling == Pooling((3, 4))
    for window in ([3, 2, 1], [0, 4], [1, 2, "x"], 7, [10**9] * 2, [10**40] * 2, [3, 5]):
        edit(tmp_path / "out", lambda m, w=window: m["projections"][1]["pooling"].update(window=w))
        with pytest.raises(ArtefactError, match="inconsistent network|integer of 133 bits"):
            read_network(tmp_path / "out")


@pytest.mark.parametrize("name", ["network.json", "network.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"[1]"])
def test_damaged_files_are_refused(network: Any, tmp_path: Path, name: str, content: bytes) -> None:
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(network, folder)
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(ArtefactError, match="Deploy again"):
        read_network(tmp_path / "out")


def test_a_failed_write_leaves_what_was_there(network: Any, tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(network, folder)
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir())
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        (folder / "network.json").write_text(f"half {1 / 0}")
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        with (
            pytest.raises(UsageError, match="not written by osbc-deploy"),
            new_folder(path, DEPLOYMENT),
        ):
            pass
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


def test_files_that_become_too_much_are_refused_before_they_are_read(
    network: Any, tmp_path: Path
) -> None:
    bombs = {}

    def artefact(name: str, file: str, content: bytes, hole: int = 0) -> Path:
        path = tmp_path / name
        with new_folder(path, DEPLOYMENT) as folder:
            write_network(network, folder)
        with (path / file).open("wb") as opened:
            opened.write(content)
            opened.truncate(max(len(content), hole))
        return path

    lists = b"[" + b"[[]]," * (2 * 2**20 // 5) + b"1]"
    names = {f"{n:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(70_000)}
    header = json.dumps(names).encode()
    bombs[artefact("lists", "network.json", lists)] = "network.json: needs 80.01 MiB"
    bombs[artefact("hole", "network.json", b"{", 2**40)] = "network.json: needs 40,960.00 GiB"
    bombs[artefact("arrays", "network.safetensors", b"", 2**40)] = "safetensors: needs 2,048.00 G"
    content = len(header).to_bytes(8, "little") + header
    bombs[artefact("names", "network.safetensors", content)] = "network.safetensors: needs"
    for path in list(bombs):
        assert sum(p.stat().st_blocks * 512 for p in path.iterdir()) < 8 * 2**20
    peak.assert_refused(
        "from osbc_deploy.formats.folder import read_network\nimport safetensors.numpy",
        "read_network(path)",
        bombs,
    )


def test_a_folder_put_aside_by_a_run_that_was_killed_is_read(network: Any, tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", DEPLOYMENT) as folder:
        write_network(network, folder)
    (tmp_path / "out").rename(tmp_path / ".out.osbc-deploy-old")
    assert read_network(tmp_path / "out").readout == "max"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
