"""The public API as a type checker sees it: what is right passes, and what is wrong is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent
CODE = ROOT / "tests" / "typing"


def test_mypy_accepts_what_is_right_and_finds_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    said, crashed, _ = api.run(["--no-pretty", str(CODE / "right.py"), str(CODE / "wrong.py")])
    assert crashed == ""
    errors = re.findall(r"^(.*?):(\d+): error: ", said, re.MULTILINE)
    found = {(Path(file).name, int(line)) for file, line in errors}
    wrong = (CODE / "wrong.py").read_text().splitlines()
    marked = {("wrong.py", n) for n, line in enumerate(wrong, 1) if line.endswith("# wrong")}
    assert len(marked) > 30
    assert found == marked, said
