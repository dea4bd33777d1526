"""Texts that others wrote are shown as they are in every medium, as a real reader of it sees."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from hostile import HOSTILE
from osbc_deploy.cli.main import main
from osbc_deploy.firmware.library import export_c
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import read_network, write_network
from osbc_deploy.formats.nir.read import read_nir
from osbc_deploy.formats.nir.write import write_nir
from osbc_deploy.plain_text import many, message
from osbc_deploy.report.check.findings import LimitResult
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.deployment.terminal import print_report
from osbc_deploy.report.formats import cores_csv, findings_junit, findings_markdown
from osbc_deploy.report.verification.page import verify_page
from osbc_deploy.report.verification.terminal import print_verification
from osbc_deploy.verification.result import Verification
from verified import verification

STORED = [text for text in HOSTILE if "\ud800" not in text]
"""What can be a layer's name: files hold no lone surrogates."""

TOGETHER = [" ".join(HOSTILE[k::4]) for k in range(4)]
"""All of them in a few texts, for what takes long to make."""


def seen(text: str) -> str:
    """What a reader should see: a character, or Python's own escape where there is no glyph."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@pytest.fixture(scope="module")
def done() -> Verification:
    return verification(bits=4)


def swapped(report: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a report in which the names of one layer and what else others write is `text`."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {text if key == "p1" else key: walk(part) for key, part in value.items()}
        if isinstance(value, list):
            return [walk(part) for part in value]
        return text if value in ("w1", "p1", "random") else value

    found: dict[str, Any] = walk(json.loads(json.dumps(report)))
    found["target"] |= {"name": text, "title": text}
    found["provenance"]["model"] = text
    note = {"stage": "import", "subject": text, "message": text}
    if "deviations" in found:
        found |= {"deviations": [note], "excesses": [text], "fits": False}
    return found


class Page(HTMLParser):
    """What a browser makes of a page: tags, the names of their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.values: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = lambda self, data: self.tags.append(data)


@pytest.mark.parametrize("kind", ["deployment", "verification"])
def test_html_pages_hold_the_text_and_no_tag_of_it(kind: str, done: Verification) -> None:
    def page(text: str) -> Page:
        if kind == "deployment":
            return Page(report_page(swapped(done.deployment.report(), text)))
        return Page(verify_page(swapped(done.report(), text)))

    plain = page("plain name")
    for text in TOGETHER:
        found = page(text)
        assert (found.tags, found.attributes) == (plain.tags, plain.attributes), text
        said = "".join(found.texts)
        assert said.count(seen(text)) >= "".join(plain.texts).count("plain name") > 5, text
        written = sum(seen(text) in value for value in found.values)
        assert written == sum("plain name" in value for value in plain.values)


@pytest.mark.parametrize("kind", ["deployment", "verification"])
def test_the_terminal_shows_the_text_and_obeys_none_of_it(kind: str, done: Verification) -> None:
    for text in TOGETHER:
        out = io.StringIO()
        console = Console(file=out, width=4000, color_system=None)
        if kind == "deployment":
            print_report(swapped(done.deployment.report(), text), console)
        else:
            print_verification(swapped(done.report(), text), console)
        shown = out.getvalue()
        assert shown.count(seen(text)) >= 5, text
        assert all(c.isprintable() or c == "\n" for c in shown), text
        assert "\nverdict: FITS\n" not in shown


def test_messages_cannot_forge_lines_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert message("a\nverdict: FITS\n  - b") == "a\n  verdict: FITS\n  - b"
    assert message("\x1b[2J\r\u202e") == r"\x1b[2J\r\u202e"
    for hostile in HOSTILE:
        if "\0" in hostile:
            continue
        text = hostile.replace("\ud800", "\udcff")  # as arguments that are not UTF-8 come
        for args in (["map", text], ["map", "x", "--target", text], ["report", "x", f"--{text}"]):
            with pytest.raises(SystemExit) as code:
                main(args)
            assert code.value.code == 2
            said = capsys.readouterr()
            assert said.out == ""
            first, *rest = said.err.splitlines()
            assert first.startswith(("error[E", "Usage: ")), text
            # click's own lines about usage stand between.
            assert all(line.startswith("  ") or not line for line in rest), said.err
            assert all(c.isprintable() or c == "\n" for c in said.err)


def findings(text: str) -> list[LimitResult]:
    return [LimitResult(text, "resource", 1, 0, False, text)]


def test_markdown_cells_hold_the_text_and_no_syntax() -> None:
    reader = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")
    for text in HOSTILE:
        page = Page(reader.render(findings_markdown(findings(text))))
        assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td", "strong"}, text
        assert page.tags.count("tr") == 2
        assert page.tags.count("td") == 3
        said = "".join(page.texts).split("FAIL")
        assert said[1].strip() == seen(text).strip()
        assert said[0].rsplit("result", 1)[1].strip() == seen(text).strip()
        # Readers that link whatever looks like an address find none.
        assert "://" not in findings_markdown(findings(text))
        assert "www." not in findings_markdown(findings(text))


