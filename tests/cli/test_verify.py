"""``osbc-deploy verify`` as its users meet it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from command import osbc
from osbc_deploy.cli.main import main
from osbc_deploy.report.verification.build import verify_json_schema
from osbc_deploy.verification.gates import KNOWN

MODEL = """
    import norse.torch as norse
    import torch
    from torch import nn

    def net():
        torch.manual_seed(0)
        layers = norse.SequentialState(
            nn.Flatten(), nn.Linear(32, 24), norse.LIFBoxCell(), nn.Linear(24, 4), norse.LICell()
        )
        with torch.no_grad():
            for p in layers.parameters():
                p.mul_(12)
        return layers
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "verified_model.py").write_text(textwrap.dedent(MODEL))
    rng = np.random.default_rng(0)
    spikes = rng.random((20, 10, 2, 4, 4)) < 0.3
    np.savez(tmp_path / "data.npz", spikes=spikes, labels=np.arange(20) % 4)
    np.savez(tmp_path / "bare.npz", spikes=spikes)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(*args: Any, data: str = "data.npz") -> int:
    """Run the command in this process and return its exit code."""
    model = ["verified_model.py:net", "--calibration", data, "--target", "loihi2-sim"]
    try:
        main(["verify", *model, "--backend", "engine", *map(str, args)])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.mark.usefixtures("user")
def test_more_samples_than_there_are_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("--samples", "21") == 2
    assert "samples: 21 are asked for, data.npz holds 20." in capsys.readouterr().err


