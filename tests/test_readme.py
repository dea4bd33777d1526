"""README shows what the program prints, on this machine as on any other."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from osbc_deploy.backends import load_backend
from osbc_deploy.report.deployment.build import json_schema

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def outputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("o", ROOT / "examples" / "readme_outputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo_prints_what_readme_shows(
    outputs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not load_backend("lava").availability().ok:
        pytest.skip("the demo runs on Lava")
    monkeypatch.chdir(tmp_path)
    shown = outputs.blocks((ROOT / "README.md").read_text("utf-8"))
    assert outputs.demo() == shown["demo"]
    # One run of the bundled network serves all that is to be said of it: it takes its time.
    report = json.loads((tmp_path / "image" / "report.json").read_text("utf-8"))
    jsonschema.validate(report, json_schema())
    accuracy = report["accuracy"]
    assert accuracy["samples"] == 400
    assert accuracy["float"] >= 0.95
    assert accuracy["fixed_point"] >= accuracy["float"] - 0.015
    # A tenth of 85,896 weights is not a whole number.
    assert report["compression"]["sparsity"] >= 0.89999
    assert all(layer["bits"] == 4 for layer in report["compression"]["layers"])
    assert report["fits"]
    total = sum(core["resources"]["total"]["used"] for core in report["cores"])
    assert report["memory"]["deployed_bytes"] == total * 8


def test_every_block_has_a_command_and_every_command_a_block(outputs: ModuleType) -> None:
    found = [outputs.blocks(page.read_text("utf-8")) for page in outputs.PAGES]
    assert sorted(name for page in found for name in page) == sorted(outputs.BLOCKS)


def test_only_what_is_between_the_markers_changes(
    outputs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "a\n<!-- output: x -->\nold\n<!-- end -->\nb\n<!-- output: y -->\nold\n<!-- end -->\n"
    monkeypatch.setattr(outputs, "BLOCKS", {"x": lambda: "new\n", "y": lambda: "never\n"})
    assert outputs.renewed(page, ["x"]) == page.replace("old", "new", 1)
    assert outputs.blocks(page) == {"x": "old\n", "y": "old\n"}
