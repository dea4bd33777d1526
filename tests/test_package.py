"""The package holds what the tree holds, and keeps its promises about imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from osbc_deploy import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ORDER = [
    "arrays",
    "errors",
    "explanations",
    "clock",
    "_version",
    "jit",
    "vectors",
    "intervals",
    "plain_text",
    "limits",
    "parsing",
    "belonging",
    "folders",
    "apart",
    "writing",
    "progress",
    "deviations",
    "options",
    "plugins",
    "deadline",
    "cluster",
    "model",
    "data",
    "arguments",
    "compress",
    "fixedpoint",
    "lower",
    "chip",
    "backends",
    "frameworks",
    "formats",
    "child",
    "checkpoints",
    "references",
    "importing",
    "firmware",
    "telemetry",
    "release",
    "monitor",
    "bundled",
    "neurobench",
    "provenance",
    "accuracy",
    "fidelity",
    "results",
    "deployment",
    "exporting",
    "running",
    "inspection",
    "job",
    "pipeline",
    "fitting",
    "sweeping",
    "verification",
    "modules",
    "report",
    "testing",
    "cli",
]
"""Rooms and modules in the order in which they may import each other: only from before."""


def imports(path: Path) -> set[str]:
    """The rooms that a module imports from, in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in found]
    return {p[1] for p in parts if p[0] == "osbc_deploy" and len(p) > 1}


def test_imports_point_one_way() -> None:
    package = ROOT / "osbc_deploy"
    places: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        # The package itself is the door to all of them.
        if room not in ("__init__", "__main__"):
            places.setdefault(room, set()).update(imports(path) - {room, "__version__"})
    assert set(places) == set(ORDER) | {"bundled"}
    for room, used in places.items():
        before = set(ORDER[: ORDER.index(room)])
        assert used <= before, f"{room} imports from {sorted(used - before)}"


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "osbc_deploy").rglob("__init__.py")
    }
    found |= {path.parent.name for path in (ROOT / "backends").glob("*/__init__.py")}
    assert listed == found | {"osbc_deploy._targets"}


@pytest.mark.parametrize(
    "module",
    [
        "osbc_deploy",
        "osbc_deploy.backends",
        "osbc_backend_lava",
        "osbc_deploy.chip",
        "osbc_deploy.formats.folder",
        "osbc_deploy.data.datasets",
        "osbc_deploy.neurobench.workload",
    ],
)
def test_the_core_imports_neither_torch_nor_lava(module: str) -> None:
    heavy = {"torch", "lava", "norse", "tonic", "neurobench"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_test_file_of_a_modules_name_lies_where_the_module_does() -> None:
    rooms: dict[str, set[str]] = {}
    for path in (ROOT / "osbc_deploy").rglob("*.py"):
        rooms.setdefault(path.stem, set()).add(str(path.parent.relative_to(ROOT / "osbc_deploy")))
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = str(path.parent.relative_to(ROOT / "tests"))
        assert (ROOT / "osbc_deploy" / room).is_dir() or (ROOT / room).is_dir(), path
        # Any other name is a test of the whole room.
        name = path.stem.removeprefix("test_")
        assert room in rooms.get(name, {room}) or room == "backends", path


def test_readme_can_be_read_anywhere_and_its_links_lead_somewhere() -> None:
    home = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert len(links) > 15
    for link in links:
        if link.startswith("#"):
            assert f"## {link[1:]}" in readme.lower()
        elif link.startswith(home):
            kind, branch, path = link.removeprefix(f"{home}/").partition("#")[0].split("/", 2)
            assert branch == "main"
            assert (ROOT / path).is_file() if kind == "blob" else (ROOT / path).is_dir(), link
        else:
            assert link.startswith("https://"), link


def test_there_is_one_version() -> None:
    cited = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert cited == [__version__]
    assert re.findall(r"^## \[(.*?)\]", changes, re.MULTILINE)[:2] == ["Unreleased", __version__]
    assert re.search(rf"^## \[{__version__}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    sources = [*(ROOT / "osbc_deploy").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_chip_number_in_code() -> None:
    numbers = {"16000", "20000", "4095", "120", "131071", "16384"}
    for path in [*(ROOT / "osbc_deploy").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        literals = {
            str(n.value)
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Constant) and isinstance(n.value, int)
        }
        # 120 is also the width of the bundled MLP's hidden layer.
        found = literals & numbers - ({"120"} if "bundled" in path.parts else set())
        assert not found, f"{path}: {found}"
