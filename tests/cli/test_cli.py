"""The command line as its users meet it: a process, its exit code, stdout and stderr."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command import osbc
from osbc_deploy.cli.main import main
from osbc_deploy.cli.options import Size
from osbc_deploy.errors import UsageError
from osbc_deploy.report.deployment.build import json_schema

FAST = ["--target", "loihi2-sim", "--backend", "engine"]

MODEL = """
    import norse.torch as norse
    import numpy as np
    import torch
    from torch import nn

    def net():
        torch.manual_seed(0)
        layers = norse.SequentialState(
            nn.Conv2d(2, 6, 3, padding=1), norse.LIFCell(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(96, 12), norse.IAFCell(), nn.Linear(12, 4), norse.LICell(),
        )
        with torch.no_grad():
            for p in layers.parameters():
                p.mul_(6)
        return layers

    def unsupported():
        return norse.SequentialState(nn.Flatten(), nn.Linear(128, 3), nn.ReLU(), norse.LSNNCell())

    def number():
        return 3

    def fails():
        raise RuntimeError("no weights today")

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 12
        def __getitem__(self, i):
            rng = np.random.default_rng(i)
            return torch.tensor(rng.random((10, 2, 8, 8)) < 0.3).float(), i % 4
"""


def started(*args: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program as it is run; one start shows what others would."""
    return subprocess.run(
        [sys.executable, "-m", "osbc_deploy", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=1800,
    )


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A folder outside the repository with a user's model and data."""
    (tmp_path / "mymodel.py").write_text(textwrap.dedent(MODEL))
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz", spikes=rng.random((10, 8, 2, 8, 8)) < 0.3, labels=np.arange(10) % 4
    )
    return tmp_path


def test_a_users_network_deploys_on_lava_by_command_line(user: Path) -> None:
    done = started(
        "mymodel:net",
        "--target",
        "loihi2-sim",
        "--calibration",
        "data.npz",
        "--sparsity",
        "0.5",
        "--backend-samples",
        "3",
        "-o",
        "out",
        "--json",
        cwd=user,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, json_schema())
    assert report["fits"]
    assert report["fidelity"]["backend"] == "lava"
    assert report["fidelity"]["samples"] == 3
    assert report["fidelity"]["compared_spikes"] == 3 * 8 * (6 * 64 + 12)
    assert report["fidelity"]["mismatched_spikes"] == 0
    assert report["fidelity"]["mismatched_potentials"] == 0
    assert report["accuracy"]["samples"] == 10
    assert 0.45 < report["compression"]["sparsity"] < 0.6
    assert json.loads((user / "out" / "report.json").read_text()) == report
    assert sorted(p.name for p in (user / "out").iterdir()) == [
        "network.json",
        "network.safetensors",
        "report.json",
    ]


def test_a_file_a_dataset_and_weights_work_too(user: Path) -> None:
    save_weights(user, 0.5)
    done = osbc(
        f"{user / 'mymodel.py'}:net",
        *FAST,
        "--weights",
        user / "w.safetensors",
        "--calibration",
        f"{user / 'mymodel.py'}:Data",
        "--method",
        "obc",
        "--bits",
        8,
    )
    assert done.returncode == 0, done.stderr
    assert "FITS" in done.stdout
    assert "0 of" in done.stdout


def test_results_do_not_depend_on_the_run(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    runs = [
        run("mymodel:net", *FAST, "--calibration", "data.npz", "--json", cwd=user).stdout
        for run in (started, osbc)
    ]
    assert runs[0] == runs[1] != ""
    jsonschema.validate(json.loads(runs[0]), json_schema())
    assert json.loads(runs[0])["provenance"]["date"] == "2023-11-14T22:13:20Z"


def test_a_chip_that_is_too_small_exits_with_4_and_says_why(user: Path) -> None:
    (user / "tiny.toml").write_text(
        'schema = 1\nname = "tiny"\ninherits = "loihi2"\n[sources]\nme = "a test"\n'
        '[chip]\ncores = { value = 2, unit = "cores", grade = "assumed", source = "me" }\n'
    )
    done = osbc("mymodel:net", "--target", "tiny.toml", "--calibration", "data.npz", cwd=user)
    assert done.returncode == 4
    assert "3 cores needed, 2 available (1 over)" in done.stderr
    assert "DOES NOT FIT" in done.stdout
    assert "'osbc-deploy fit' with the same model, data and target" in done.stderr
    assert "loihi2 has 120 cores" in done.stderr


def test_fit_finds_a_plan_for_a_budget_or_says_what_is_over(user: Path) -> None:
    common = ("mymodel:net", "--target", "loihi2", "--calibration", "data.npz", "--max-removed", 0)
    done = osbc("fit", *common, "--cores", 3, "-o", "out", "--plot", "f.svg", "--json", cwd=user)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found["report"], json_schema())
    assert found["schema"] == "osbc-deploy/fit/1"
    assert found["as_predicted"]
    assert found["chosen"]["cores"] == 3
    stored = json.loads((user / "out" / "fit.json").read_text())
    assert stored == {name: value for name, value in found.items() if name != "report"}
    assert (user / "f.svg").read_text().startswith("<svg")
    over = osbc("fit", *common, "--cores", 2, cwd=user)
    assert over.returncode == 4
    assert "3 cores in the smallest plan, 2 allowed (1 over)" in over.stderr
    table = osbc("fit", *common, "--max-accuracy-drop", 0.5, "-o", "out", cwd=user)
    assert table.returncode == 0, table.stderr
    assert "Least loss for memory" in table.stdout
    assert "less than predicted" in table.stdout
    provenance = json.loads((user / "out" / "report.json").read_text())["provenance"]
    assert provenance["command"] == (
        "osbc-deploy fit mymodel:net --target loihi2 --calibration data.npz --max-removed 0 "
        "--max-accuracy-drop 0.5 -o out"
    )
    assert provenance["seed"] == 0
    limits = ("cores", "memory", "flash", "ram", "instructions")
    budget = {**dict.fromkeys(limits), "accuracy_drop": 0.5}
    assert provenance["options"]["budget"] == budget
    (user / "budget.toml").write_text("schema = 1\n[budget]\naccuracy_drop = 0.5\n")
    kept = osbc("check", "out", "--budget", "budget.toml", "--test", "data.npz", cwd=user)
    assert kept.returncode == 0, kept.stderr


def test_a_deployed_network_is_counted_on_other_chips(user: Path) -> None:
    done = osbc(
        "mymodel:net", *FAST, "--calibration", "data.npz", "--backend-samples", 0, "-o", "out",
        "-q",
        cwd=user,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    report = json.loads((user / "out" / "report.json").read_text())
    same = osbc("map", "out", "--target", "loihi2", "--json", cwd=user)
    assert same.returncode == 0, same.stderr
    counted = json.loads(same.stdout)
    assert counted["cores_used"] == report["memory"]["cores_used"]
    assert counted["bytes"] == report["memory"]["deployed_bytes"]
    for core in report["cores"]:
        del core["place"]
    assert counted["cores"] == report["cores"]
    first = osbc("map", "out", "--target", "loihi1", cwd=user)
    assert first.returncode == 0
    assert "FITS loihi1" in first.stdout
    speck = osbc("map", "out", "--target", "speck", "--json", cwd=user)
    assert speck.returncode == 4
    assert "its integers are those of 'loihi', this chip computes with 'speck'" in speck.stderr
    # The pooling stays apart: channels, 4 x 4 positions in 4 bits, features; of both, those that
    # are heard.
    kernels = [core["resources"]["kernel"]["used"] for core in json.loads(speck.stdout)["cores"]]
    shapes = [population["shape"] for population in report["populations"]]
    one, two = (shape[0] for shape in shapes[:2])
    assert one <= 6
    assert two <= 12
    assert (one, two) != (6, 12)
    bits = (one - 1).bit_length(), (two - 1).bit_length()
    assert kernels == [2 << (4 + bits[0]), one << (4 + bits[1]), two << 2]
    xylo = osbc("map", "out", "--target", "xylo-audio2", cwd=user)
    assert xylo.returncode == 4
    assert "a convolution; this chip connects neurons one by one" in xylo.stderr
    broken = (user / "out" / "network.safetensors").read_bytes()
    (user / "out" / "network.safetensors").write_bytes(broken[:-100])
    assert osbc("map", "out", "--target", "loihi2", cwd=user).returncode == 6


@pytest.mark.parametrize("name", ["gone", "gone.net", "gone.img"])
def test_a_network_that_is_not_there_is_wrong_usage(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["map", str(tmp_path / name), "--target", "loihi2"])
    assert done.value.code == 2
    assert f"{name}: no such " in capsys.readouterr().err


def save_weights(user: Path, factor: float) -> None:
    state = runpy.run_path(str(user / "mymodel.py"))["net"]().state_dict()
    save_file({k: (v * factor).numpy() for k, v in state.items()}, user / "w.safetensors")


def break_weights(user: Path) -> None:
    save_weights(user, 1.0)
    state = load_file(user / "w.safetensors")
    state["0.weight"][0, 0, 0, 0] = np.nan
    save_file(state, user / "nan.safetensors")
    save_file({"a": np.zeros(3)}, user / "other.safetensors")
    (user / "pickle.pt").write_bytes(b"\x80\x04K\x01.")


def bad_data(user: Path) -> None:
    spikes = np.load(user / "data.npz")["spikes"]
    np.savez(user / "zeros.npz", spikes=np.zeros_like(spikes))
    np.savez(user / "t0.npz", spikes=spikes[:, :0])
    np.savez(user / "text.npz", spikes=np.array([[["a"]]]))
    np.savez(user / "shape.npz", spikes=spikes[:, :, :1])
    np.savez(user / "counts.npz", spikes=3 * spikes)
    (user / "bad.toml").write_text("schema = [")
    (user / "mine").mkdir()
    for name in ("network.json", "notes.txt"):
        (user / "mine" / name).touch()


NET = ("mymodel:net", "--target", "loihi2")
DATA = ("--calibration", "data.npz")

BAD = [
    (("mymodel:unsupported", *NET[1:], *DATA), 3, ["2: ReLU", "3: LSNNCell"]),
    (("mymodel:number", *NET[1:], *DATA), 3, ["int", "torch.nn.Module"]),
    (("mymodel:fails", *NET[1:], *DATA), 2, ["no weights today"]),
    (("mymodel:nothing", *NET[1:], *DATA), 2, ["nothing"]),
    (("nomodule:net", *NET[1:], *DATA), 2, ["nomodule"]),
    (("gibberish", *NET[1:], *DATA), 2, ["package.module:factory"]),
    (NET, 2, ["--calibration"]),
    (("--target", "loihi2", *DATA), 2, ["--calibration", "MODEL"]),
    ((*NET, "--calibration", "missing.npz"), 2, ["missing.npz", "no such file"]),
    ((*NET, "--calibration", "text.npz"), 6, ["not numbers"]),
    ((*NET, "--calibration", "t0.npz"), 6, ["T is 0"]),
    ((*NET, "--calibration", "zeros.npz"), 6, ["all spikes are 0"]),
    ((*NET, "--calibration", "shape.npz"), 6, ["(1, 8, 8)", "(2, H, W)"]),
    (("mymodel:net", "--target", "loihi1", "--calibration", "counts.npz"), 3, ["takes 0 or 1"]),
    ((*NET, *DATA, "--test", "shape.npz"), 2, ["test", "(1, 8, 8)"]),
    ((*NET, *DATA, "--weights", "nan.safetensors"), 6, ["0.weight", "NaN"]),
    ((*NET, *DATA, "--weights", "other.safetensors"), 6, ["missing 0.weight", "unknown a"]),
    ((*NET, *DATA, "--weights", "pickle.pt"), 6, ["a broken checkpoint"]),
    ((*NET, *DATA, "--weights", "gone.safetensors"), 2, ["no such file"]),
    ((*NET, *DATA, "--bits", "0"), 2, ["bits: 0", "1 to 8"]),
    ((*NET, *DATA, "--bits", "9"), 2, ["bits: 9", "1 to 8"]),
    ((*NET, *DATA, "--sparsity", "1.2"), 2, ["1.2", "0 <= sparsity < 1"]),
    ((*NET, *DATA, "--sparsity", "nan"), 2, ["nan"]),
    ((*NET, *DATA, "--method", "luck"), 2, ["luck"]),
    ((*NET, *DATA, "--backend", "nowhere"), 2, ["nowhere", "engine, lava"]),
    ((*NET, *DATA, "--backend-samples", "-1"), 2, ["-1"]),
    ((*NET, *DATA, "--time-limit", "0"), 2, ["time limit"]),
    (("mymodel:net", "--target", "loihi7", *DATA), 2, ["loihi7", "loihi2-sim"]),
    (("mymodel:net", "--target", "bad.toml", *DATA), 2, ["bad.toml", "TOML"]),
    (("mymodel:net", "--target", "speck", *DATA), 3, ["a leak", "SpikingJelly's IFNode"]),
    (("mymodel:net", *DATA), 2, ["--target"]),
    (("fit", *NET, *DATA, "--cores", "0"), 2, ["cores: 0"]),
    (("fit", *NET, *DATA, "--bits", "four"), 2, ["'four'", "2,3,4,8"]),
    (("fit", *NET, *DATA, "--max-accuracy-drop", "2"), 2, ["outside 0 to 1"]),
    (("gone.net", "--target", "loihi2", *DATA), 2, ["gone.net: no such file"]),
    (("fit", *NET, *DATA, "--plot", "gone/a.svg"), 2, ["--plot: gone is not a folder"]),
    (("fit", *NET, *DATA, "--plot", "."), 2, ["--plot: . is a folder"]),
    ((*NET, *DATA, "-o", "mymodel.py"), 2, ["not written by osbc-deploy"]),
    ((*NET, *DATA, "-o", "mine"), 2, ["mine: holds notes.txt", "would be lost"]),
    ((*NET, *DATA, "--config", "bad.toml"), 2, ["bad.toml"]),
    ((*NET, *DATA, "--nonsense"), 2, ["--nonsense"]),
    (
        ("mymodel:net", "--target", "loihi2-sim", "--time-limit", "0.2", *DATA),
        2,
        ["0.2 s", "--time-limit"],
    ),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "mymodel.py").write_text(textwrap.dedent(MODEL))
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", spikes=rng.random((10, 8, 2, 8, 8)) < 0.3)
    bad_data(folder)
    break_weights(folder)
    return folder


@pytest.mark.parametrize(
    ("args", "code", "words"),
    BAD,
    ids=lambda v: " ".join(map(str, v)) if isinstance(v, tuple) else None,
)
def test_bad_input_gets_one_message_its_code_and_leaves_nothing(
    args: tuple[str, ...],
    code: int,
    words: list[str],
    broken: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = {p.name for p in broken.iterdir()}
    output = [] if "-o" in args else ["-o", "out"]
    done = osbc(*args, *output, cwd=broken)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert {p.name for p in broken.iterdir()} - {"__pycache__"} <= before
    assert capfd.readouterr() == ("", "")


def test_options_can_come_from_a_file(user: Path) -> None:
    (user / "osbc.toml").write_text(
        '[deploy]\ntarget = "loihi2"\ncalibration = "data.npz"\nbits = 3\nbackend-samples = 0\n'
    )
    done = osbc("mymodel:net", "--config", "osbc.toml", "--json", "--bits", "5", cwd=user)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["compression"]["requested"]["bits"] == 5
    assert report["fidelity"]["backend"] is None
    (user / "osbc.toml").write_text("[deploy]\ncolour = 3\n")
    done = osbc("mymodel:net", "--config", "osbc.toml", cwd=user)
    assert done.returncode == 2
    assert "colour" in done.stderr


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("7", 7), ("20KB", 20_000), ("20 kib", 20_480), ("1.5MB", 1_500_000), ("4GiB", 2**32),
        ("12b", 12), (5, 5), ("x", None), ("1.5", None), ("-3", None), ("1TB", 10**12),
        (-5, None), ("1PB", None),
        ("1.0001KB", None), ("9" * 40, None), ("", None),
    ],
)  # fmt: skip
def test_sizes_take_units(given: str | int, size: int | None) -> None:
    if size is None:
        with pytest.raises(UsageError, match="no whole number of bytes"):
            Size().convert(given, None, None)
    else:
        assert Size().convert(given, None, None) == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[deploy]\nsparsity = [0.5]", "[deploy] sparsity: [0.5] is not a single value"),
        ("[deploy]\nsparsity = {a = 1}", "[deploy] sparsity: {'a': 1} is not a single value"),
        ("[deploy.bits]\na = 1", "[deploy] bits: {'a': 1} is not a single value"),
        ("[deploy]\nbits = 4.7", "[deploy] bits: 4.7 is not a whole number"),
        ("[deploy]\nbackend-samples = 3.0", "[deploy] backend-samples: 3.0 is not a whole number"),
        ("[deploy]\nbits = true", "[deploy] bits: True is not a single value"),
        ("[deploy]\nbits = 2026-01-01", "[deploy] bits: datetime.date(2026, 1, 1) is not a single"),
        ('[deploy]\nmixed = "maybe"', "[deploy] mixed: 'maybe' is neither true nor false"),
        ("[deploy]\nweights = 3", "[deploy] weights: 3 is not a path"),
        ("[fit]\nbits = [4, 8]", "[fit] bits: [4, 8] is not a single value"),
        ('[verify]\ngate = "accuracy=0.1"', "[verify] gate: 'accuracy=0.1' is not a list of texts"),
        ("[depoly]\nbits = 4", "[depoly] is not a command. Did you mean [deploy]?"),
        ("[zzz]\nbits = 4", "[zzz] is not a command. Known: backends, check, compress,"),
        ("[release]\nversion = 4", "[release] is a group of commands, which has no options. Give"),
        ("[release.sign]\nversion = 4", "[release] is a group of commands, which has no options."),
        ("bits = 4", "bits stands outside a table"),
        ("deploy = 4", "deploy stands outside a table"),
    ],
)
def test_a_config_that_makes_no_sense_names_file_and_key(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "osbc.toml").write_text(text)
    command = next((c for c in ("fit", "verify") if f"[{c}]" in text), "deploy")
    with pytest.raises(SystemExit) as done:
        main([command, "--config", str(tmp_path / "osbc.toml"), "--target", "loihi2"])
    assert done.value.code == 2
    assert f"osbc.toml: {said}" in capsys.readouterr().err


