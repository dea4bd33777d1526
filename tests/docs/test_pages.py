"""Every block of every page is run by somebody, or says why not; ``make docs-run`` runs them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def execute() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", ROOT / "docs" / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses ask for it by name.
    sys.modules["execute"] = module
    spec.loader.exec_module(module)
    return module


def test_every_block_is_run_or_says_why_not(execute: ModuleType) -> None:
    fates: list[str] = []
    for path in execute.pages():
        page = execute.read(path)
        text = path.read_text("utf-8")
        assert len(page.blocks) == len(re.findall(r"^```\w+$", text, re.M)), path
        if page.tested:
            assert (ROOT / page.tested).is_file(), path
            continue
        if page.continues:
            assert (path.parent / page.continues).is_file(), path
        for block in page.blocks:
            assert block.fate, f"{path}: nothing is said of\n{block.text}"
            for named in re.findall(r"(?:tutorials|tests)/[\w/.]+[\w]", block.fate):
                place = ROOT / named if named.startswith("tests") else ROOT / "docs" / named
                assert place.exists(), f"{path}: {named}"
            fates.append(block.fate)
    assert sum(f == "run" for f in fates) >= 25
    assert sum(f.startswith("output") for f in fates) > 20


def test_a_page_is_followed_from_top_to_bottom(execute: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# a.py\nprint(*range(3), sep='\\n')\n```\n```sh\npython a.py\n```\n"
        "<!-- output: last 2 -->\n```text\nold\n```\n<!-- not run: no -->\n```sh\nfalse\n```\n"
    )
    read = execute.read(page)
    assert [b.fate for b in read.blocks] == ["file a.py", "run", "output 2", "not run: no"]
    text = execute.renewed(read, tmp_path)
    assert text == page.read_text().replace("old\n", "1\n2\n")
    page.write_text("```sh\nexit 3\n```\n")
    with pytest.raises(SystemExit, match="exit 3"):
        execute.renewed(execute.read(page), tmp_path)


def test_notebooks_are_those_of_the_tutorials(execute: ModuleType) -> None:
    pytest.importorskip("nbformat")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.notebooks():
        assert path.read_text("utf-8") == text, f"{path}: python docs/notebooks.py renews it"
