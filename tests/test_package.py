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
    "jit",
    "plain_text",
    "limits",
    "parsing",
    "folders",
    "writing",
    "progress",
    "deviations",
    "network",
    "data",
    "compress",
    "fixedpoint",
    "chip",
    "artefact",
    "backends",
    "frontends",
    "export",
    "stored",
    "bundled",
    "report",
    "accuracy",
    "fidelity",
    "pipeline",
    "fit",
    "verify",
    "cli",
]
"""Folders and modules in the order in which they may import each other."""


def imports(path: Path) -> set[str]:
    """The parts of osbc_deploy a module imports when it is imported, functions left out."""
    tree = ast.parse(path.read_text())
    skipped = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    skipped |= {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped and node.module:
            parts = node.module.split(".")
            if parts[0] == "osbc_deploy" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_imports_point_one_way() -> None:
    package = ROOT / "osbc_deploy"
    for path in package.rglob("*.py"):
        place = path.relative_to(package).parts[0].removesuffix(".py")
        if place not in ORDER:
            continue
        later = set(ORDER[ORDER.index(place) + 1 :])
        # Number formats are data of the chip, so the chip may not need what is built on them.
        assert not imports(path) & later, f"{path} imports {imports(path) & later}"


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
        "osbc_deploy.artefact",
        "osbc_deploy.data.datasets",
        "osbc_deploy.report.workload",
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
