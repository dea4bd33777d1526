"""NIR files and ``inspect`` as users of the command line meet them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from command import osbc
from osbc_deploy.formats.nir.read import read_nir
from osbc_deploy.model.simulate import simulate

MODEL = """
    import norse.torch as norse
    import torch
    from torch import nn

    def net():
        torch.manual_seed(0)
        return norse.SequentialState(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), norse.LIFCell(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(96, 4), norse.LICell(),
        )

    def torch_like():
        import snntorch as snn
        torch.manual_seed(0)
        stack = nn.Sequential(nn.Linear(12, 6), snn.Leaky(beta=0.8, init_hidden=True),
                              nn.Linear(6, 3), snn.Leaky(beta=0.5, init_hidden=True, output=True))
        with torch.no_grad():
            for p in stack.parameters():
                p.mul_(6)
        return stack
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a NIR file, a module and data."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    graph = nir.NIRGraph.from_list(
        nir.Affine(rng.normal(size=(20, 12)).astype("f4"), rng.normal(size=20).astype("f4")),
        nir.LIF(*(np.full(20, v, "f4") for v in (5e-3, 2, 0, 0.5, 0))),
        nir.Linear(rng.normal(size=(4, 20)).astype("f4")),
        nir.LI(*(np.full(4, v, "f4") for v in (9e-3, 1, 0))),
    )
    nir.write(str(tmp_path / "net.nir"), graph)
    np.savez(tmp_path / "data.npz", spikes=rng.random((10, 8, 12)) < 0.3)
    (tmp_path / "mymodel.py").write_text(textwrap.dedent(MODEL))
    return tmp_path


def test_a_nir_file_is_deployed_and_written_compressed(user: Path) -> None:
    done = osbc(
        "net.nir", "--target", "loihi2-sim", "--backend", "engine", "--calibration", "data.npz",
        "--dt", "0.001", "--reset", "zero", "--sparsity", "0.5", "--nir", "small.nir", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    said = [d["message"] for d in report["deviations"] if d["stage"] == "import"]
    assert said == ["dt = 0.001, as asked for", "reset: zero, as asked for"]
    small = read_nir(user / "small.nir")
    weights = [p.connection.weight for p in small.projections]
    assert sum(np.count_nonzero(w) for w in weights) == pytest.approx(160, abs=8)
    x = np.random.default_rng(1).integers(0, 2, (3, 8, 12)).astype(np.uint8)
    assert simulate(small, x).output.any()


def test_what_a_nir_file_does_not_say_is_asked_for(user: Path) -> None:
    done = osbc("net.nir", "--target", "loihi2-sim", "--calibration", "data.npz")
    assert done.returncode == 2
    assert "--dt: is missing" in done.stderr
    assert "--reset: is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("inspect", "none.nir"), 2, "none.nir: no such file"),
        (("inspect", "data.npz"), 2, "data.npz: is not of the form"),
        (("inspect", "net.nir", "--dt", "-1", "--reset", "zero"), 2, "--dt: -1 is not a time step"),
        (("inspect", "net.nir", "--dt", "0.006", "--reset", "zero"), 2, "longer than"),
        (("inspect", "mymodel:net"), 2, "Give its shape (--shape"),
        (("inspect", "mymodel:net", "--shape", "2,8,8", "--dt", "1"), 2, "only a NIR graph"),
        (("inspect", "mymodel:net", "--shape", "2;8"), 2, "--shape: '2;8' is not a shape"),
        (("inspect", "net.nir", "--calibration", "data.npz", "--shape", "12"), 2, "one of the two"),
        (("inspect", "net.nir", "--weights", "w.safetensors", "--dt", "0.001", "--reset", "zero"),
         2, "holds its own weights"),
        (("net.nir", "--target", "loihi2-sim", "--calibration", "data.npz", "--nir", "a.h5"), 2,
         "Name it a.h5.nir"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(user: Path, args: Any, code: int, said: str) -> None:
    done = osbc(*args)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_shows_layers_neurons_and_what_was_decided(user: Path) -> None:
    done = osbc("inspect", "net.nir", "--dt", "0.001", "--reset", "subtract", "--json")
    found = json.loads(done.stdout)
    assert found["schema"] == "osbc-deploy/inspect/1"
    assert found["input_shape"] == [12]
    assert (found["weights"], found["parameters"], found["neurons"]) == (320, 340, 24)
    first, last = found["populations"]
    assert first["family"] == "LIF"
    assert first["decay_v"] == pytest.approx(0.8)
    assert first["gain"] == pytest.approx(0.4)
    assert first["reset"] == {"kind": "subtract", "value": 0.5, "differs": ""}
    assert last["output"]
    assert last["reset"] is None
    assert [(p["from"], p["to"], p["kind"]) for p in found["projections"]] == [
        ("input", first["name"], "dense"),
        (first["name"], last["name"], "dense"),
    ]
    assert "dt = 0.001, as asked for" in found["notes"]


def test_inspect_of_a_module_says_what_is_folded(user: Path) -> None:
    done = osbc("inspect", "mymodel:net", "--shape", "2,8,8")
    assert done.returncode == 0, done.stderr
    assert "BatchNorm2d folded into" in done.stdout
    assert "3x3 to 6 channels padding 1x1" in done.stdout
    assert "mean of 2x2 step 2x2, then 96 to 4" in done.stdout
    assert "never fires" in done.stdout


def test_inspect_of_an_snntorch_module_shows_its_late_reset(user: Path) -> None:
    pytest.importorskip("snntorch")
    done = osbc("inspect", "mymodel:torch_like", "--calibration", "data.npz")
    assert done.returncode == 0, done.stderr
    # The threshold is taken off the potential that has decayed once more: 1 / 0.8 right away.
    assert "v -= 1.25" in done.stdout
    assert "v -= 2" in done.stdout
