"""What is said: errors with their codes, a log file, and tables as wide as they may be."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from osbc_deploy.cli import progress
from osbc_deploy.cli.console import keep_log, table_console
from osbc_deploy.cli.main import main
from osbc_deploy.cli.progress import Bars
from osbc_deploy.errors import WritingError
from osbc_deploy.report.deployment.terminal import print_report
from osbc_deploy.report.tables import PlainTable
from verified import verification


@pytest.fixture
def logged() -> Iterator[None]:
    """Close the log at the end: it is the process's."""
    yield
    logger = logging.getLogger("osbc_deploy.cli")
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


@pytest.mark.usefixtures("logged")
def test_a_log_holds_the_command_the_errors_and_what_bars_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.txt").write_text("before\n")
    with pytest.raises(SystemExit) as end:
        main(
            [
                "deploy",
                "a.py:net",
                "--target",
                "loihi2",
                "--calibration",
                "b.npz",
                "--log",
                "log.txt",
            ]
        )
    assert end.value.code == 2
    assert "error[E201]: b.npz: no such file" in capsys.readouterr().err
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    with Bars(quiet=True) as bars:
        bars.start("solve", 3)
        while "solve 0 of 3" not in (tmp_path / "log.txt").read_text():
            pass
    assert capsys.readouterr().err == ""
    before, *lines = (tmp_path / "log.txt").read_text().splitlines()
    assert before == "before"
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line) for line in lines)
    assert lines[0].endswith(
        "osbc-deploy deploy a.py:net --target loihi2 --calibration b.npz --log log.txt"
    )
    assert "error[E201]: b.npz: no such file" in lines[1]
    with pytest.raises(WritingError, match="--log: gone/log.txt cannot be written"):
        keep_log(Path("gone/log.txt"))


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["deploy", "--log", "log.txt", "--no-such"], "E240"),
        (["deploy", "--target", "loihi2", "--log=log.txt", "--bits"], "E240"),
        (["deploy", "--bits", "many", "--log", "log.txt"], "E240"),
        (["deploi", "--log", "log.txt"], "E201"),
    ],
)
def test_a_log_holds_the_errors_of_the_command_line(
    words: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr().err.splitlines()
    assert any(line.strip().startswith(f"error[{code}]") for line in said)
    command, *lines = (tmp_path / "log.txt").read_text().splitlines()
    assert command.endswith(f" osbc-deploy {' '.join(words)}")
    assert said[0] in lines[0]
    assert said[-1] in lines[-1]


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("read", ["net.py:net", "--calibration=net.py", "."])
def test_a_refused_command_line_does_not_log_into_what_it_reads(
    read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("net = None\n")
    with pytest.raises(SystemExit):
        main(["deploy", read, "--log", "net.py", "--no-such"])
    assert (tmp_path / "net.py").read_text() == "net = None\n"


def test_tables_are_as_wide_as_asked_and_not_squeezed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert table_console(io.StringIO()).width == 160
    monkeypatch.setenv("COLUMNS", "80")
    assert table_console(io.StringIO()).width == 80


def test_a_summary_fits_80_columns_and_details_say_the_rest() -> None:
    report: dict[str, Any] = json.loads(json.dumps(verification().deployment.report()))
    texts = {}
    for details in (False, True):
        out = io.StringIO()
        print_report(report, Console(file=out, width=80), details=details)
        texts[details] = out.getvalue()
        boxes = [line for line in texts[details].splitlines() if re.match(r"[┏┡│└]", line.strip())]
        assert boxes
        assert max(map(len, boxes)) <= 80
        assert texts[details].startswith(("verdict: FITS", "warning: "))
    names = {"variant", "selection", "Share of each resource", "note (", "operations: "}
    assert not [name for name in names if name in texts[False]]
    assert [name for name in names if name in texts[True]]
    first = report["cores"][0]
    one = {**first, "slice": "40:41", "core": 7}
    out = io.StringIO()
    print_report({**report, "cores": [first, one]}, Console(file=out, width=80), details=False)
    assert f"core 7 holds one neuron of layer {first['layer']}: one neuron less" in out.getvalue()


def test_a_table_that_is_too_wide_is_printed_in_parts() -> None:
    table = PlainTable("a title")
    for name in ("layer", *"abcdef"):
        table.add_column(name)
    table.add_row("w0", *(f"cell {name} of the row" for name in "abcdef"))
    texts = {}
    for width in (200, 60):
        out = io.StringIO()
        Console(file=out, width=width).print(table)
        texts[width] = out.getvalue()
        assert max(map(len, texts[width].splitlines())) <= width
        assert all(f"cell {name} of the row" in texts[width] for name in "abcdef")
    assert (texts[200].count("w0"), texts[60].count("w0")) == (1, 3)
    assert texts[60].count("a title") == 1
