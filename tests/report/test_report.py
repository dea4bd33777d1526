"""Reports read back, compared and held against budgets."""

from __future__ import annotations

import copy
import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import norse.torch as norse
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import osbc_deploy
from osbc_deploy.cli.main import cli
from osbc_deploy.errors import OsbcError
from osbc_deploy.provenance import sealed
from osbc_deploy.report.check.budget import Budget
from osbc_deploy.report.check.findings import check_report
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.difference import difference
from osbc_deploy.report.measures import layer_measures
from osbc_deploy.report.read import read_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real deployment."""
    path = tmp_path_factory.mktemp("deployed") / "image"
    torch.manual_seed(0)
    model = norse.SequentialState(
        nn.Conv2d(2, 6, 3),
        norse.LIFCell(),
        nn.Flatten(),
        nn.Linear(216, 8),
        norse.LIFBoxCell(),
        nn.Linear(8, 4),
        norse.LICell(),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    spikes = (np.random.default_rng(0).random((20, 10, 2, 8, 8)) < 0.3).astype(np.uint8)
    done = osbc_deploy.deploy(
        model, (spikes, np.arange(20) % 4), target="loihi2", sparsity=0.5, backend_samples=2
    )
    done.save(path)
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """Its report, as read from JSON."""
    plain: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return plain


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "image")
    return tmp_path


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report with numbers of our own, and their digest."""
    path.write_text(json.dumps(sealed(report)))


def call(*args: Any) -> Result:
    """Run a command in this process; errors of ours come back as the exception."""
    result = CliRunner().invoke(cli, [str(a) for a in args], standalone_mode=False)
    if result.exception is not None and not isinstance(result.exception, OsbcError):
        raise result.exception
    return result


def check(files: Path, budget: str, *args: Any) -> Result:
    (files / "budget.toml").write_text("schema = 1\n" + budget)
    return call("check", files / "image", "--budget", files / "budget.toml", *args)


def test_measures_are_sums_over_the_cores(report: dict[str, Any]) -> None:
    measures = layer_measures(report)
    assert list(measures) == ["0", "3", "5"]
    assert sum(m["memory_bytes"] for m in measures.values()) == report["memory"]["deployed_bytes"]
    assert sum(m["cores"] for m in measures.values()) == len(report["cores"])
    assert measures["0"]["neurons"] == 6 * 6 * 6
    for layer in measures.values():
        bits = sum(layer[part] for part in ("payload", "index", "header", "padding"))
        assert bits == layer["synapses_used"] * 64


@pytest.mark.parametrize(
    ("budget", "code", "words"),
    [
        ("[budget]\ncores = 120", 0, ["fits loihi2", "mismatched spikes and potentials  0 of 0"]),
        ("[budget]\ncores = 3\nmemory_bytes = 10_000_000", 0, ["cores", "3 of 3"]),
        ("[budget]\ncores = 2", 4, ["3 of 2, 1 over"]),
        ("[budget]\nmemory_bytes = 100", 4, ["memory", "over"]),
        ("[budget]\naccuracy_floor = 1.0", 5, ["short"]),
        ("[budget]\naccuracy_drop = 1.0", 0, ["lost on 20 samples, at most 100.00%"]),
        ("[budget]\nmismatched_spikes = 0", 0, ["mismatched spikes"]),
        ("[budget]\ncores = 2\naccuracy_floor = 1.0", 4, ["1 over", "short"]),
        ("[resources]\ntotal = 0.9", 0, ["core 0 total"]),
        ("[resources]\naxon_map = 0.001", 4, ["core 0 axon_map"]),
        ("[layers.3]\ncores = 0", 4, ["layer 3 cores", "1 of 0, 1 over"]),
        ("[layers.5]\nmemory_bytes = 100_000", 0, ["layer 5 memory"]),
    ],
)
def test_budgets(budget: str, code: int, words: list[str], files: Path) -> None:
    done = check(files, budget)
    assert done.return_value == code, done.output
    for word in words:
        assert word in done.output


@pytest.mark.parametrize(
    ("share", "most", "limit"), [(0.6, 6, 3), (0.29, 100, 29), (0.79, 8, 6), (1.0, 7, 7)]
)
def test_a_share_of_a_core_is_whole_and_not_more(
    share: float, most: int, limit: int, report: dict[str, Any]
) -> None:
    for used, ok in ((limit, True), (limit + 1, False)):
        one = copy.deepcopy(report)
        one["cores"] = one["cores"][:1]
        one["cores"][0]["resources"]["total"].update(used=used, max=most)
        budget = Budget.model_validate({"schema": 1, "resources": {"total": share}})
        (finding,) = [f for f in check_report(one, budget) if f.name.endswith("total")]
        assert finding.ok is ok
        assert f"{used} of {limit} " in finding.message


