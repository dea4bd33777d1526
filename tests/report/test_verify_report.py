"""The verification report: its schema, its tables, its page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from osbc_deploy.report.verification.build import verify_json_schema
from osbc_deploy.report.verification.page import verify_page
from osbc_deploy.report.verification.terminal import print_verification
from osbc_deploy.verification.gates import check_gates, parse_gates
from osbc_deploy.verification.result import Verification
from verified import verification


@pytest.fixture(scope="module")
def found() -> Verification:
    seen = verification(bits=3, damage="w1")
    return replace(seen, findings=check_gates(seen, parse_gates(["mismatch=0", "clipped=1000"])))


@pytest.fixture(scope="module")
def report(found: Verification) -> dict[str, Any]:
    return found.report()


class Page(HTMLParser):
    """Collects tags, attributes and the texts of a page; refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def test_the_report_follows_its_schema_and_survives_json(report: dict[str, Any]) -> None:
    schema = verify_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), schema)
    bare = verification(labels=False).report()
    jsonschema.validate(json.loads(json.dumps(bare, allow_nan=False)), schema)
    for broken in ({**report, "ok": 1}, {**report, "more": 1}, {**report, "steps": []}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_the_report_says_what_was_found(found: Verification, report: dict[str, Any]) -> None:
    assert report["costliest"] == "w1"
    assert report["ok"] is False
    assert [gate["ok"] for gate in report["gates"]] == [False, True]
    entry = report["steps"][-1]["populations"][1]
    seen = found.step("total").propagated["p1"]
    assert entry["propagated"]["mismatch"] == seen.mismatches / seen.neuron_steps
    shown = report["shown"]
    stage = found.shown.records["fixed point"]
    (p1,) = (p for p in shown["populations"] if p["name"] == "p1")
    for number, neuron in enumerate(p1["neurons"]):
        steps = np.flatnonzero(stage.spikes["p1"][0, :, neuron]).tolist()
        assert p1["spikes"]["fixed point"][number] == steps
    trace = p1["traces"][0]
    # The threshold of the registers is the float network's, up to its rounding.
    assert trace["thresholds"]["fixed point"] == pytest.approx(0.2, rel=0.01)
    v = np.array(trace["v"]["fixed point"])
    assert (v <= trace["thresholds"]["fixed point"]).all()
    assert np.array_equal(v, stage.v["p1"][0, :, trace["neuron"]])


def test_the_page_stands_alone(report: dict[str, Any]) -> None:
    text = verify_page(report)
    page = parsed(text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    attributes = {key for _, found in page.tags for key in found}
    assert not {"src", "xlink:href"} & attributes
    # A picture uses its own marks.
    assert all(found["href"].startswith("#") for _, found in page.tags if "href" in found)
    assert not {key for key in attributes if key.startswith("on")}
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert "1 OF 2 GATES BROKEN" in page.text


def test_rasters_mark_each_difference_on_both_sides(report: dict[str, Any]) -> None:
    page_text = verify_page(report)
    drawn = re.findall(r'<g class="(\w+)">\s*<path d="([^"]*)"', page_text)
    classes = [kind for kind, path in drawn for _ in range(path.count("M"))]
    only = {"float": 0, "fixed point": 0}
    both = 0
    for population in report["shown"]["populations"]:
        spikes = population["spikes"]
        for a, b in zip(spikes["float"], spikes["fixed point"], strict=True):
            only["float"] += len(set(a) - set(b))
            only["fixed point"] += len(set(b) - set(a))
            both += len(set(a) & set(b))
    assert min(only.values()) > 0
    assert classes.count("odd") == classes.count("gone") == sum(only.values())
    assert classes.count("spike") == 2 * both


def test_names_are_escaped(report: dict[str, Any]) -> None:
    provenance = {**report["provenance"], "model": "<script>alert(1)</script>"}
    page = parsed(verify_page({**report, "provenance": provenance}))
    assert "script" not in {tag for tag, _ in page.tags}


def test_the_tables_name_populations_layers_and_gates(report: dict[str, Any]) -> None:
    out = io.StringIO()
    print_verification(report, Console(file=out, width=160))
    text = out.getvalue()
    for part in (
        "float to pruned: pruning",
        "pruned to compressed: quantization",
        "compressed to fixed point: fixed point",
        "costliest: layer w1",
        "Each layer alone, the others float (48 samples)",
        "gate mismatch: BROKEN",
        "gate clipped: ok",
        "backend: not compared",
    ):
        assert part in text
