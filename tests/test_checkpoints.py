"""Weights come from files as they were saved, and nothing in a file runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from osbc_deploy.errors import ArtefactError
from osbc_deploy.limits import VARIABLE
from osbc_deploy.references import load_weights


def made(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))


class Wrapped(nn.Module):
    """What DataParallel, torch.compile and others make of names."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)


SAVED: dict[str, Callable[[nn.Module], Any]] = {
    "state dict": lambda m: m.state_dict(),
    "state_dict": lambda m: {"epoch": 3, "state_dict": m.state_dict(), "lr": [0.1]},
    "model": lambda m: {"model": m.state_dict(), "optimizer": {"state": {}, "param_groups": []}},
    "another name": lambda m: {"best": m.state_dict(), "accuracy": 0.5},
    "module.": lambda m: nn.DataParallel(m).state_dict(),
    "_orig_mod.": lambda m: Wrapped("_orig_mod", m).state_dict(),
    "both": lambda m: Wrapped("module", Wrapped("_orig_mod", m)).state_dict(),
    "compiled inside": lambda m: nn.Sequential(m[0], Wrapped("_orig_mod", m[1])).state_dict(),
    "net.": lambda m: {"state_dict": Wrapped("net", m).state_dict()},
}


@pytest.mark.parametrize("form", SAVED)
@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_are_read_in_the_forms_they_are_saved_in(
    form: str, old: bool, tmp_path: Path
) -> None:
    source, target = made(1), made(2)
    path = tmp_path / "net.pth"
    torch.save(SAVED[form](source), path, _use_new_zipfile_serialization=not old)
    load_weights(target, path)
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_a_header_of_safetensors_of_any_length_is_none_of_a_pickle(tmp_path: Path) -> None:
    source, path, lengths = made(1), tmp_path / "net.safetensors", set()
    for pad in range(300):
        save_file(source.state_dict(), path, {"about": "x" * pad})
        lengths.add(path.read_bytes()[0])
        target = made(2)
        load_weights(target, path)
        assert torch.equal(source.state_dict()["0.weight"], target.state_dict()["0.weight"])
    # 0x80 is how a pickle begins.
    assert 0x80 in lengths


def test_a_checkpoint_of_a_graphics_card_comes_to_the_cpu(tmp_path: Path) -> None:
    source, target = made(1), made(2)
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("data.pkl"):
                # The place of a storage: a length of 3 and "cpu" become one of 6 and "cuda:0".
                assert b"\x03\x00\x00\x00cpu" in data
                data = data.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
            new.writestr(part.filename, data)
    load_weights(target, path)
    assert torch.equal(target.state_dict()["0.weight"], source.state_dict()["0.weight"])


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Large:
    """Becomes a gigabyte where it is unpickled, by what torch takes for harmless."""

    def __reduce__(self) -> Any:
        return bytearray, (2**30,)


@pytest.mark.parametrize("old", [False, True])
def test_nothing_in_a_checkpoint_runs(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    holds = {
        "torch.nn.modules.linear.Linear": made(1),
        "getattr": {"state_dict": made(1).state_dict(), "more": Evil(tmp_path / "ran")},
        "bytearray": {"state_dict": made(1).state_dict(), "more": Large()},
    }
    for name, content in holds.items():
        torch.save(content, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(ArtefactError, match=r"torch\.save\(model\.state_dict\(\), path\)") as e:
            load_weights(made(2), path)
        assert name in str(e.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and no more", "a broken checkpoint"),
        (b"\x80\x02 and no more", "a broken checkpoint"),
        (b"nothing", "not a safetensors file"),
    ],
)
def test_broken_files_are_one_error(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=words):
        load_weights(made(1), path)


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"epoch": 3, "history": [1.0]}, path)
    with pytest.raises(ArtefactError, match="holds a dict of epoch, history, no state dict"):
        load_weights(made(1), path)


def test_a_checkpoint_takes_no_more_memory_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(2**24))
    assert path.stat().st_size < 2**16
    monkeypatch.setenv(VARIABLE, "8M")
    with pytest.raises(ArtefactError, match="the limit is 8"):
        load_weights(made(1), path)


class Tied(nn.Module):
    """Has one matrix under two names."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight


def test_tied_weights_may_be_saved_once(tmp_path: Path) -> None:
    source, target = Tied(1), Tied(2)
    save_file({"two.weight": source.two.weight.data}, tmp_path / "once.safetensors")
    load_weights(target, tmp_path / "once.safetensors")
    assert torch.equal(target.one.weight, source.one.weight)
    assert target.one.weight is target.two.weight
    torch.save(source.state_dict(), tmp_path / "both.pth")
    load_weights(Tied(2), tmp_path / "both.pth")
    torch.save({"one.weight": torch.zeros(3, 3), "two.weight": torch.ones(3, 3)}, tmp_path / "x.pt")
    with pytest.raises(ArtefactError, match=r"two\.weight differs from one\.weight"):
        load_weights(target, tmp_path / "x.pt")


def test_names_that_do_not_match_are_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = made(1).state_dict()
    del state["0.bias"]
    torch.save({**state, "other": torch.ones(1), "0.weight": torch.ones(1)}, path)
    with pytest.raises(ArtefactError) as caught:
        load_weights(made(2), path)
    for words in ("missing 0.bias", "unknown other", "0.weight has shape (1,), needed (4, 3)"):
        assert words in str(caught.value)
