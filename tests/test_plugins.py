"""What other packages add is used, and named where it fails; it is in nobody else's way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osbc_deploy import plugins
from osbc_deploy.backends import BACKENDS
from osbc_deploy.chip.memory import MEMORY_MODELS
from osbc_deploy.chip.target import load_target
from osbc_deploy.cli.main import main
from osbc_deploy.errors import PluginError, TargetError, UsageError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import write_network
from osbc_deploy.formats.format import FORMATS, Format, listed_formats
from osbc_deploy.formats.stored import read_stored
from osbc_deploy.frameworks.plugin import FRAMEWORKS
from osbc_deploy.importing import import_network
from osbc_deploy.testing import random_networks
from plugged import install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
GROUPS: list[plugins.Group[Any]] = [FRAMEWORKS, BACKENDS, FORMATS, MEMORY_MODELS]


@pytest.fixture(autouse=True)
def _modules_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line as the program does: exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_what_is_registered_is_what_the_code_says() -> None:
    registered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(registered) == {group.name for group in GROUPS}
    for group in GROUPS:
        assert set(registered[group.name]) == set(group.ours)
        assert [entry.fault for entry in group.listed() if entry.own] == [""] * len(group.ours)


def test_metadata_of_an_older_version_are_refused_and_say_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(group: str) -> EntryPoints:
        kept = ("engine", "records", "netx")
        return EntryPoints(e for e in entry_points(group=group) if e.name in kept)

    monkeypatch.setattr(plugins, "entry_points", older)
    for group, name in ((FRAMEWORKS, "norse"), (BACKENDS, "lava"), (FORMATS, "nir")):
        with pytest.raises(PluginError, match=rf"{name}.*do not list it. Install osbc-deploy ag"):
            group.load(name)
    with pytest.raises(TargetError, match=r"'chunks': is part of osbc-deploy.*Install osbc-deploy"):
        load_target("loihi1")
    assert load_target("loihi2").memory.model == "records"
    code, said, _ = run("doctor")
    assert code == 2
    assert "framework norse" in said
    assert "Install osbc-deploy again" in said


def test_a_name_that_two_packages_register_is_ambiguous(tmp_path: Path) -> None:
    for name in ("one", "other"):
        install(tmp_path / name, f"plugin-{name}", {}, {"osbc_deploy.formats": {"x": "a:B"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path / "one")
        patch.syspath_prepend(tmp_path / "other")
        with pytest.raises(PluginError, match=r"2 packages \(plugin-one 1.0 and plugin-other 1.0"):
            FORMATS.load("x")
    with pytest.raises(UsageError, match="format 'x': is not installed .found: c, image, netx, n"):
        FORMATS.load("x")


BROKEN = {
    "osbc_deploy.frameworks": {"brokenfw": "broken_plugin:X"},
    "osbc_deploy.backends": {"brokenbackend": "broken_plugin:X"},
    "osbc_deploy.formats": {"brokenformat": "broken_plugin:X"},
    "osbc_deploy.memory_models": {"brokenmodel": "broken_plugin:X"},
}


def data(path: Path) -> None:
    (path / "tiny.py").write_text(
        "import torch, norse.torch as norse\n"
        "def net():\n"
        "    return norse.SequentialState(torch.nn.Linear(4, 3), norse.LIFBoxCell())\n"
    )
    np.savez(path / "data.npz", spikes=np.ones((4, 6, 4), np.uint8))


@pytest.mark.parametrize(
    "code", ["raise ValueError('no luck')", "import no_such_thing", "raise SystemExit(0)", ""]
)
def test_a_broken_plugin_is_named_and_breaks_nothing_else(
    code: str, tmp_path: Path, run: Run
) -> None:
    install(tmp_path, "bad", {"broken_plugin.py": f"print('hello')\n{code}\n"}, BROKEN)
    data(tmp_path)
    tiny = ("tiny:net", "--target", "loihi2", "--calibration", "data.npz", "--no-tune",
            "--sparsity", "0")  # fmt: skip
    done, out, _ = run(*tiny, "-o", "out", "--json")
    assert (done, json.loads(out)["fits"]) == (0, True)
    assert run("map", "out", "--target", "loihi1")[0] == 0
    done, out, _ = run("doctor")
    assert done == 0
    for name in ("brokenfw", "brokenbackend", "brokenformat", "brokenmodel"):
        assert re.search(rf"{name} +(BROKEN|MISSING): .*its plugin cannot be loaded", out)
    for arguments, name in (
        (("export", "out", "--format", "brokenformat", "-o", "x"), "format 'brokenformat'"),
        ((*tiny, "--backend", "brokenbackend"), "backend 'brokenbackend'"),
    ):
        done, out, err = run(*arguments)
        assert (done, out, "Traceback" in err) == (2, "", False)
        assert f"]: {name}: its plugin cannot be loaded (" in err
    (tmp_path / "bad.toml").write_text(
        'schema = 1\ninherits = "loihi2"\n[memory]\nmodel = "brokenmodel"\n'
    )
    done, _, err = run("targets", "show", "bad.toml")
    assert done == 2
    assert "memory: memory model 'brokenmodel': its plugin cannot be loaded" in err
    # A file that nobody reads may be one of the format that cannot be loaded.
    (tmp_path / "a.what").write_text("x")
    assert "brokenformat; 'osbc-deploy doctor'" in run("map", "a.what", "--target", "loihi2")[2]


def test_a_model_of_a_framework_whose_plugin_is_broken_names_it(tmp_path: Path, run: Run) -> None:
    files = {
        "broken_plugin.py": "raise ValueError('no luck')",
        "brokenfw.py": "from torch import nn\nclass Cell(nn.Module): pass\n",
        "model.py": "import torch, brokenfw\n"
        "def net(): return torch.nn.Sequential(torch.nn.Linear(4, 3), brokenfw.Cell())\n",
    }
    install(tmp_path, "bad", files, BROKEN)
    data(tmp_path)
    code, _, said = run("inspect", "model:net", "--calibration", "data.npz")
    assert code == 2
    assert "]: framework 'brokenfw': its plugin cannot be loaded (no luck)" in said


FORMAT = '''
"""One format: the network's own folder as text, and a float network of one layer."""
import json
from osbc_deploy.formats.format import Exported, Format

