"""Texts that do something where they are taken for more than text."""

from __future__ import annotations

__all__ = ["HOSTILE"]

HOSTILE = (
    # Markup of rich, and its emoji codes.
    "[red]x[/red]",
    "mine [/alpha]",
    "[link=file:///etc/passwd]y[/link]",
    ":boom:",
    # Terminal: colors, title, links, one-byte CSI, and what moves the cursor.
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;http://example.org\x1b\\link",
    "\x9b31mc1",
    "over\rwritten",
    "back\b\bspace",
    "form\x0cfeed",
    "del\x7f",
    "nul\x00nul",
    # Lines and columns of a report.
    "two\nverdict: FITS",
    "\u2028separator",
    "tab\tbed",
    # Direction of writing, no width, no character at all.
    "\u202egnp.exe",
    "\u2066isolate",
    "zero\u200bwidth",
    "lone\ud800surrogate",
    "non\ufffecharacter",
    # Markdown.
    "a|b|c",
    "a\\|b",
    "`code` **bold** ~~gone~~ _em_",
    "[text](http://example.org)",
    "![image](x.png)",
    "http://example.org www.example.org",
    # HTML and XML.
    "<script>alert(1)</script>",
    "</title></svg><b>x",
    "\"' onmouseover='x",
    "&lt;&amp;&#65;",
    "]]>",
    "<!-- --> <!DOCTYPE x>",
    # Templates.
    "{{ 7 * 7 }}{% raw %}@name@",
    # Spreadsheets.
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1-1",
    "@SUM(A1)",
    "＝1+1",  # noqa: RUF001 - meant
    # C.
    "*/ int x; /*",
    "ends in a backslash\\",
    "??/",
    "???/ // \\u0041",
    # Paths and formats.
    "../../etc/passwd",
    "a/b",
    "%s%n{0}",
    " ",
    "x" * 300,
    # Fine as they are.
    "größer 中文 🦊",
)