def test_a_config_may_hold_tables_of_all_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "osbc.toml").write_text("[map]\n[sign]\nversion = 4\n[baseline]\nwindow = 5\n")
    with pytest.raises(SystemExit):
        main(["map", "nothing", "--config", str(tmp_path / "osbc.toml"), "--target", "loihi2"])
    assert "nothing" in (said := capsys.readouterr().err)
    assert "osbc.toml" not in said


def test_torch_says_nothing_of_a_missing_gpu_compiler(tmp_path: Path) -> None:
    (tmp_path / "jelly.py").write_text(
        "from torch import nn\n"
        "from spikingjelly.activation_based import layer, neuron\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = layer.Linear(6, 3), neuron.LIFNode(step_mode='m')\n"
        "        self.a.step_mode = 'm'\n"
        "    def forward(self, x):\n"
        "        return self.b(self.a(x))\n"
        "def net():\n"
        "    return Net()\n"
    )
    done = started("inspect", "jelly.py:net", "--shape", "6", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from osbc_deploy.cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='osbc-deploy')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'norse', 'lava', 'scipy', 'rich', 'pydantic', 'sklearn'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert "Exit codes" in done.stdout
    assert "--target" in done.stdout


def test_info_commands() -> None:
    listed = osbc("targets", "list", "--json")
    assert {t["name"] for t in json.loads(listed.stdout)} >= {"loihi2", "loihi2-sim"}
    shown = osbc("targets", "show", "loihi2-sim")
    assert "memory.pool_words" in shown.stdout
    assert "derived" in shown.stdout
    backends = json.loads(osbc("backends", "--json").stdout)
    # Others can run where a compiler, an emulator or xylosim is installed.
    assert {b["name"] for b in backends if b["ok"]} >= {"engine", "lava"}
    doctor = osbc("doctor")
    assert doctor.returncode == 0
    assert "lava-nc 0.10.0" in doctor.stdout
    assert osbc("targets", "show", "loihi9").returncode == 2
    valid = osbc("targets", "validate", "loihi1", "speck")
    assert valid.returncode == 0
    assert valid.stdout.count("ok  ") == 2
    assert osbc("targets", "validate", "loihi1", "loihi9").returncode == 2
    assert osbc("--version").stdout.startswith("osbc-deploy, version ")


@pytest.mark.parametrize(
    ("option", "said"),
    [("--readout", "readout: '' is not one of sum"), ("--backend", "backend '': is not installed")],
)
def test_an_empty_value_is_not_the_default(
    option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a variable of the shell that is not set."""
    with pytest.raises(SystemExit) as done:
        main(["--target", "loihi2", "--no-tune", option, ""])
    assert done.value.code == 2
    assert said in capsys.readouterr().err
