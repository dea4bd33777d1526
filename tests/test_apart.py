"""Calls from Python refuse to write where they read, as the command line does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import osbc_deploy
from osbc_deploy.apart import Place, Role, check_apart, path_in
from osbc_deploy.errors import UsageError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.folders import DEPLOYMENT
from osbc_deploy.formats.folder import write_network
from osbc_deploy.testing import random_networks
from osbc_deploy.writing import new_folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formats: NumberFormats) -> Path:
    monkeypatch.chdir(tmp_path)
    network = next(iter(random_networks(1, formats))).network
    with new_folder(Path("image"), DEPLOYMENT) as work:
        write_network(network, work)
    osbc_deploy.export("image", "net.img", format="image", target="loihi2")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("net.img", "output: net.img is what network names, which would be lost"),
        ("./image/../net.img", "is what network names"),
        ("there/net.img", "is what network names"),
    ],
)
def test_an_export_does_not_take_the_place_of_its_network(
    image: Path, output: str, why: str
) -> None:
    (image / "there").symlink_to(image)
    before = digests(image)
    with pytest.raises(UsageError, match=why):
        osbc_deploy.export("net.img", output, format="image", target="loihi2")
    assert digests(image) == before


def test_an_export_does_not_take_a_file_of_the_folder_that_it_reads(image: Path) -> None:
    before = digests(image)
    with pytest.raises(UsageError, match="belongs to image, which network names"):
        osbc_deploy.export("image", "image/network.json", format="image", target="loihi2")
    assert digests(image) == before


def test_compressed_weights_do_not_take_the_place_of_the_trained_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    norse = pytest.importorskip("norse.torch")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(12, 4), norse.LIFBoxCell())
    save_file(net.state_dict(), "net.safetensors")
    spikes = (rng.random((4, 5, 12)) < 0.5).astype(np.uint8)
    np.savez("x.npz", spikes=spikes)
    done = osbc_deploy.compress_model(net, "x.npz", weights="net.safetensors", sparsity=0.5)
    before = digests(tmp_path)
    monkeypatch.chdir("/")
    for name in ("net.safetensors", "x.npz"):
        with pytest.raises(UsageError, match="which would be lost"):
            done.save(tmp_path / name)
    assert digests(tmp_path) == before
    done.save(tmp_path / "small.safetensors")


def test_a_folder_to_go_on_with_is_no_input(tmp_path: Path) -> None:
    for verb in (osbc_deploy.deploy, osbc_deploy.compress_model):
        with pytest.raises(UsageError, match="resume: .* is what weights names"):
            verb("m:net", "x.npz", weights=tmp_path / "state", resume=tmp_path / "state")
    with pytest.raises(UsageError, match="ledger: .* is what calibration names"):
        osbc_deploy.sweep("m:net", tmp_path / "runs", ledger=tmp_path / "runs")


def test_what_leads_to_a_file() -> None:
    assert path_in("model.py:net") == Path("model.py")
    assert path_in("loihi2") is None
    assert path_in("loihi2", named=True) == Path("loihi2")
    assert path_in(3) is None
    check_apart([Place.of("a", Path("a")), Place.of("b", Path("a"))])
    with pytest.raises(UsageError, match="Name another place with b"):
        check_apart([Place.of("a", Path("a")), Place.of("b", Path("a"), Role.FILE)])
