"""Nothing that the set-up brings is left to the day on which it runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.version_info < (3, 11), reason="pins of older releases hold there")
def test_every_package_that_the_set_up_brings_is_pinned() -> None:
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci" / "pins.py")
    assert spec is not None
    assert spec.loader is not None
    pins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pins)
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    names = [name for _, name, version, _ in pins.pinned(lines) if version]
    assert len(set(names)) == len(names)
    brought = pins.installed()
    # Of the packages of packages; what nothing needs would be found without following anything.
    assert {"torch", "mpmath", "certifi", "click"} <= set(brought)
    assert sorted(set(brought) - set(names)) == []


def test_another_torch_brings_its_own_sympy() -> None:
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    noxfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noxfile)
    for version in noxfile.TORCHES:
        pins = noxfile.pins_for(version, (ROOT / "constraints.txt").read_text("utf-8"))
        assert f"\ntorch=={version}\n" in pins
        assert "\nsympy==" not in pins