@pytest.mark.parametrize(
    ("before", "share", "limit"),
    [(10, 0.19, 11), (100, 0.15, 115), (180, 0.15, 207), (7, 0.1, 7), (7, 0.0, 7)],
)
def test_growth_is_in_whole_bytes_and_not_less(
    before: int, share: float, limit: int, report: dict[str, Any]
) -> None:
    baseline, budget = copy.deepcopy(report), {"schema": 1, "growth": {"memory": share}}
    baseline["memory"]["deployed_bytes"] = before
    for used, ok in ((limit, True), (limit + 1, False)):
        grown = copy.deepcopy(report)
        grown["memory"]["deployed_bytes"] = used
        found = check_report(grown, Budget.model_validate(budget), baseline)
        assert {f.ok for f in found if f.name == "memory since baseline"} == {ok}


def test_a_limit_of_losses_is_not_rounded(report: dict[str, Any]) -> None:
    # 1 - 147 / 150 is more than 0.02 by a last bit, which is none of the samples.
    budget = Budget.model_validate({"schema": 1, "budget": {"accuracy_drop": 0.02}})
    for right, ok in ((147, True), (146, False)):
        now = copy.deepcopy(report)
        now["accuracy"].update({"float": 1.0, "fixed_point": right / 150})
        (finding,) = [f for f in check_report(now, budget) if f.name == "accuracy drop"]
        assert finding.ok is ok


def test_growth_is_measured_against_the_baseline(files: Path, report: dict[str, Any]) -> None:
    smaller = copy.deepcopy(report)
    del smaller["pruning"]
    memory, cores = smaller["memory"], smaller["cores"]
    for core in cores:
        core["bytes"] = 8 * int(core["bytes"] / 8.8)
    memory["deployed_bytes"] = sum(core["bytes"] for core in cores)
    memory["deployed_words"] = memory["deployed_bytes"] * 8 // memory["word_bits"]
    cores[-1]["core"] = cores[0]["core"]
    memory["cores_used"] -= 1
    accuracy = min(1.0, report["accuracy"]["fixed_point"] + 0.25)
    smaller["accuracy"].update(fixed_point=accuracy, agreement=0.0)
    base = files / "base.json"
    write(base, smaller)
    assert check(files, "[growth]\nmemory = 0.2\ncores = 1", "--baseline", base).return_value == 0
    assert check(files, "[growth]\nmemory = 0.05", "--baseline", base).return_value == 4
    assert check(files, "[growth]\ncores = 0", "--baseline", base).return_value == 4
    assert check(files, "[growth]\naccuracy_drop = 0.2", "--baseline", base).return_value == 5
    assert check(files, "[growth]\naccuracy_drop = 0.25", "--baseline", base).return_value == 0


def test_the_baseline_is_renewed_only_by_a_report_that_passes(files: Path) -> None:
    base = files / "base.json"
    options = ("--baseline", base, "--update-baseline")
    assert check(files, "[budget]\ncores = 1", *options).return_value == 4
    assert not base.exists()
    assert check(files, "[growth]\ncores = 0", *options).return_value == 0
    assert read_report(base) == read_report(files / "image")
    assert not list(files.glob(".*"))


@pytest.mark.parametrize("form", ["table", "json", "junit", "markdown"])
def test_every_format_names_the_failure(form: str, files: Path) -> None:
    done = check(files, "[budget]\ncores = 2\nmemory_bytes = 10_000_000", "--format", form)
    assert done.return_value == 4
    text = done.stdout
    if form == "json":
        parsed = json.loads(text)
        assert not parsed["ok"]
        assert [f["name"] for f in parsed["findings"] if not f["ok"]] == ["cores"]
    elif form == "junit":
        suite = ElementTree.fromstring(text)  # noqa: S314 - our own output
        assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
        failure = suite.find("testcase/failure")
        assert failure is not None
        assert failure.get("message") == "3 of 2, 1 over"
    else:
        assert "FAIL" in text
        assert "3 of 2, 1 over" in text


