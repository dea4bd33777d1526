"""Every error has a code of its own, and every code an explanation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from osbc_deploy import errors
from osbc_deploy.cli.main import cli
from osbc_deploy.explanations import COMMAND_LINE, EXPLANATIONS, MEMORY, SYSTEM

ROOT = Path(__file__).parents[1]
CLASSES = [v for v in (getattr(errors, name) for name in errors.__all__) if isinstance(v, type)]


def test_every_error_has_a_code_and_every_code_an_explanation() -> None:
    codes = [cls.__dict__["code"] for cls in CLASSES]
    assert len(codes) == len(set(codes))
    assert {*codes, COMMAND_LINE, SYSTEM, MEMORY} == set(EXPLANATIONS)
    for cls in CLASSES:
        assert int(cls.code[1]) == cls.exit_code, cls


def test_every_class_is_raised_by_something() -> None:
    source = "".join(p.read_text("utf-8") for p in (ROOT / "osbc_deploy").rglob("*.py"))
    raised = set(re.findall(r"raise (\w+)\(|error=(\w+)|error: type\[\w+\] = (\w+)", source))
    used = {name for found in raised for name in found}
    assert {cls.__name__ for cls in CLASSES} - used == {"OsbcError"}


def test_a_code_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("e201", "error[E201]"):
        cli.main(["explain", given], standalone_mode=False)
        assert capsys.readouterr().out.startswith("E201: something that was named is not there")
    cli.main(["explain", "--json"], standalone_mode=False)
    assert set(json.loads(capsys.readouterr().out)) == set(EXPLANATIONS)
    with pytest.raises(errors.NotFoundError, match="E299: is not a code of an error"):
        cli.main(["explain", "E299"], standalone_mode=False)
