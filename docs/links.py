"""Follow every link of the built site without network: ``make docs`` ends with it.

    python docs/links.py [FOLDER]

Links inside the site must lead to a file that is there, and to an anchor in it; links to this
repository on GitHub to a file of the working tree, and, in Markdown, to a heading of it. All
others are listed in ``_build/external-links.txt``, for those who want to try them.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
REPOSITORY = re.compile(
    r"https://(?:github\.com/osbc-deploy/osbc-deploy/(?:blob|tree)"
    r"|raw\.githubusercontent\.com/osbc-deploy/osbc-deploy)/main/([^#]*)(?:#(.*))?"
)


class Links(HTMLParser):
    """What a page leads to, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.to: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value and not (tag == "link" and "://" in value):
                self.to.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def headings(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a Markdown file."""
    found = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def broken(site: Path, more: tuple[Path, ...] = ()) -> tuple[list[str], dict[str, int], list[int]]:
    """Follow the links of a site, and those of Markdown files beside it to the repository.

    Returns
    -------
    tuple
        What is broken; external links with how often each is there; numbers of pages, of links
        inside and of links to the repository.
    """
    pages = {path: Links(path) for path in sorted(site.rglob("*.html"))}
    faults, external, counts = [], defaultdict[str, int](int), [len(pages), 0, 0]
    where = [(path, link) for path, page in pages.items() for link in page.to]
    where += [
        (path, link)
        for path in more
        for link in re.findall(r"\]\((https://[^)\s]+)\)", path.read_text("utf-8"))
    ]
    for path, link in where:
        parts = urlsplit(link)
        if ours := REPOSITORY.fullmatch(link):
            counts[2] += 1
            file = ROOT / unquote(ours[1])
            if not file.exists() or (ours[2] and ours[2] not in headings(file)):
                faults.append(f"{path.name}: {link}")
        elif parts.scheme or parts.netloc:
            external[link] += parts.scheme in ("http", "https")
        else:
            counts[1] += 1
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            page = pages.get(file)
            if not file.is_file() or (page and unquote(parts.fragment) not in page.anchors):
                faults.append(f"{path.relative_to(site)}: {link}")
    return faults, {k: v for k, v in external.items() if v}, counts


def main() -> None:
    """Check the site; the exit code says whether a link is broken."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else DOCS / "_build").resolve()
    faults, external, (pages, inside, ours) = broken(site, (ROOT / "README.md",))
    (site / "external-links.txt").write_text("".join(f"{link}\n" for link in sorted(external)))
    for fault in faults:
        print(f"broken: {fault}")
    print(
        f"{pages} pages: {inside:,} links inside and {ours:,} to the repository followed, "
        f"{len(faults)} broken; {len(external)} external ones are listed in "
        "_build/external-links.txt"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