@pytest.mark.parametrize(
    ("budget", "args", "words"),
    [
        ("[budget]\ncolor = 3", (), "budget.color"),
        ("[budget]\ncores = -1", (), "greater than or equal"),
        ("[budget]\naccuracy_floor = 95", (), "less than or equal"),
        ("[layers.9]\ncores = 1", (), "known: 0, 3, 5"),
        ("[resources]\nmagic = 0.5", (), "known: axon_in"),
        ("[growth]\ncores = 0", (), "baseline"),
        ("[budget", (), "not valid TOML"),
        ("", (), "no limit in it"),
        ("[growth]\nretrained = true", (), "no limit in it"),
        ("[layers.0]", (), "no limit in it"),
        ("[growth]\nmemory = inf", (), "growth.memory"),
        ("[growth]\nmemory = nan", (), "growth.memory"),
        ("[budget]\ncores = true", (), "budget.cores"),
        ("[budget]\ncores = '5'", (), "budget.cores"),
        ("[budget]\ncores = " + "9" * 5000, (), "not valid TOML"),
        ("deep = " + "[" * 5000, (), "not valid TOML"),
        ("[budget]\ncores = 1", ("--update-baseline",), "--baseline"),
        (
            "[budget]\ncores = 1",
            ("--baseline", "gone.json"),
            "gone.json: no such file. Make this report the first",
        ),
    ],
)
def test_bad_budgets_are_named(budget: str, args: tuple[str, ...], words: str, files: Path) -> None:
    done = check(files, budget, *args)
    assert isinstance(done.exception, OsbcError)
    assert done.exception.exit_code == 2
    assert words in str(done.exception)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("target", {"sha256": "0" * 64}, "of target loihi2 (000000000000), the report of loihi2"),
        ("test", {"sha256": "0" * 64}, "of test data"),
        (None, {"model_sha256": "0" * 64}, "retrained = true allows another model"),
    ],
)
def test_a_baseline_of_another_target_data_or_model_is_refused(
    part: str | None, change: dict[str, str], said: str, files: Path, report: dict[str, Any]
) -> None:
    base = files / "base.json"
    other = copy.deepcopy(report)
    (other["provenance"][part] if part else other["provenance"]).update(change)
    write(base, other)
    for options in ((), ("--update-baseline",)):
        done = check(files, "[growth]\ncores = 0", "--baseline", base, *options)
        assert isinstance(done.exception, OsbcError)
        assert done.exception.exit_code == 6
        assert said in str(done.exception)
    retrained = check(files, "[growth]\ncores = 0\nretrained = true", "--baseline", base)
    assert (retrained.return_value == 0) == (part is None)


def test_a_baseline_of_another_schema_is_refused(files: Path, report: dict[str, Any]) -> None:
    base = files / "base.json"
    write(base, {**report, "schema": "osbc-deploy/report/5"})
    done = check(files, "[growth]\ncores = 0", "--baseline", base)
    assert isinstance(done.exception, OsbcError)
    assert done.exception.exit_code == 6
    assert "Deploy again" in str(done.exception)


def corrupt(report: dict[str, Any], how: str) -> str:
    broken = copy.deepcopy(report)
    if how == "text":
        return "{"
    if how == "list":
        return "[]"
    if how == "missing":
        del broken["cores"]
    elif how == "negative":
        broken["cores"][0]["bytes"] = -1
    elif how == "extra":
        broken["memory"]["surprise"] = 1
    return json.dumps(broken)


@pytest.mark.parametrize("how", ["text", "list", "missing", "negative", "extra"])
def test_corrupted_reports_are_refused(how: str, files: Path, report: dict[str, Any]) -> None:
    (files / "image" / "report.json").write_text(corrupt(report, how))
    for command in (("report", files / "image"), ("diff", files / "image", files / "image")):
        done = call(*command)
        assert isinstance(done.exception, OsbcError)
        assert done.exception.exit_code == 6


def test_difference_lists_what_changed_and_nothing_else(report: dict[str, Any]) -> None:
    assert difference(report, report) == []
    after = copy.deepcopy(report)
    after["compression"]["layers"][1]["bits"] = 3
    after["memory"]["deployed_bytes"] += 80
    after["accuracy"]["float"] = None
    rows = {(r["where"], r["what"]): r for r in difference(report, after)}
    assert rows["network", "memory_bytes"]["change"] == 80
    assert rows["layer 3", "bits"]["change"] == -1
    assert rows["network", "accuracy float"]["change"] is None
    assert len(rows) == 3


