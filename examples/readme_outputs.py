"""Put what the program prints into README.md and docs/verify.md, between their markers.

    python examples/readme_outputs.py [--check] [--all] [BLOCK ...]

A block is what stands between ``<!-- output: NAME -->`` and ``<!-- end -->``: README's by default,
with --all those of docs/verify.md, too, which take minutes. With --check nothing is written; exit
code 1 if anything would be. The outputs of all other pages come from ``docs/execute.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "verify.md")
MODELS = {"conv": "digits_conv", "MLP": "digits_mlp"}
_MARKED = re.compile(r"(<!-- output: (.+?) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)

Table = list[Sequence[str]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("blocks", nargs="*", metavar="BLOCK", help=", ".join(BLOCKS))
    given = arguments.parse_args()
    differs = False
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names = given.blocks or (BLOCKS if given.all else blocks(PAGES[0].read_text("utf-8")))
        for name, page in [(n, p) for n in names for p in PAGES]:
            before = page.read_text("utf-8")
            after = renewed(before, [name])
            if after != before:
                differs = True
                print(f"{page.name}, {name}: {'differs' if given.check else 'written'}", flush=True)
                if not given.check:
                    page.write_text(after, "utf-8")
    sys.exit(given.check and differs)


def renewed(page: str, names: Sequence[str]) -> str:
    """Return a page with the blocks of these names as the program prints them now."""

    def block(found: re.Match[str]) -> str:
        return found[1] + BLOCKS[found[2]]() + found[4] if found[2] in names else found[0]

    return _MARKED.sub(block, page)


def blocks(page: str) -> dict[str, str]:
    """Return the blocks of a page by their names."""
    return {found[2]: found[3] for found in _MARKED.finditer(page)}


def osbc(*arguments: str, code: int = 0) -> str:
    """Run a command and return what it prints, of a terminal's width."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "osbc_deploy", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != code:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    # What comes before an error says how far the work is.
    lines = (done.stdout or done.stderr[done.stderr.find("error[") :]).splitlines()
    kept = (line.rstrip() for line in lines if not line.startswith("wrote "))
    return "\n".join(kept).strip("\n") + "\n"


def demo() -> str:
    return _text(osbc("--target", "loihi2-sim", "-o", "image"))


@cache
def verified(name: str) -> Mapping[str, Any]:
    """Return the report of ``osbc-deploy verify`` of a bundled network, all test samples."""
    digits, model = "osbc_deploy.bundled.digits", MODELS[name]
    found: Mapping[str, Any] = json.loads(
        osbc(
            *("verify", f"osbc_deploy.bundled.models:{model}", "--target", "loihi2-sim"),
            *("--weights", str(ROOT / "osbc_deploy" / "bundled" / f"{model}.safetensors")),
            *("--calibration", f"{digits}:calibration", "--test", f"{digits}:test", "--json"),
        )
    )
    return found


def accuracies(names: Sequence[str]) -> str:
    head = ("network", "step", "accuracy after it", "95 % interval", "change", "lost / won", "p")
    rows: Table = [head]
    for name in names:
        report = verified(name)
        values = {stage["name"]: stage["accuracy"] for stage in report["stages"]}
        steps = {step["name"]: step for step in report["steps"]}
        rows.append([name, "float", *_interval(values["float"]), "", "", ""])
        for title, step in _steps(steps):
            shown = ["", ""] if title == "all together" else _interval(values[step["after"]])
            change = values[step["after"]]["value"] - values[step["before"]]["value"]
            test = step["test"]
            rows.append(
                ["", title, *shown, _change(change), f"{test['lost']} / {test['won']}", _p(test)]
            )
    return _markdown(rows)


def mismatches(names: Sequence[str]) -> str:
    steps = ("mismatch: pruning", "quantization", "fixed point", "all")
    rows: Table = [("network", "population", *steps, "own, all", "membrane error, all")]
    for name in names:
        report = verified(name)
        found = dict(_steps({step["name"]: step for step in report["steps"]}))
        sizes = {p["name"]: p["neurons"] for p in report["stages"][0]["populations"]}
        for number, whole in enumerate(found["all together"]["populations"]):
            parts = [step["populations"][number] for step in found.values()]
            error = _percent(whole["propagated"]["membrane_error"])
            row = [name if number == 0 else ""]
            if whole["spiking"]:
                row.append(f"{whole['name']} ({sizes[whole['name']]:,})")
                row += [_percent(part["propagated"]["mismatch"]) for part in parts]
                row += [_percent(whole["isolated"]["mismatch"]), error]
            else:
                own = _percent(whole["isolated"]["membrane_error"])
                row += [f"{whole['name']} (readout)", "", "", "", "", "", f"{error} (own {own})"]
            rows.append(row)
    return _markdown(rows)


def layers() -> str:
    errors = ("output error, pruned", "and quantized", "keeps float's class")
    rows: Table = [("network", "layer", "weights", "non-zero", *errors)]
    for name in MODELS:
        report = verified(name)
        for number, layer in enumerate(report["layers"]):
            marked = f"**{layer['name']}**" if layer["name"] == report["costliest"] else ""
            rows.append(
                [
                    name if number == 0 else "",
                    marked or layer["name"],
                    f"{layer['weights']:,}",
                    f"{layer['nonzero']:,}",
                    f"{100 * layer['pruned']['output_error']:.1f} %",
                    f"{100 * layer['compressed']['output_error']:.1f} %",
                    f"{100 * layer['compressed']['agreement']:.2f} %",
                ]
            )
    return _markdown(rows)


def _steps(steps: Mapping[str, Any]) -> list[tuple[str, Any]]:
    titles = {"prune": "pruning", "quantize": "quantization", "lower": "fixed point"}
    return [(t, steps[name]) for name, t in {**titles, "total": "all together"}.items()]


def _interval(accuracy: Mapping[str, float]) -> list[str]:
    value, low, high = (100 * accuracy[key] for key in ("value", "low", "high"))
    return [f"{value:.2f} %", f"{low:.2f} to {high:.2f} %"]


def _change(share: float) -> str:
    return f"{100 * share:+.2f} %".replace("+0.00", "0.00").replace("-0.00", "0.00")


def _p(test: Mapping[str, Any]) -> str:
    return f"{test['p']:.2g}"


def _percent(share: float) -> str:
    value = 100 * share
    return f"{value:.1f} %" if value >= 10 else f"{value:.2g} %" if value < 1 else f"{value:.2f} %"


def _text(printed: str) -> str:
    return f"```text\n{printed}```\n"


def _markdown(rows: Table) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |") + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "demo": demo,
    "accuracy": lambda: accuracies(list(MODELS)),
    "mismatches": lambda: mismatches(list(MODELS)),
    "layers": layers,
}
"""What prints each block."""


if __name__ == "__main__":
    main()
