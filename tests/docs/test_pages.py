"""Every block of every page is run by somebody, or says why not; ``make docs-run`` runs them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses ask for it by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def execute() -> ModuleType:
    return load("execute")


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
    assert sum(f == "run" for f in fates) >= 35
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
    for path, text in load("notebooks").notebooks():
        assert path.read_text("utf-8") == text, f"{path}: python docs/notebooks.py renews it"


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="here">b</p><a href="../a.html#x">a</a>')
    good = '<h1 id="x">a</h1><a href="sub/b.html#here">b</a><a href="#x">x</a><a href="#">top</a>'
    ours = "https://github.com/osbc-deploy/osbc-deploy/blob/main/"
    good += f'<a href="{ours}README.md#license">L</a><a href="https://example.org/x">out</a>'
    (tmp_path / "a.html").write_text(good)
    links = load("links")
    assert links.broken(tmp_path) == ([], {"https://example.org/x": 1}, [2, 4, 1])
    bad = ["sub/c.html", "sub/b.html#there", "#y", "style.css", f"{ours}gone.md"]
    bad.append(f"{ours}README.md#gone")
    (tmp_path / "a.html").write_text("".join(f'<a href="{link}">x</a>' for link in bad))
    faults, _, _ = links.broken(tmp_path)
    assert faults == [f"a.html: {link}" for link in bad] + ["sub/b.html: ../a.html#x"]
