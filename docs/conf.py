"""How the documentation site is built: ``make docs``, strict and without network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from osbc_deploy import __version__

project = "osbc-deploy"
author = "the osbc-deploy authors"
copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
    "produced",
    "repository",
]
exclude_patterns = ["_build", "_produced", "_ext"]
source_suffix = {".md": "markdown"}

# GitHub's anchors, so that a link works there and on the site alike.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"osbc-deploy {release}"
html_static_path = ["_static"]
# No mark of the time of the build: the same sources give the same pages.
html_last_updated_fmt = None
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
copybutton_prompt_text = "$ "
