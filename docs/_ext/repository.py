"""Links from pages to files of the repository that are no pages, checked and made absolute."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
SOURCE = "https://github.com/osbc-deploy/osbc-deploy/blob/main"
_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]*)((?:#[^)\s]*)?)\)")
_log = logging.getLogger(__name__)


def absolute(app: Sphinx, page: str, source: list[str]) -> None:
    """Point what leaves this folder at the repository's site; one that is not there is broken."""
    docs = Path(app.srcdir)
    here = (docs / page).parent

    def link(found: re.Match[str]) -> str:
        path = (here / found[1]).resolve()
        if path.is_relative_to(docs.resolve()):
            return found[0]
        if not path.exists():
            _log.warning("a link to %s, which is not there", found[1], location=page)
        return f"]({SOURCE}/{path.relative_to(ROOT)}{found[2]})"

    source[0] = _LINK.sub(link, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", absolute)
    return {"parallel_read_safe": True}
