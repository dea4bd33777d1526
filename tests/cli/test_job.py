"""Results are written one by one, and none keeps another back."""

from __future__ import annotations

from pathlib import Path

import pytest

from osbc_deploy.cli.job import save_results
from osbc_deploy.errors import OsbcError, WritingError


def test_a_result_that_cannot_be_written_keeps_no_other_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> None:
        raise WritingError(f"{path.name}: cannot be written (full).")

    def bug(path: Path) -> None:
        raise ZeroDivisionError(path.name)

    def well(path: Path) -> None:
        path.write_text("well")

    for places, first, said in (
        ((("a", full), ("b", well)), WritingError, ""),
        ((("a", bug), ("c", well)), ZeroDivisionError, ""),
        ((("a", full), ("b", bug), ("d", well)), ZeroDivisionError, "a: cannot be written"),
    ):
        with pytest.raises(first):
            save_results(*((tmp_path / name, save) for name, save in places), quiet=True)
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "d"]
    assert not issubclass(ZeroDivisionError, OsbcError)
