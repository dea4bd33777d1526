"""The package holds what the tree holds, and keeps its promises about imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ORDER = [
    "arrays",
    "errors",
    "_version",
    "jit",
    "plain_text",
    "limits",
    "parsing",
    "folders",
    "writing",
    "progress",
    "deviations",
    "plugins",
    "model",
    "data",
    "compress",
    "fixedpoint",
    "lower",
    "chip",
    "backends",
    "frameworks",
    "formats",
    "references",
    "importing",
    "firmware",
    "bundled",
    "neurobench",
    "provenance",
    "accuracy",
    "fidelity",
    "results",
    "deployment",
    "job",
    "pipeline",
    "fitting",
    "verification",
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
