"""The guides for authors of plugins: their packages are built and used as they stand there."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osbc_deploy.cli.main import cli
from osbc_deploy.plugins import registered
from plugged import install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


@pytest.fixture
def built(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The files of a guide, on the path with the metadata that pip would make of them."""
    files = {}
    for block in [*blocks(request.param, "python"), *blocks(request.param, "toml")]:
        name = re.match(r"# (\S+)\n", block)
        assert name is not None, f"a block of {request.param} does not say which file it is"
        files[name[1]] = block
    project = tomllib.loads(files["pyproject.toml"])["project"]
    install(tmp_path, project["name"], files, project["entry-points"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    ours = {Path(name).parts[0].removesuffix(".py") for name in files}

    def forget() -> None:
        # Other tests have modules of these names, too.
        for module in [m for m in sys.modules if m.split(".")[0] in ours]:
            del sys.modules[module]

    forget()
    yield files
    forget()


def run_tests(files: dict[str, str]) -> int:
    """Run the test functions of a guide; return how many there are."""
    tests: list[Any] = []
    for name in files:
        if name.startswith("test_"):
            module = importlib.import_module(name.removesuffix(".py"))
            tests += [value for key, value in vars(module).items() if key.startswith("test_")]
    for test in tests:
        test()
    return len(tests)


def run_commands(page: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run what a guide runs, and return what each command printed."""
    (block,) = blocks(page, "sh")
    lines = [shlex.split(line) for line in block.splitlines()]
    assert [line[0] for line in lines[:2]] == ["pip", "pytest"]
    outputs = []
    for program, *arguments in lines[2:]:
        assert program == "osbc-deploy"
        assert cli.main(arguments, standalone_mode=False) == 0, capsys.readouterr().err
        outputs.append(capsys.readouterr().out)
    return outputs


BACKEND, FRAMEWORK = "writing-a-backend.md", "writing-a-framework.md"


@pytest.mark.parametrize("built", [BACKEND], indirect=True)
def test_the_backend_of_the_guide(built: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tests(built) == 1
    backends, deployed = run_commands(BACKEND, capsys)
    assert re.search(r"toy +ok +fully connected chains in NumPy \(numpy", backends)
    assert re.search(r"toy against the engine on 16 samples: 0 of [\d,]+ spikes differ", deployed)
    kept = (DOCS / BACKEND).read_text("utf-8")
    assert "`fidelity: toy against the engine on 16 samples`" in kept


@pytest.mark.parametrize("built", [BACKEND], indirect=True)
def test_a_wrong_bit_in_the_backend_of_the_guide_is_noticed(
    built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy: Any = importlib.import_module("osbc_backend_toy")
    # Rounded down instead of towards zero.
    wrong = lambda state, kept, formats: (state * kept) >> formats.decay_bits  # noqa: E731
    monkeypatch.setattr(toy, "decayed", wrong)
    with pytest.raises(AssertionError, match="is not what the engine computes"):
        run_tests(built)


@pytest.mark.parametrize("built", [FRAMEWORK], indirect=True)
def test_the_framework_of_the_guide(built: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "toysnn" in registered("osbc_deploy.frameworks")
    assert run_tests(built) == 3
    inspected, deployed = run_commands(FRAMEWORK, capsys)
    assert "v = beta v + x" in inspected
    assert "verified against ToySNN's own forward" in deployed
    assert "verdict: FITS loihi2" in deployed
