"""Make every page from the bundled digits, and look at it: three widths, light, dark and print.

    python benchmarks/pages.py [--only NAME ...] [-o FOLDER]

The report, verify, fit, sweep and monitor pages of one small network, opened in Chromium as in
``tests/report/test_pages_in_browser.py``, whose faults are looked for here as well: pages of real
networks have longer names and more in them. Screenshots are ``NAME-WIDTH-SCHEME.png``.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

import osbc_deploy.bundled.models

TESTS = Path(__file__).resolve().parent.parent / "tests"
WIDTHS = (360, 800, 1920)
MODEL = "osbc_deploy.bundled.models:digits_mlp"
WEIGHTS = f"--weights={osbc_deploy.bundled.models.weights_path('digits_mlp')}"
COMMON = ("--target", "loihi2", "--backend", "engine")
DATA = tuple(f"--{part}=osbc_deploy.bundled.digits:{part}" for part in ("calibration", "test"))


def osbc(*arguments: object, codes: tuple[int, ...] = (0,)) -> None:
    """Run a command."""
    command = [sys.executable, "-m", "osbc_deploy", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")


def report(page: Path) -> None:
    """Deploy the convolutional network."""
    folder = page.with_suffix("")
    osbc("deploy", *COMMON, "-o", folder)
    osbc("report", folder, "--format", "html", "-o", page)


def verify(page: Path) -> None:
    """Verify the network without convolutions, with a gate that holds and one that does not."""
    gates = ("--gate", "accuracy_drop=0.02", "--gate", "mismatch=0.01")
    osbc("verify", MODEL, WEIGHTS, *DATA, *COMMON, *gates, "--html", page, codes=(0, 5))


def fit(page: Path) -> None:
    """Fit it into less memory than it wants."""
    osbc("fit", MODEL, WEIGHTS, *DATA, *COMMON, "--memory", "30KB", "--html", page)


def sweep(page: Path) -> None:
    """Compare two methods at four points."""
    grid = ("--sparsity", "0.8,0.95", "--bits", "3,8", "--method", "osbc", "--method", "magnitude")
    osbc("sweep", MODEL, WEIGHTS, *DATA, *COMMON, *grid, "--workers", 1, "--html", page)


def monitor(page: Path) -> None:
    """Watch a device whose lens gets dirty."""
    from osbc_deploy import load_samples
    from osbc_deploy.bundled.digits import digits_events
    from osbc_deploy.formats.folder import read_network
    from osbc_deploy.telemetry.counting import count_windows

    folder = page.with_suffix("")
    osbc("deploy", MODEL, WEIGHTS, *DATA, *COMMON, "-o", folder)
    network = read_network(folder)
    spikes = [load_samples(digits_events("train", seed)).spikes for seed in (1, 2)]
    usual = np.concatenate(spikes)
    dirty = usual[:2000] * (np.random.default_rng(0).random(usual[:2000].shape) < 0.97)
    for name, part in {"usual": usual, "now": np.concatenate([usual[:800], dirty])}.items():
        records = count_windows(network, np.asarray(part, np.uint8), size=10)
        (page.parent / name).write_bytes(b"".join(record.to_bytes() for record in records))
    baseline = page.parent / "baseline.json"
    osbc("monitor", "baseline", folder, "-o", baseline, "--records", page.parent / "usual",
         "--short", "--per-day", 10)  # fmt: skip
    osbc("monitor", "judge", page.parent / "now", "--baseline", baseline, "--html", page,
         codes=(0, 7, 8))  # fmt: skip


PAGES: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (report, verify, fit, sweep, monitor)
}


def faults() -> str:
    """Return the script of the browser test that looks for faults."""
    sys.path[:0] = [str(TESTS), str(TESTS / "helpers")]
    path = TESTS / "report" / "test_pages_in_browser.py"
    spec = importlib.util.spec_from_file_location("in_browser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.FAULTS)


def look(browser: Any, page: Path) -> int:
    """Write the screenshots of a page; return how many faults it has."""
    script, found = faults(), 0
    for scheme in ("light", "dark"):
        window = browser.new_page(color_scheme=scheme)
        window.goto(page.as_uri())
        for width in WIDTHS:
            window.set_viewport_size({"width": width, "height": 900})
            for fault in window.evaluate(script):
                found += 1
                print(f"{page.stem}, {width}, {scheme}: {fault}")
            name = f"{page.stem}-{width}-{scheme}.png"
            window.screenshot(path=page.parent / name, full_page=True)
        if scheme == "dark":
            # Paper is white whatever the screen is.
            window.emulate_media(media="print")
            window.set_viewport_size({"width": 720, "height": 1000})
            window.screenshot(path=page.parent / f"{page.stem}-print.png", full_page=True)
        window.close()
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--only", nargs="+", choices=PAGES, default=tuple(PAGES))
    arguments.add_argument("--again", action="store_true", help="look at the pages that are there")
    arguments.add_argument("-o", "--output", type=Path, default=Path("pages"))
    given = arguments.parse_args()
    given.output.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    total = 0
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in given.only:
            page = given.output.resolve() / f"{name}.html"
            if not given.again:
                PAGES[name](page)
            total += look(browser, page)
        browser.close()
    print(f"{len(given.only)} pages at {len(WIDTHS)} widths, light and dark: {total} faults")
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