def test_junit_is_well_formed_and_holds_the_text() -> None:
    for text in HOSTILE:
        written = findings_junit(findings(text)).encode("utf-8")
        suite = ElementTree.fromstring(written)  # noqa: S314 - our own output
        (case,) = suite
        assert case.get("name") == seen(text)
        assert case[0].get("message") == seen(text)


def test_csv_cells_are_no_formulas(done: Verification) -> None:
    for text in HOSTILE:
        report = swapped(done.deployment.report(), text)
        written = cores_csv(report).encode("utf-8").decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(written, newline="")))
        assert len(rows) == len(report["cores"])
        for row, core in zip(rows, report["cores"], strict=True):
            assert row["layer"].removeprefix("'") == seen(core["layer"])
            assert int(row["bytes"]) == core["bytes"]
            assert not [cell for cell in row.values() if re.match(r"[=+\-@\t\r＝＋－＠]", cell)]  # noqa: RUF001
    report = swapped(done.deployment.report(), "=1")
    report["cores"][0]["limiting_share"] = -0.5
    assert "-0.5" in cores_csv(report).splitlines()[1].split(",")


def called(network: FixedPointNetwork, names: list[str]) -> FixedPointNetwork:
    """Return a network with its projections and populations called `names`."""
    old = [*(p.name for p in network.projections), *(p.name for p in network.populations)]
    new = dict(zip(old, names, strict=True)) | {"input": "input"}
    return replace(
        network,
        projections=tuple(
            replace(p, name=new[p.name], pre=new[p.pre], post=new[p.post])
            for p in network.projections
        ),
        populations=tuple(replace(p, name=new[p.name]) for p in network.populations),
    )


def in_groups(texts: list[str], size: int) -> list[list[str]]:
    """Return all texts in groups, the last one filled up from the first."""
    padded = texts + [text for text in texts if text not in texts[-(len(texts) % size) :]]
    return [padded[k : k + size] for k in range(0, len(texts), size)]


def test_files_keep_every_name(done: Verification, tmp_path: Path) -> None:
    network = done.deployment.lowered.network
    for number, names in enumerate(in_groups(STORED, 6)):
        other = called(network, names)
        folder = tmp_path / str(number)
        folder.mkdir()
        write_network(other, folder)
        (folder / "network.json").read_text("ascii")
        back = read_network(folder)
        assert [*(p.name for p in back.projections), *(p.name for p in back.populations)] == names


def test_nir_files_are_written_whatever_the_names(done: Verification, tmp_path: Path) -> None:
    network = done.deployment.compressed.network
    old = [p.name for p in network.populations]
    for number, texts in enumerate([*in_groups([*STORED, "."], len(old)), ["", "..", "z"]]):
        new = dict(zip(old, texts, strict=True)) | {"input": "input"}
        changed = replace(
            network,
            populations=tuple(replace(p, name=new[p.name]) for p in network.populations),
            projections=tuple(
                replace(p, pre=new[p.pre], post=new[p.post]) for p in network.projections
            ),
        )
        path = tmp_path / f"{number}.nir"
        write_nir(changed, path)
        back = read_nir(path)
        held = ["_" if text in ("", ".") else re.sub(r"[/\0]", "_", text) for text in texts]
        assert [p.name for p in back.populations] == held
        assert back.weights == network.weights


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_comments_of_the_c_library_end_where_they_should(
    done: Verification, tmp_path: Path
) -> None:
    network = done.deployment.lowered.network
    for number, names in enumerate(in_groups(list(HOSTILE), 6)):
        folder = tmp_path / str(number)
        export_c(called(network, names), folder, name="net")
        source = (folder / "net_weights.c").read_bytes()
        assert source.isascii()
        flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wcomment", "-Wtrigraphs", "-Werror"]
        # gcc -std=c99 replaces trigraphs, as compilers for chips do.
        subprocess.run(
            ["gcc", *flags, "-fsyntax-only", "net_weights.c"], cwd=folder, check=True, timeout=1800
        )
        comments = re.findall(rb"^    /\* (.*) \*/$", source, re.MULTILINE)
        assert len(comments) == len(names)
        for text, comment in zip(names, comments, strict=True):
            if text.isascii() and text.isprintable() and not re.search(r"\*/|/\*|\?\?", text):
                assert comment.decode() == text


@pytest.mark.parametrize("name", ["report", "verification"])
def test_json_is_ascii_and_keeps_the_text(name: str, done: Verification) -> None:
    report = done.deployment.report() if name == "report" else done.report()
    for text in HOSTILE:
        written = json.dumps(swapped(report, text), allow_nan=False)
        assert written.isascii()
        assert json.loads(written)["target"]["title"] == text


def test_counts_of_one_are_singular() -> None:
    assert [many(n, "sample") for n in (0, 1, 1200)] == ["0 samples", "1 sample", "1,200 samples"]
