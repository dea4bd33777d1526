"""Every page in a real browser, at three widths: nothing overlaps, nothing is cut off.

Skipped where playwright or Chromium is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import small_models
from device_records import LAYERS, device_records, few_streams
from osbc_deploy import FitBudget, fit, sweep
from osbc_deploy.monitor.baseline import Promise, make_baseline
from osbc_deploy.monitor.intake import Intake
from osbc_deploy.monitor.judgement import judge
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.fitting.page import fit_page
from osbc_deploy.report.monitoring.page import judgement_page
from osbc_deploy.report.sweeping.page import sweep_page
from osbc_deploy.report.verification.page import verify_page
from verified import verification

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

FAULTS = """() => {
  const faults = [], page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) faults.push("the page is wider than the window");
  const name = (e) => (e.textContent || e.tagName).trim().slice(0, 40);
  for (const e of document.querySelectorAll("body *:not(svg *)"))
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && !e.closest(".scroll")
        && getComputedStyle(e).display !== "inline")
      faults.push("cut off: " + name(e));
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll("text")].map((e) => [e, e.getBoundingClientRect()]);
    boxes.forEach(([e, a], k) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1
          || a.bottom > frame.bottom + 1) faults.push("outside its picture: " + name(e));
      for (const [f, b] of boxes.slice(k + 1))
        if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
          faults.push("over each other: " + name(e) + " and " + name(f));
    });
  }
  const bare = document.querySelectorAll("svg:not([aria-label]):not(:has(> title))");
  for (const svg of bare) if (!svg.closest(".legend")) faults.push("a picture without words");
  return faults;
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = verification(damage="w1")
    data = small_models.data()
    common: dict[str, Any] = {"backend": "engine", "backend_samples": 1, "tune": False}
    grid: dict[str, Any] = {"sparsities": [0.5], "bits": [4], "methods": ["osbc", "magnitude"]}
    swept = sweep(small_models.model(), data, targets=["loihi2"], **grid, **common)
    fitted = fit(
        small_models.model(), data, budget=FitBudget(cores=9), bits=(8,), **common, target="loihi2"
    )
    with few_streams():
        usual = Intake(tuple(device_records(2500)), {}, ())
        baseline = make_baseline(usual, LAYERS, Promise(days=10, per_day=50), source="device")
        moved = device_records(200, 7) + device_records(60, 8, start=200, level=1.06)
        judged = judge(moved, baseline)
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "report": report_page(found.deployment.report()),
        "verify": verify_page(found.report()),
        "sweep": sweep_page(swept.report()),
        "fit": fit_page(fitted),
        "monitor": judgement_page(judged, "a device"),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_nothing_overlaps_and_nothing_is_cut_off(pages: dict[str, Path], browser: Any) -> None:
    shots = os.environ.get("OSBC_DEPLOY_SHOTS")
    found = {}
    # Colors move nothing: the dark pages are only for those who look at them.
    for scheme in ("light", "dark") if shots else ("light",):
        window = browser.new_page(color_scheme=scheme)
        for name, path in pages.items():
            window.goto(path.as_uri())
            for width in (360, 768, 1920):
                window.set_viewport_size({"width": width, "height": 900})
                if faults := window.evaluate(FAULTS):
                    found[name, width, scheme] = faults
                if shots:
                    window.screenshot(path=f"{shots}/{name}-{width}-{scheme}.png", full_page=True)
        window.close()
    assert found == {}


def test_the_test_sees_faults(browser: Any) -> None:
    window = browser.new_page(viewport={"width": 360, "height": 900})
    window.set_content(
        '<div style="width: 100px; overflow: hidden; white-space: nowrap">a text cut off here</div>'
        '<svg width="100" height="50"><text x="0" y="20">one</text><text x="3" y="22">two</text>'
        '<text x="90" y="45">outside</text></svg><div style="width: 500px">wide</div>'
    )
    kinds = {fault.partition(":")[0] for fault in window.evaluate(FAULTS)}
    assert kinds == {
        "the page is wider than the window", "cut off", "outside its picture", "over each other",
        "a picture without words",
    }  # fmt: skip
    window.close()