def test_networks_that_measure_alike_are_told_apart(report: dict[str, Any]) -> None:
    after = copy.deepcopy(report)
    after["provenance"]["network_sha256"] = "5" * 64
    after["provenance"]["test"]["sha256"] = "7" * 64
    after["fidelity"]["mismatched_potentials"] += 3
    rows = {(r["where"], r["what"]): r for r in difference(report, after)}
    assert rows["network", "network sha256"]["after"] == "5" * 12
    assert rows["network", "test sha256"]["after"] == "7" * 12
    assert rows["network", "mismatched potentials"]["change"] == 3
    assert len(rows) == 3


def test_the_difference_has_what_a_microcontroller_counts(report: dict[str, Any]) -> None:
    before = copy.deepcopy(report)
    for core in before["cores"]:
        core["resources"] = {"flash": {"used": 30}, "ram": {"used": 7}}
    before["operations"]["instructions"] = {"worst": 41.5}
    after = copy.deepcopy(before)
    after["cores"][0]["resources"]["ram"]["used"] = 5
    after["operations"]["instructions"]["worst"] = 43.5
    rows = {(r["where"], r["what"]): r["change"] for r in difference(before, after)}
    assert rows == {("network", "ram"): -2, ("network", "instructions"): 2}


def test_a_layer_that_is_new_is_in_the_difference(report: dict[str, Any]) -> None:
    before = copy.deepcopy(report)
    before["compression"]["layers"].pop()
    before["populations"].pop()
    before["cores"] = [c for c in before["cores"] if c["layer"] != "5"]
    rows = [r for r in difference(before, report) if r["where"] == "layer 5"]
    assert rows
    assert all(r["before"] is None and r["change"] is None for r in rows)


def test_report_formats(files: Path, report: dict[str, Any]) -> None:
    table = call("report", files / "image").output
    assert "FITS" in table
    assert "0[0:6, 0:6, 0:6]" in table
    rows = list(
        csv.DictReader(io.StringIO(call("report", files / "image", "--format", "csv").output))
    )
    assert [int(r["bytes"]) for r in rows] == [c["bytes"] for c in report["cores"]]
    assert int(rows[0]["total_max"]) == report["cores"][0]["resources"]["total"]["max"]
    written = call("report", files / "image", "--format", "json", "-o", files / "copy.json")
    assert written.return_value == 0
    assert json.loads((files / "copy.json").read_text()) == report
    assert call("diff", files / "image", files / "copy.json").output == "no difference\n"
    assert isinstance(call("report", files / "gone").exception, OsbcError)


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    VOID: ClassVar[set[str]] = {"meta", "rect", "path", "circle", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID or (tag == "rect" and self.stack[-1:] == ["svg"]):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_layers_that_share_a_core_are_one_cell_and_stacked(report: dict[str, Any]) -> None:
    shared = copy.deepcopy(report)
    shared["placement"] = None
    shared["memory"]["cores_available"] = 1
    for core in shared["cores"]:
        ram = {"used": 40, "max": 100}
        core |= {"core": 0, "resources": {"flash": {"used": 1, "max": 100}, "ram": ram}}
        core |= {"limiting": "ram", "limiting_share": 0.4}
    text = report_page(shared)
    used = 40 * len(report["cores"])
    assert text.count('class="over"') == 1
    assert 'class="free"' not in text
    assert f"{used} of 100 B ({used}%)" in text
    assert "core 0 · flash" in text


def test_the_page_is_self_contained_and_escapes_what_it_shows(
    files: Path, report: dict[str, Any]
) -> None:
    hostile = copy.deepcopy(report)
    hostile["provenance"]["model"] = "<script>alert(1)</script>"
    hostile["excesses"] = ["chip: <b>over</b>"]
    hostile["fits"] = False
    write(files / "image" / "report.json", hostile)
    text = call("report", files / "image", "--format", "html").output
    page = Page()
    page.feed(text)
    assert page.stack == []
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "chip: <b>over</b>" in page.text
    assert "DOES NOT FIT" in page.text
    assert not {name for name, _ in page.attributes} & {"src", "onload", "onclick"}
    # A picture uses its own marks.
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert "http" not in text.replace("http-equiv", "")
    # One cell for every core of the chip; a bar for every core in use and every layer.
    assert page.tags.count("svg") == 1 + len(report["cores"]) + 3 + 1
    assert f"{report['memory']['deployed_bytes']:,} B" in page.text
