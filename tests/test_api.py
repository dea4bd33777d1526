"""The Python API: one call, any holder of samples, frozen results."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

import osbc_deploy
from osbc_deploy.cli.main import main
from osbc_deploy.errors import ArtefactError, BackendError, UsageError
from osbc_deploy.report.deployment.build import json_schema


def model() -> norse.SequentialState:
    torch.manual_seed(1)
    stack = norse.SequentialState(
        nn.Linear(12, 30), norse.LIFCell(), nn.Linear(30, 4), norse.LIFBoxCell()
    )
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(12)
    return stack


@pytest.fixture
def spikes(rng: Any) -> np.ndarray:
    return (rng.random((20, 15, 12)) < 0.3).astype(np.uint8)


def test_deploy_on_lava(spikes: np.ndarray, tmp_path: Path) -> None:
    done = osbc_deploy.deploy(
        model(), calibration=spikes, target="loihi2-sim", sparsity=0.5, backend_samples=2
    )
    assert done.fits
    assert done.fidelity.exact
    assert done.fidelity.backend == "lava"
    assert done.accuracy.float_ is None
    assert done.accuracy.agreement > 0.5
    jsonschema.validate(done.report(), json_schema())
    done.save(tmp_path / "image")
    assert (tmp_path / "image" / "report.json").is_file()


@pytest.mark.parametrize("method", ["osbc", "obc", "magnitude"])
@pytest.mark.parametrize("bits", [1, 3, 7])
def test_every_method_and_width(spikes: np.ndarray, method: str, bits: int) -> None:
    done = osbc_deploy.deploy(
        model(),
        (spikes, np.arange(20) % 4),
        target="loihi2",
        method=method,
        bits=bits,
        sparsity=0.6,
    )
    report = done.report()
    jsonschema.validate(report, json_schema())
    assert report["compression"]["sparsity"] >= 0.59
    assert report["fidelity"]["mismatched_spikes"] == 0
    stored = {1: 2, 3: 3, 7: 8}[bits]
    assert all(q["weight_bits"] == stored for p in report["populations"] for q in p["projections"])
    widened = [d for d in report["deviations"] if "stored in" in d["message"]]
    assert bool(widened) == (stored != bits)


def test_labels_that_no_output_stands_for_are_refused(spikes: np.ndarray) -> None:
    good, bad = (spikes, np.arange(20) % 4), (spikes, np.arange(20) % 5)
    for calibration, test, name in ((bad, good, "calibration"), (good, bad, "test")):
        with pytest.raises(ArtefactError, match=f"^{name}: labels go up to 4, .* 4 outputs") as e:
            osbc_deploy.deploy(model(), calibration, test=test, target="loihi2", backend_samples=0)
        assert e.value.exit_code == 6


def test_the_module_is_left_as_it_was(spikes: np.ndarray) -> None:
    net = model().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    osbc_deploy.deploy(net, spikes, target="loihi2", backend_samples=0)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_missing_backend_is_found_out_before_the_work(
    spikes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import osbc_backend_lava.backend as lava

    monkeypatch.setattr(lava, "_NEEDED", {"no_such_module": "no-such-package"})
    with pytest.raises(BackendError, match=r"no-such-package.*pip install"):
        osbc_deploy.deploy(None, spikes, target="loihi2-sim")
    # Everything but running on it works without it.
    done = osbc_deploy.deploy(model(), spikes, target="loihi2-sim", backend_samples=0)
    assert done.fits


def test_a_readout_that_does_not_exist(spikes: np.ndarray) -> None:
    with pytest.raises(UsageError, match="sum, last, max"):
        osbc_deploy.deploy(model(), spikes, readout="mean")  # type: ignore[arg-type]


def test_the_public_names_are_those_listed_and_come_when_asked_for() -> None:
    code = (
        "import sys, osbc_deploy; assert not {'numpy', 'torch', 'click'} & set(sys.modules); "
        "print([n for n in osbc_deploy.__all__ if getattr(osbc_deploy, n, None) is None]); "
        "print(sorted(set(osbc_deploy.__all__) - set(dir(osbc_deploy))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = osbc_deploy.nothing  # type: ignore[attr-defined]
    tree = ast.parse(Path(osbc_deploy.__file__).read_text())
    typed = {
        alias.name: node.module.removeprefix("osbc_deploy.")
        for block in tree.body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert typed == osbc_deploy._PLACES


def test_the_example_of_the_api_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "api.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/api.md", "exec"), {})  # noqa: S102 - it is the page's own code
    printed = capsys.readouterr().out
    (said,) = re.findall(r"```text\n(options: .*?)```", page, re.DOTALL)
    assert printed.endswith(said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image", "net.img", "net.img.map.json"]
    # The command writes the same image from the folder.
    with pytest.raises(SystemExit) as ended:
        main(["export", "image", "--format", "image", "-o", "again.img", "-q"])
    assert ended.value.code == 0
    assert Path("again.img").read_bytes() == Path("net.img").read_bytes()