@pytest.mark.usefixtures("user")
def test_the_exit_code_is_that_of_the_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("--gate", "mismatch=1", "--gate", "backend_mismatches=0") == 0
    assert "gate mismatch: ok" in capsys.readouterr().out
    assert verify("--gate", "mismatch=0", "--gate", "membrane_error=0", "--gate", "clipped=9") == 5
    seen = capsys.readouterr()
    assert "gate mismatch: BROKEN" in seen.out
    assert "2 of 3 gates are broken" in seen.err
    assert "- mismatch:" in seen.err
    assert "- membrane_error:" in seen.err


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--gate", "speed=1"], "Known gates: accuracy,"),
        (["--gate", "mismatch=2"], "is not a share from 0 to 1"),
        (["--gate", "backend_mismatches=0", "--backend-samples", "0"], "--backend-samples of"),
        (["--samples", "0"], "samples: 0 is less than 1"),
        (["--tau", "0"], "tau: 0"),
        (["--tau", "nan"], "tau: nan"),
        (["--neurons", "9:1", "--neurons", "2:99"], "'9' is not a layer (1, 3)"),
        (["--html", "nowhere/page.html"], "nowhere is not a folder"),
        (["--html", "."], "--html: . is a folder. Name a file"),
    ],
)
def test_wrong_usage_is_one_error_and_code_2(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(*args) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("user")
def test_accuracies_need_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify("--gate", "accuracy=0.1", data="bare.npz") == 2
    assert "accuracies need labels" in capsys.readouterr().err
    assert verify("--gate", "agreement=0", data="bare.npz") == 0
    assert "no labels" in capsys.readouterr().out


def test_everything_is_written_although_a_gate_is_broken(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--html", "page.html", "-o", "out", "--json", "--samples", "7", "--neurons", "2:3,1"]
    assert verify(*args, "--gate", "mismatch=0") == 5
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, verify_json_schema())
    assert report["provenance"]["test"]["samples"] == 7
    assert report["shown"]["populations"][0]["neurons"] == [3, 1]
    assert json.loads((user / "out" / "verify.json").read_text()) == report
    assert sorted(p.name for p in (user / "out").iterdir()) == [
        "network.json",
        "network.safetensors",
        "report.json",
        "verify.html",
        "verify.json",
    ]
    for name, digest in report["provenance"]["deployed"].items():
        assert hashlib.sha256((user / "out" / name).read_bytes()).hexdigest() == digest
    assert sorted(report["provenance"]["deployed"]) == ["network.json", "network.safetensors"]
    page = (user / "page.html").read_text()
    assert page == (user / "out" / "verify.html").read_text()
    assert "1 OF 1 GATES BROKEN" in page
    # An accuracy of some samples passes as that of all only where the budget says so.
    for enough, code in (("cores = 120", 6), ("samples = 8", 5), ("samples = 7", 0)):
        (user / "budget.toml").write_text(f"schema = 1\n[budget]\n{enough}\n")
        with pytest.raises(SystemExit) as done:
            main(["check", "out", "--budget", "budget.toml", "--test", "data.npz"])
        assert done.value.code == code
        said = capsys.readouterr()
        assert ("out: was evaluated on 7 of the " in said.err) == (code == 6)
        assert ("[budget] samples = 7" in said.err) == (code == 6)
        assert ("7 evaluated, at least 7" in said.out) == (code == 0)
    inner = json.loads((user / "out" / "report.json").read_text())
    assert inner["fidelity"]["samples"] == 7
    assert inner["fidelity"]["mismatched_spikes"] == 0


@pytest.mark.parametrize(
    ("command", "option"),
    [("fit", "--plot"), ("verify", "--html"), ("deploy", "-o"), ("fit", "-o"), ("verify", "-o")],
)
def test_a_page_that_cannot_be_written_leaves_the_report(
    command: str,
    option: str,
    user: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(source: Any, place: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "rename", full)
    model = ["verified_model.py:net", "--calibration", "data.npz", "--target", "loihi2"]
    few = ["--bits", "8", "--max-sparsity", "0"] if command == "fit" else []
    args = [command, *model, *few, "--backend", "engine", "--json", option, "page"]
    with pytest.raises(SystemExit) as done:
        main(args)
    assert done.value.code == 2
    seen = capsys.readouterr()
    assert "page: cannot be written (No space left on device)" in seen.err
    assert json.loads(seen.out)["schema"].startswith("osbc-deploy/")
    assert not list(user.glob("*page*"))


def test_gates_come_from_a_config_too(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (user / "gates.toml").write_text('[verify]\ngate = ["mismatch=0", "clipped=0"]\nsamples = 5\n')
    assert verify("--config", "gates.toml") == 5
    assert "1 of 2 gates are broken" in capsys.readouterr().err
    assert verify("--config", "gates.toml", "--gate", "mismatch=1") == 0


def test_a_run_that_was_killed_goes_on_to_the_same_report(
    user: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    reports = []
    for _ in range(2):
        assert verify("--resume", "state", "--json", "--samples", "4") == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert (user / "state").is_dir()
    assert reports[0] == reports[1]
    assert [step["name"] for step in reports[1]["steps"]][:2] == ["prune", "quantize"]


def test_help_names_every_gate(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["verify", "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in KNOWN)


def end_to_end(report: dict[str, Any], backend: str, sizes: dict[str, int], steps: int) -> None:
    """Check that two samples of every population were the same, bit for bit."""
    jsonschema.validate(report, verify_json_schema())
    assert (report["backend"]["name"], report["ok"]) == (backend, True)
    output = list(sizes)[-1]
    for population in report["backend"]["populations"]:
        for quantity in ("spikes", "u", "v"):
            bits = population[quantity]
            if (quantity, population["name"]) == ("spikes", output):
                assert bits is None
            else:
                on_chip = sizes[population["name"]] - population["neurons_left_out"]
                assert bits == {"compared": 2 * steps * on_chip, "different": 0}


def test_the_bundled_network_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--target", "loihi2-sim", "--backend", "engine", "--backend-samples", "2", "--json"]
    fast = ["--samples", "16", "--method", "magnitude", "--no-tune", "--bits", "6"]
    with pytest.raises(SystemExit) as done:
        main(["verify", *args, *fast, "--gate", "lowering_mismatch=0.05"])
    seen = capsys.readouterr()
    assert done.value.code == 0, seen.err
    report = json.loads(seen.out)
    end_to_end(report, "engine", {"2": 16 * 400, "6": 32 * 100, "11": 100, "13": 10}, steps=15)
    assert [stage["samples"] for stage in report["stages"]] == [16] * 4 + [2]
    assert [layer["name"] for layer in report["layers"]] == ["0", "4", "10", "12"]


@pytest.mark.usefixtures("user")
def test_lava_gives_the_same_bits_by_command_line() -> None:
    done = osbc(
        *("verify", "verified_model.py:net", "--json"),
        *("--calibration", "data.npz", "--target", "loihi2-sim", "--backend-samples", "2"),
        *("--gate", "backend_mismatches=0"),
    )
    assert done.returncode == 0, done.stderr
    end_to_end(json.loads(done.stdout), "lava", {"2": 24, "4": 4}, steps=10)