def export(network, path, asked):
    from osbc_deploy.formats.folder import manifest_of
    print("exporting")
    path.write_text("toy " + str(len(network.populations)))
    return Exported({"layers": len(network.populations)}, ["one line"])

def read_integers(path, formats):
    from osbc_deploy.formats.folder import read_network
    from pathlib import Path
    return read_network(Path(path.read_text()))

def read_network(model, *, source, dt, reset):
    import numpy as np
    from osbc_deploy.frameworks.norse.neurons import IF
    from osbc_deploy.model.graph import Dense, Network, Population, Projection
    neurons = IF(np.ones(()), np.zeros(()))
    weights = Projection("w", "input", "p", Dense(np.full((3, 4), dt)))
    return Network((4,), (Population("p", (3,), neurons),), (weights,), source=source)

FORMAT = Format(
    title="toy file", suffix=".toy", read_network=read_network, options=("dt",),
    read_integers=read_integers, export=export, help="a toy", remarks=lambda target: ["a remark"],
)
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    entries = {"osbc_deploy.formats": {"toy": "toy_format:FORMAT"}}
    return install(tmp_path, "toy-format", {"toy_format.py": FORMAT}, entries)


def stored(folder: Path, formats: NumberFormats) -> FixedPointNetwork:
    network = random_networks(1, formats, start=1)[0].network
    folder.mkdir()
    write_network(network, folder)
    return network


def test_a_format_is_one_module_and_one_entry_point(
    toy: Path, formats: NumberFormats, run: Run
) -> None:
    layers = len(stored(toy / "folder", formats).populations)
    (toy / "a.toy").write_text("folder")
    done = run("export", "a.toy", "--format", "toy", "-o", "b.toy")
    assert done == (0, "one line\n", "exporting\nwrote b.toy\n")
    assert (toy / "b.toy").read_text() == f"toy {layers}"
    code, out, _ = run("map", "a.toy", "--target", "loihi2", "--json")
    assert json.loads(out)["remarks"] == ["a remark"]
    network = import_network("net.toy", None, None, dt=0.5)
    assert (network.source, network.projections[0].connection.weight[0, 0]) == ("net.toy", 0.5)
    with pytest.raises(UsageError, match="--reset: only a NIR graph leaves it open, which net.toy"):
        import_network("net.toy", None, None, reset="zero")
    code, _, err = run("export", "a.toy", "--format", "toy", "-o", "b.toy", "--samples", "x")
    assert (code, "belong to --format c and runtime. Leave them out." in err) == (2, True)
    assert "[c|image|netx|runtime|xylo|toy]" in run("export", "--help")[1]


