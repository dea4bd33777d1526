"""The tests on other versions of Python and torch: ``nox``, and ``nox -s torch``.

Each session is ``make test`` in an environment of its own below ``.nox``, set up by the one recipe
there is. SpikingJelly, Lava and NumPy 2 come with the Pythons that have them.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.sessions = ["python"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
TORCHES = {"2.6.0": "0.21.0", "2.14.1": "0.29.1"}
"""Both ends of what pyproject.toml allows, and the torchvision of each."""


def pins_for(version: str, pins: str) -> str:
    """Return the constraints with another torch, which itself pins sympy."""
    for name, wanted in (("torch", version), ("torchvision", TORCHES[version])):
        pins = re.sub(rf"^{name}==.*$", f"{name}=={wanted}", pins, flags=re.MULTILINE)
    return re.sub(r"^sympy==.*\n", "", pins, flags=re.MULTILINE)


@nox.session(venv_backend="none")
@nox.parametrize("version", PYTHONS)
def python(session: nox.Session, version: str) -> None:
    """Run the tests on a version of Python, which is found as ``pythonX.Y``."""
    options = [f"PYTHON=python{version}", f"VENV=.nox/python{version}"]
    session.run("make", *options, "test", external=True)


@nox.session(venv_backend="none")
@nox.parametrize("version", list(TORCHES))
def torch(session: nox.Session, version: str) -> None:
    """Run the tests on an end of the range of torch."""
    pins = pins_for(version, Path("constraints.txt").read_text())
    folder = Path(".nox") / f"torch{version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "constraints.txt").write_text(pins)
    options = [f"VENV={folder}", f"CONSTRAINTS={folder}/constraints.txt"]
    session.run("make", *options, "test", external=True)
