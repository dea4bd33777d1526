"""Plots of reports: drawn by matplotlib, as SVG that takes its colors from the page around it.

Colors are placeholders while matplotlib draws, and become variables of CSS (``page.css``), so one
picture is right on light, dark and printed pages. Text stays text: it can be searched and read
aloud.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from osbc_deploy.plain_text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "ALERT",
    "INK",
    "LINE",
    "MUTED",
    "SERIES",
    "axes",
    "drawn",
    "logarithmic",
    "strokes",
    "style",
]

INK, MUTED, LINE, ALERT = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0501{k:02x}" for k in range(8))
"""Colors of series, told apart in the order of the page's legend."""

_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ALERT: "--bad",
    **{color: f"--k{k}" for k, color in enumerate(SERIES)},
}  # fmt: skip
_FALLBACK = {
    "--ink": ("#1f2328", "#e6e8ea"), "--muted": ("#57606a", "#a9b1ba"),
    "--line": ("#d0d7de", "#3b424a"), "--bad": ("#b3261e", "#ff8a80"),
    "--k0": ("#3465a4", "#7fb0ef"), "--paper": ("#ffffff", "#15181c"),
}  # fmt: skip
"""Light and dark, for a picture that stands alone in a file."""


def style() -> AbstractContextManager[Any]:
    """Return matplotlib's settings for these pictures, to draw within."""
    settings: AbstractContextManager[Any] = _matplotlib().rc_context(
        {
            "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 12.5,
            "text.parse_math": False, "text.color": INK, "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK,
            "ytick.labelcolor": INK, "axes.facecolor": "none", "figure.facecolor": "none",
            "axes.grid": True, "grid.color": LINE, "axes.spines.top": False,
            "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
            "legend.fontsize": 11.5, "lines.linewidth": 1.5,
        }
    )  # fmt: skip
    return settings


def _matplotlib() -> Any:
    """Return matplotlib, which refuses a window system that it does not know: none is used here."""
    asked = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with suppress(ValueError):
            mpl.rcParams["backend"] = asked
    return mpl


def axes(
    width: float, height: float, *, left: float = 68, bottom: float = 50, top: float = 12
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; all in pixels of 1/72 inch.

    Parameters
    ----------
    width, height : float
        Of the picture.
    left, bottom, top : float
        What is left for labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (left / width, bottom / height, 1 - (left + 14) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def logarithmic(ax: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers that stay where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis: Axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(_plain_number))
    axis.set_minor_formatter(NullFormatter())


def _plain_number(value: float, _place: int | None = None) -> str:
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def strokes(
    ax: Axes, places: Sequence[tuple[float, float]], height: float, kind: str, **line: Any
) -> None:
    """Draw upright strokes that start at these places, as one path of the class `kind`."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if places:
        points = [p for x, y in places for p in ((x, y), (x, y + height))]
        codes = [Path.MOVETO, Path.LINETO] * len(places)
        ax.add_patch(PathPatch(Path(points, codes), fill=False, gid=f"osbc-{kind}", **line))


def drawn(figure: Figure, title: str, *, alone: bool = False) -> str:
    """Return a figure as SVG that is as wide as its place, and no wider than it was drawn.

    Parameters
    ----------
    figure : Figure
    title : str
        What it shows, for those who do not see it.
    alone : bool
        Whether it is a file of its own, with its own colors, and not part of a page.
    """
    import matplotlib as mpl
    from markupsafe import Markup

    out = StringIO()
    # The same picture is the same bytes, and no name is met twice in a page.
    salt = hashlib.sha256(title.encode("utf-8", "backslashreplace")).hexdigest()
    with mpl.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # The reader's fonts have other letters than those that it measures with.
        warnings.simplefilter("ignore")
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="osbc-(\w+)">', r'<g class="\1">', text)
    text = re.sub(r'<g id="[a-zA-Z_.0-9]+">', "<g>", text)
    if not alone:
        # HTML knows the names of SVG by itself.
        text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: _variable(m[0]), text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", text)
    words = html.escape(visible(title))
    width = figure.get_figwidth() * 72
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    text = text.replace(
        "<svg ", f'<svg style="width: 100%; max-width: {width:.0f}px" role="img" ', 1
    )
    end = text.index(">") + 1
    text = f"{text[:end]}\n <title>{words}</title>{_colors() if alone else ''}{text[end:]}"
    # Made by matplotlib, which escapes its texts.
    return Markup(text)  # noqa: S704


def _variable(color: str) -> str:
    return f"var({_VARIABLES[color]})" if color in _VARIABLES else color


def _colors() -> str:
    light, dark = (
        "".join(f"{name}: {pair[k]}; " for name, pair in _FALLBACK.items()) for k in (0, 1)
    )
    return (
        f"\n <style>svg {{ {light}background: var(--paper); }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark}}} }}</style>"
    )