def test_what_a_format_answers_is_checked(toy: Path, formats: NumberFormats, run: Run) -> None:
    stored(toy / "folder", formats)
    (toy / "a.toy").write_text("folder")

    def changed(old: str, new: str) -> None:
        assert old in FORMAT
        (toy / "toy_format.py").write_text(FORMAT.replace(old, new))
        sys.modules.pop("toy_format", None)

    changed("return read_network(Path", "return str(Path")
    with pytest.raises(PluginError, match="'toy': reads a.toy as a str, not a FixedPointNetwork"):
        read_stored(Path("a.toy"), formats)
    changed("    neurons = IF(", "    return {}; neurons = IF(")
    with pytest.raises(PluginError, match="'toy': reads a model as a dict, not a Network"):
        import_network("a.toy", None, None, dt=1.0)
    export = ("export", "folder", "--format", "toy", "-o", "c.toy")
    for old, new, words in (
        ("    path.write_text", "    return None; path.write_text", "did not write c.toy"),
        ("    path.write_text", "    str", "did not write c.toy"),
        ('{"layers"', '{"path": path, "layers"', "failed (TypeError: Object of type PosixPath"),
        ('print("exporting")', "1 / 0", "failed (ZeroDivisionError: division by zero)"),
    ):
        changed(old, new)
        code, out, err = run(*export)
        assert (code, out) == (2, "")
        assert f"error[E230]: format 'toy': {words}" in err
        (toy / "c.toy").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("Format('x', '.net')", "its files end in .net, which is how format 'netx' knows its own"),
        ("Format('x', 'net')", "its suffix 'net' is not a dot and what follows"),
        ("Format('x', read_network=len)", "it reads files, but has no suffix"),
        ("{}", "it is a dict, not an osbc_deploy.formats Format"),
    ],
)
def test_a_format_that_is_none_is_not_used(plugin: str, words: str, tmp_path: Path) -> None:
    text = f"from osbc_deploy.formats.format import Format\nX = {plugin}\n"
    install(
        tmp_path, "odd", {"odd_format.py": text}, {"osbc_deploy.formats": {"odd": "odd_format:X"}}
    )
    (odd,) = [entry for entry in listed_formats() if entry.name == "odd"]
    assert odd.plugin is None
    assert words in odd.fault
    assert isinstance(FORMATS.load("netx"), Format)


