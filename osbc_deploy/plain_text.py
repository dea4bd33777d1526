"""Text that others wrote, made safe to show: in every medium it is data and nothing else.

Names of layers, files, targets and plugins, and what libraries and a user's own code say in their
errors, may hold escape sequences, markup, formulas and line breaks. Data keep such bytes; they are
treated where they are put out, by the one function of the medium. JSON needs none: its strings are
written in ASCII.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "c_comment",
    "csv_cell",
    "html_page",
    "many",
    "markdown",
    "message",
    "terminal",
    "visible",
]

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001 - also formulas to Excel
_MARKDOWN = re.compile(r"[\\`*_~\[\]<>|&]|:(?=//)|(?<=www)\.")
_C = re.compile(r"(?<=\*)/|(?<=/)\*|(?<=\?)\?")


def visible(text: object) -> str:
    r"""Return a text in one line in which every character can be seen.

    Control characters, line breaks, lone surrogates, and what turns the direction of writing or has
    no glyph are written as Python's escapes (``\x1b``, ``\n``, ``\u202e``). The result is also
    well-formed XML once ``<``, ``&`` and quotes are escaped, as every XML writer does.
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw
    )


def many(count: int, noun: str) -> str:
    """Return a count of things in words, such as "1 sample" or "1,200 samples"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def message(text: object) -> str:
    """Return a message for the terminal, every line after the first one indented.

    A line break within a name so cannot begin a line that looks like one of ours.
    """
    first, *rest = str(text).split("\n")
    indented = (line if line.startswith("  ") else f"  {line}" for line in map(visible, rest))
    return "\n".join((visible(first), *indented))


def terminal(text: object, style: str = "") -> Text:
    """Return a text for rich that is neither markup nor control codes."""
    from rich.text import Text

    return Text(visible(text), style)


def markdown(text: object) -> str:
    """Return a text for Markdown, table cells included, in which nothing is syntax or a link."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", visible(text))


def csv_cell(value: Any) -> Any:
    """Return a value for a CSV file: a text that a spreadsheet would compute gets a quote before.

    Numbers stay numbers, negative ones too.
    """
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def c_comment(text: object) -> str:
    r"""Return a text for a comment in C: ASCII, in one line, that does not end the comment.

    No trigraph is left either: ``??/`` is a backslash, which before a line break continues a line.
    """
    ascii_only = visible(text).encode("ascii", "backslashreplace").decode("ascii")
    return _C.sub(lambda found: f"\\{found[0]}", ascii_only)


def html_page(template: str, **values: Any) -> str:
    """Render a template of :mod:`osbc_deploy.report` as HTML, every text in it escaped."""
    from importlib.resources import files

    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    report = files("osbc_deploy.report")
    source = report.joinpath(template).read_text("utf-8")
    style = markupsafe.Markup(report.joinpath("page.css").read_text("utf-8"))  # noqa: S704 - ours
    return environment.from_string(source).render({"style": style, **values})
