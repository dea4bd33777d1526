"""What a user names is found, or the message says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from osbc_deploy.data.samples import check_samples
from osbc_deploy.errors import UsageError
from osbc_deploy.frameworks import plugin
from osbc_deploy.importing import import_network
from osbc_deploy.references import load_object


@pytest.mark.parametrize("name", ["snntorch", "spikingjelly"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_missing_framework_comes_with_the_command_that_adds_it(
    name: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module that is None is one that Python does not find.
    monkeypatch.setitem(sys.modules, name, None)
    lines = [f"import {name}", "def model():", "    return 1"]
    if inside:
        lines = ["def model():", f"    import {name}", "    return 1"]
    place = tmp_path / f"needs_{name}_{inside}.py"
    place.write_text("\n".join(lines))
    with pytest.raises(UsageError, match=rf"pip install 'osbc-deploy\[{name}\]'"):
        load_object(f"{place}:model")


def test_another_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text("import no_such_package")
    with pytest.raises(UsageError, match="no_such_package"):
        load_object(f"{tmp_path / 'lost.py'}:model")


def test_no_framework_is_imported_unless_a_model_is_made_of_it() -> None:
    code = (
        "import sys, numpy, norse.torch as norse\n"
        "from torch import nn\n"
        "from osbc_deploy.data.samples import check_samples\n"
        "from osbc_deploy.importing import import_network\n"
        "net = norse.SequentialState(nn.Linear(4, 3), norse.LIFBoxCell())\n"
        "data = check_samples('data', numpy.ones((2, 3, 4), numpy.uint8))\n"
        "import_network(net, None, data)\n"
        "print(sorted({'snntorch', 'spikingjelly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "old"), [("spikingjelly", "0.0.0.0.14"), ("snntorch", "0.9.4")]
)
def test_an_older_framework_is_refused_with_the_command_that_updates_it(
    package: str, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    if package == "snntorch":
        import snntorch

        cell = snntorch.Leaky(0.9)
    else:
        from spikingjelly.activation_based import neuron

        cell = neuron.IFNode()
    # Only one version can be installed; the other is what the package index would say.
    monkeypatch.setattr(plugin, "version", lambda _: old)
    data = check_samples("data", np.ones((2, 3, 4), np.uint8))
    with pytest.raises(UsageError, match=rf"{old}.*pip install -U 'osbc-deploy\[{package}\]'"):
        import_network(nn.Sequential(nn.Linear(4, 3), cell), None, data)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("raise Mute()", r"calling it failed \(Mute\)"),
        ("return net()", "RecursionError"),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
    ],
)
def test_whatever_the_users_code_raises_is_named(code: str, words: str, tmp_path: Path) -> None:
    place = tmp_path / "raises.py"
    mute = "class Mute(Exception):\n    def __str__(self):\n        return 1 / 0\n"
    place.write_text(f"{mute}def net():\n    {code}\n")
    with pytest.raises(UsageError, match=words):
        load_object(f"{place}:net")
    if "net()" not in code and "return" not in code:
        place.write_text(f"{mute}{code}\ndef net(): pass\n")
        with pytest.raises(UsageError, match="importing it failed"):
            load_object(f"{place}:net")
