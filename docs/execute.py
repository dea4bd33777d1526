"""Run what the pages show, and put in what it prints: ``make docs-run``.

    python docs/execute.py [--write] [PAGE ...]

Each page is followed from an empty folder, from top to bottom. A block whose first line names a
file (``# data.py``, ``/* main.c */``) is written there; any other block of ``sh`` or ``python`` is
run, and a ``text`` block behind ``<!-- output -->`` is what the block before it prints (``last N``:
its last lines). Comments before a block or at the top of a page say otherwise:

``<!-- not run: REASON -->``     the block is only shown
``<!-- continues: PAGE -->``     the page starts where another one ends
``<!-- tested by: FILE -->``     a test runs the page's blocks

With --write the outputs are renewed, which hold what this machine prints.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
_BLOCK = re.compile(
    r"(?:^<!-- (?P<said>[^>]*) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.S | re.M
)
_FILE = re.compile(r"(?:#|//|/\*) (\S+\.\w+|Dockerfile|CMakeLists\.txt)(?: \*/)?\n")
_PAGE = re.compile(r"^<!-- (continues|tested by): (\S+) -->$", re.M)
_DATA = ("text", "yaml")
"""Blocks that are neither commands nor files."""


@dataclass(frozen=True)
class Block:
    """A block of a page and what happens to it.

    Attributes
    ----------
    kind, text : str
        Its language and content.
    fate : str
        "file NAME", "run", "output N" (0 for all lines), "shown" or "not run: REASON"; empty for a
        block that nothing is said about.
    span : tuple of int
        Where its content stands in the page.
    """

    kind: str
    text: str
    fate: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Page:
    """A page: what it says of itself, and its blocks."""

    path: Path
    continues: str
    tested: str
    blocks: tuple[Block, ...]


def pages() -> list[Path]:
    """Return all pages that people wrote."""
    found = (p for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith("_"))
    return sorted(found)


def read(path: Path) -> Page:
    """Return a page with the fate of every block."""
    text = path.read_text("utf-8")
    said = dict(_PAGE.findall(text))
    blocks = []
    for found in _BLOCK.finditer(text):
        kind, content = found["kind"], found["text"]
        comment = found["said"] or ""
        if comment.startswith("not run: "):
            fate = comment
        elif comment == "output" or comment.startswith("output: last "):
            fate = f"output {comment.rpartition(' ')[2] if ':' in comment else 0}"
        elif name := _FILE.match(content):
            fate = f"file {name[1]}"
        elif kind in ("sh", "python"):
            fate = "run"
        else:
            fate = "shown" if kind in _DATA else ""
        blocks.append(Block(kind, content, fate, found.span("text")))
    return Page(path, said.get("continues", ""), said.get("tested by", ""), tuple(blocks))


def run(page: Page, folder: Path) -> Iterator[tuple[Block, str]]:
    """Follow a page in a folder; return every block with what it prints.

    Raises
    ------
    SystemExit
        When a block fails.
    """
    printed = ""
    for block in page.blocks:
        if block.fate.startswith("file "):
            place = folder / block.fate.partition(" ")[2]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text, "utf-8")
        elif block.fate == "run":
            shell = ["bash", "-euo", "pipefail", "-c"]
            command = (
                [*shell, block.text] if block.kind == "sh" else [sys.executable, "-c", block.text]
            )
            paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
            # Tables as wide as the pages; nothing else of a terminal.
            env = {**os.environ, "PATH": os.pathsep.join(paths), "COLUMNS": "80"}
            done = subprocess.run(
                command, cwd=folder, env=env, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"{page.path.name}:\n{block.text}\n{done.stdout}{done.stderr}")
            printed = done.stdout
        yield block, printed


def renewed(page: Page, folder: Path) -> str:
    """Run a page and return it with the outputs that its commands print now."""
    text, shift = page.path.read_text("utf-8"), 0
    for block, printed in run(page, folder):
        if not block.fate.startswith("output "):
            continue
        lines = [line.rstrip() for line in printed.rstrip().splitlines()]
        last = int(block.fate.partition(" ")[2])
        new = "\n".join(lines[-last:] if last else lines) + "\n"
        start, end = (place + shift for place in block.span)
        text = text[:start] + new + text[end:]
        shift += len(new) - len(block.text)
    return text


def main() -> None:
    """Run the pages that are named, or all."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--write", action="store_true", help="renew the outputs")
    arguments.add_argument("pages", nargs="*", metavar="PAGE", help="such as tutorials/fit.md")
    given = arguments.parse_args()
    named = [DOCS / name for name in given.pages] or pages()
    counts = {"run": 0, "file": 0, "output": 0, "not run": 0, "tested": 0}
    with tempfile.TemporaryDirectory() as work:
        ended: dict[Path, Path] = {}

        def follow(path: Path) -> Path:
            """Return the folder in which a page ended."""
            if path not in ended:
                page = read(path)
                folder = Path(work) / str(len(ended))
                if page.continues:
                    before = follow(path.parent / page.continues)
                    folder = Path(work) / str(len(ended))
                    shutil.copytree(before, folder)
                else:
                    folder.mkdir()
                ended[path] = folder
                began = time.monotonic()
                text = renewed(page, folder)
                print(f"{path.relative_to(DOCS)}: {time.monotonic() - began:.0f} s", flush=True)
                if given.write:
                    path.write_text(text, "utf-8")
            return ended[path]

        for path in named:
            page = read(path)
            if page.tested:
                counts["tested"] += len(page.blocks)
            else:
                if any(b.fate == "run" for b in page.blocks):
                    follow(path)
                for block in page.blocks:
                    kind = block.fate.partition(":")[0].partition(" ")[0]
                    kind = "not run" if kind == "not" else kind
                    if kind in counts:
                        counts[kind] += 1
    print(
        f"{len(named)} pages: {counts['run']} blocks run, {counts['file']} files written, "
        f"{counts['output']} outputs produced, {counts['tested']} blocks run by tests, "
        f"{counts['not run']} not run, each with its reason"
    )


if __name__ == "__main__":
    main()
