"""The command ``compress``: files, tables and errors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from osbc_deploy.cli.main import main
from osbc_deploy.report.modules.build import compression_json_schema

MODEL = """
import torch
from spikingjelly.activation_based import neuron
from torch import nn

def net():
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 3), neuron.IFNode())
    for part in (stack[0], stack[2]):
        part.weight.data *= 4
    return stack
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (12, 5, 6))
    np.savez(tmp_path / "x.npz", spikes=counts, labels=np.arange(12) % 3)
    return tmp_path


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["compress", "m.py:net", "--calibration", "x.npz", "--no-tune", *args])
    return int(done.value.code or 0)


def test_weights_and_report_are_written_and_shown(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--sparsity", "0.5", "--bits", "3", "-o", "w.safetensors", "--report", "r.json")
    assert run(*options) == 0
    shown = capsys.readouterr().out
    assert "0 " in shown
    assert "membrane" in shown
    assert "accuracy: before" in shown
    report = json.loads((work / "r.json").read_text())
    jsonschema.validate(report, compression_json_schema())
    assert [layer["neurons"] for layer in report["layers"]] == [["1"], ["3"]]
    state = load_file(work / "w.safetensors")
    for layer in report["layers"]:
        weight = state[f"{layer['name']}.weight"]
        assert torch.count_nonzero(weight) == layer["nonzero"]
        assert all(len(row.unique()) <= 7 for row in weight)
    assert run("--sparsity", "0.5", "--bits", "3", "--json", "--exclude", "2") == 0
    again = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in again["layers"]] == ["0"]
    assert again["left"] == {"2.weight": "excluded"}


def test_magnitude_measures_no_loss(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--method", "magnitude", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, compression_json_schema())
    assert {layer["hessian"] for layer in report["layers"]} == {"none"}
    assert [layer["relative_loss"] for layer in report["layers"]] == [None, None]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-o", "gone/w.safetensors"), 2, "-o: gone is not a folder"),
        (("-o", "."), 2, "is a folder. Name a file in it"),
        (("-o", "m.py/w"), 2, "m.py/w cannot be written"),
        (("--exclude", "9"), 2, "no layer '9'. It has 0, 2"),
        (("--resume", "."), 2, "--report: r.json lies in ., which belongs to --resume alone"),
        (("--sparsity", "1"), 2, "sparsity: 1 is outside"),
    ],
)
def test_bad_input_writes_nothing(
    work: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, said: str
) -> None:
    before = sorted(work.iterdir())
    assert run("--report", "r.json", *args) == code
    assert said in capsys.readouterr().err
    assert sorted(p for p in work.iterdir() if p.name != "__pycache__") == before
