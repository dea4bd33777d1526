"""Run what the pages show, and put in what it prints: ``make docs-run``.

    python docs/execute.py [--write] [PAGE ...]

Each page is followed from an empty folder, from top to bottom. A block whose first line names a
file (``# data.py``, ``/* main.c */``) is written there; any other block of ``sh`` or ``python`` is
run, and a ``text`` block behind ``<!-- output -->`` is what the block before it prints (``last N``:
its last lines). Comments before a block or at the top of a page say otherwise:

``<!-- not run: REASON -->``     the block is only shown
``<!-- needs: PROGRAM ... -->``  it is run where these are; where not, its output stays
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
        "file NAME", "run", "output N" (0 for all lines), "shown" (data) or "not run: REASON"; empty
        for a block that nothing is said about.
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
    """Return all pages that people wrote, and README."""
    docs = DOCS.resolve()
    found = (p for p in docs.rglob("*.md") if not p.relative_to(docs).parts[0].startswith("_"))
    return [docs.parent / "README.md", *sorted(found)]


def read(path: Path) -> Page:
    """Return a page with the fate of every block."""
    text = path.read_text("utf-8")
    said = dict(_PAGE.findall(text))
    blocks = tuple(read_text(text))
    return Page(path, said.get("continues", ""), said.get("tested by", ""), blocks)


def read_text(text: str) -> Iterator[Block]:
    """Return the blocks of a page's text."""
    for found in _BLOCK.finditer(text):
        kind, content = found["kind"], found["text"]
        comment = found["said"] or ""
        if comment.startswith("not run: "):
            fate = comment
        elif comment.startswith("needs: ") and (gone := _missing(comment)):
            fate = f"not run: it needs {' and '.join(gone)}"
        elif comment == "output" or comment.startswith("output: last "):
            fate = f"output {comment.rpartition(' ')[2] if ':' in comment else 0}"
        elif name := _FILE.match(content):
            fate = f"file {name[1]}"
        elif kind in ("sh", "python"):
            fate = "run"
        else:
            fate = "shown" if kind in _DATA else ""
        yield Block(kind, content, fate, found.span("text"))


def _missing(comment: str) -> list[str]:
    return [name for name in comment.split()[1:] if shutil.which(name) is None]


def run(page: Page, folder: Path) -> Iterator[tuple[Block, str | None]]:
    """Follow a page in a folder; return every block with what it, or the last one run, prints.

    Raises
    ------
    SystemExit
        When a block fails.
    """
    printed: str | None = ""
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
                raise SystemExit(f"{block.text}\n{done.stdout}{done.stderr}")
            printed = done.stdout
        elif block.fate.startswith("not run: it needs "):
            printed = None
        yield block, printed


def renewed(page: Page, folder: Path) -> str:
    """Run a page and return it with the outputs that its commands print now."""
    text, shift = page.path.read_text("utf-8"), 0
    for block, printed in run(page, folder):
        if printed is None or not block.fate.startswith("output "):
            continue
        lines = [line.rstrip() for line in printed.rstrip().splitlines()]
        last = int(block.fate.partition(" ")[2])
        new = "\n".join(lines[-last:] if last else lines) + "\n"
        start, end = (place + shift for place in block.span)
        text = text[:start] + new + text[end:]
        shift += len(new) - len(block.text)
    return text


@dataclass(frozen=True)
class Followed:
    """What came of a page: where it ended, how long it took, and what is not as it says."""

    folder: Path
    seconds: float
    other: int
    failure: str


class Reader:
    """Follows pages, each in a folder of its own below one, and those that they continue first."""

    def __init__(self, work: Path, *, write: bool) -> None:
        self.work, self.write = work, write
        self.followed: dict[Path, Followed] = {}

    def follow(self, path: Path) -> Followed:
        """Follow a page unless it was; a failure is said, and ends the pages that continue it."""
        if path not in self.followed:
            self.followed[path] = done = self._follow(read(path))
            print(
                f"{_name(path)}: {done.seconds:.0f} s"
                + (f", {done.other} outputs are not those of the page" if done.other else "")
                + (f"\n{done.failure}" if done.failure else ""),
                flush=True,
            )
        return self.followed[path]

    def _follow(self, page: Page) -> Followed:
        before = page.continues and self.follow((page.path.parent / page.continues).resolve())
        folder = self.work / str(len(self.followed))
        if not before:
            folder.mkdir()
        elif before.failure:
            return Followed(folder, 0.0, 0, f"it continues {page.continues}, which failed")
        else:
            shutil.copytree(before.folder, folder)
        began = time.monotonic()
        try:
            text = renewed(page, folder)
        except SystemExit as error:
            return Followed(folder, time.monotonic() - began, 0, str(error))
        seconds = time.monotonic() - began
        old, new = ([t[slice(*b.span)] for b in read_text(t) if b.fate.startswith("output ")]
                    for t in (page.path.read_text("utf-8"), text))  # fmt: skip
        if self.write:
            page.path.write_text(text, "utf-8")
        return Followed(folder, seconds, sum(a != b for a, b in zip(old, new, strict=True)), "")


def _name(path: Path) -> str:
    return os.path.relpath(path, DOCS.resolve())


def main() -> None:
    """Run the pages that are named, or all."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--write", action="store_true", help="renew the outputs")
    arguments.add_argument("pages", nargs="*", metavar="PAGE", help="such as tutorials/fit.md")
    given = arguments.parse_args()
    named = [(DOCS / name).resolve() for name in given.pages] or pages()
    counts = dict.fromkeys(("run", "file", "output", "not", "shown"), 0)
    tested, reasons = 0, []
    with tempfile.TemporaryDirectory() as work:
        reader = Reader(Path(work), write=given.write)
        for path in named:
            page = read(path)
            if page.tested:
                tested += len(page.blocks)
                continue
            if any(b.fate == "run" for b in page.blocks):
                reader.follow(path)
            for block in page.blocks:
                counts[block.fate.partition(":")[0].split()[0]] += 1
                if block.fate.startswith("not run"):
                    reasons.append(f"  {_name(path)}: {block.fate.removeprefix('not run: ')}")
    ended = reader.followed.values()
    failed = sum(bool(page.failure) for page in ended)
    print(
        f"{len(named)} pages: {counts['run']} blocks run, {counts['file']} files written, "
        f"{counts['output']} outputs produced ({sum(p.other for p in ended)} of them not as they "
        f"stand there), {tested} blocks run by tests, {counts['shown']} that are data; "
        f"{len(reasons)} not run, each with its reason"
    )
    for reason in reasons:
        print(reason)
    print(f"{failed} of {len(ended)} pages failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