def test_a_format_in_nobody_elses_name_is_not_imported_for_help(tmp_path: Path) -> None:
    text = "raise RuntimeError('imported')"
    install(tmp_path, "slow", {"slow_format.py": text},
            {group.name: {"slow": "slow_format:X"} for group in GROUPS})  # fmt: skip
    code = (
        "import sys; from osbc_deploy.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'slow_format', 'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["export", "--help"], ["deploy", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "[]", done.stdout


MODEL = '''
from osbc_deploy.chip.facts import Fact, Positive
from osbc_deploy.chip.layers import Usage
from osbc_deploy.chip.memory import MemoryBase

class Flat(MemoryBase):
    """A word for every neuron, whatever it receives input from."""
    room: Fact[Positive]
    @property
    def scale_groups(self): return 1
    def limits(self): return {"neurons": self.room.value}
    def least(self, layer): return {"neurons": layer.size}
    def cost(self, layer, ranges):
        size = ranges[0][1] - ranges[0][0]
        return Usage({"neurons": size}, words=size, neurons=size, axons=0, synapses=0,
                     encoding="dense", bits={})

class Abstract(MemoryBase): pass
'''
TARGET = """schema = 1
name = "flat"
title = "a flat chip"
[sources]
me = "this file"
[chip]
cores = { value = 99, unit = "", grade = "assumed", source = "me" }
chips = { value = 1, unit = "", grade = "assumed", source = "me" }
[memory]
model = "MODEL"
word_bits = { value = 32, unit = "bits", grade = "assumed", source = "me" }
room = { value = 3, unit = "", grade = "assumed", source = "me" }
"""


def test_a_memory_model_is_one_class_and_one_entry_point(tmp_path: Path, run: Run) -> None:
    entries = {"flat": "flat_model:Flat", "abstract": "flat_model:Abstract", "number": "math:pi"}
    install(tmp_path, "flat", {"flat_model.py": MODEL}, {"osbc_deploy.memory_models": entries})
    for name in (*entries, "nosuch"):
        (tmp_path / f"{name}.toml").write_text(TARGET.replace("MODEL", name))
    target = load_target("flat.toml")
    assert target.facts()["memory.room"].value == 3
    assert target.model_dump()["memory"]["room"]["value"] == 3
    # A target that does not say what it takes is one of spikes.
    spiking = (c for c in random_networks(20) if not c.network.input.graded)
    case = next(c for c in spiking if all(len(p.shape) == 1 for p in c.network.populations))
    (tmp_path / "out").mkdir()
    write_network(case.network, tmp_path / "out")
    code, out, _ = run("map", "out", "--target", "flat.toml", "--json")
    found = json.loads(out)
    # Three neurons to a core; a word of four bytes for each.
    sizes = [p.size for p in case.network.populations]
    assert (code, found["bytes"]) == (0, 4 * sum(sizes))
    assert found["cores_used"] == sum(-(-size // 3) for size in sizes)
    for name, words in (
        ("abstract", "it does not define cost, limits, scale_groups, least"),
        ("number", "it is a float, not a class that derives from MemoryBase"),
        ("nosuch", "memory model 'nosuch': is not installed (found: records, chunks, tables, sh"),
    ):
        with pytest.raises(TargetError, match=re.escape(words)):
            load_target(f"{name}.toml")
    (tmp_path / "flat.toml").write_text(
        TARGET.replace('"MODEL"', '"flat"').replace("room", "space")
    )
    with pytest.raises(TargetError, match=r"(?s)memory.room: Field required.*memory.space: Extra"):
        load_target("flat.toml")
    (tmp_path / "flat.toml").write_text('schema = 1\ninherits = "loihi2"\nexchange = "pdf"\n')
    with pytest.raises(
        TargetError, match="exchange: format .pdf. is not one of c, image, netx, nir, runtime"
    ):
        load_target("flat.toml")


FRAMEWORK = """
from osbc_deploy.frameworks.plugin import FrameworkPlugin
GOOD = FrameworkPlugin("Toy", read=lambda *args, **options: 7, install="pip install toy")
FAILS = FrameworkPlugin("Toy", read=lambda *args: 7)
OLD = FrameworkPlugin("Toy", read=len, install="pip install toy", oldest=(99,), distribution="odd")
"""
MODELS = """
from importlib import import_module
from torch.nn import Linear, Sequential
def made(name): return Sequential(Linear(4, 3), import_module(name).Cell())
def toy(): return made("toy")
def toyfails(): return made("toyfails")
def toyold(): return made("toyold")
def absent(): import absenttoy
"""


def test_a_framework_plugin_is_checked(tmp_path: Path, run: Run) -> None:
    cell = "from torch import nn\nclass Cell(nn.Module): pass\n"
    files = {"odd_fw.py": FRAMEWORK, "model.py": MODELS}
    files |= {f"{name}.py": cell for name in ("toy", "toyfails", "toyold")}
    entries = {"toy": "GOOD", "toyfails": "FAILS", "toyold": "OLD", "absenttoy": "GOOD",
               "no-package": "GOOD"}  # fmt: skip
    named = {name: f"odd_fw:{value}" for name, value in entries.items()} | {"number": "math:pi"}
    install(tmp_path, "odd", files, {"osbc_deploy.frameworks": named})
    data(tmp_path)
    for name, words in (
        ("toy", "error[E230]: framework 'toy': reads a model as a int, not a Network"),
        ("toyfails", "error[E230]: framework 'toyfails': failed (TypeError: "),
        ("toyold", "is made with Toy 1.0, 99 or newer is needed. Update it with: pip install -U"),
        ("absent", "needs absenttoy, which is not installed. Add it with: pip install toy"),
    ):
        code, out, err = run("inspect", f"model:{name}", "--calibration", "data.npz")
        assert (code, out) == (2, "")
        assert words in err
    with pytest.raises(PluginError, match="'no-package' is not the name of a Python package"):
        FRAMEWORKS.load("no-package")
    with pytest.raises(PluginError, match="it is a float, not a FrameworkPlugin"):
        FRAMEWORKS.load("number")
