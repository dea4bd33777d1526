"""Colors of pages are told from their background: WCAG 2.2, success criteria 1.4.3 and 1.4.11."""

from __future__ import annotations

import re
from importlib.resources import files

TEXT, GRAPHICS = 4.5, 3.0


def luminance(color: str) -> float:
    digits = color if len(color) == 6 else "".join(2 * c for c in color)
    parts = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    # Black on white, and the gray that just passes on white.
    assert contrast("000", "ffffff") == 21
    assert contrast("767676", "fff") > TEXT > contrast("777777", "fff")


def test_text_and_graphics_are_told_from_the_page_light_dark_and_printed() -> None:
    css = files("osbc_deploy.report").joinpath("page.css").read_text("utf-8")
    schemes = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(schemes) == 3
    low = []
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): #([0-9a-f]+)", scheme))
        wanted = [("ink", on, TEXT) for on in ("paper", "warn", "mark", "badsoft", "soft")]
        wanted += [(name, "paper", TEXT) for name in ("muted", "bad", "drift")]
        wanted += [(f"k{k}", "paper", GRAPHICS) for k in range(8)]
        wanted += [(f"k{k}", "soft", GRAPHICS) for k in range(8)]
        low += [
            (name, on, round(contrast(colors[name], colors[on]), 2))
            for name, on, least in wanted
            if contrast(colors[name], colors[on]) < least
        ]
    verdicts = re.findall(r"\.verdict[^{]*\{[^}]*background: #([0-9a-f]{6})", css)
    assert len(verdicts) == 4
    low += [(v, "fff", contrast(v, "ffffff")) for v in verdicts if contrast(v, "ffffff") < TEXT]
    assert low == []
