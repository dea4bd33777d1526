"""A judgement as one self-contained HTML page with pictures: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osbc_deploy.plain_text import html_page

__all__ = ["judgement_curves", "judgement_page", "lines"]

Judgement = Mapping[str, Any]

_WIDTH, _HEIGHT = 320, 90
_TIMES = 4.0
"""How far above its limit a sum is drawn."""


def judgement_page(judgement: Judgement, device: str = "") -> str:
    """Return the page. Everything in it is escaped."""
    moving = [c for c in judgement["channels"] if c["alarm"] or any(c["values"])]
    charts = sorted(moving, key=lambda c: (not c["alarm"], -c["peak"]))
    return html_page(
        "monitoring/page.html.j2",
        j=judgement,
        device=device,
        name=_name,
        still=[_name(c) for c in judgement["channels"] if c not in moving],
        charts=[{**c, **judgement_curves(c, judgement["records"])} for c in charts],
        histograms=[
            {**h, "bars": _bars(h["usual"], h["seen"])}
            for h in sorted(judgement["histograms"], key=lambda h: (not h["alarm"], -h["peak"]))
        ],
        width=_WIDTH,
        height=_HEIGHT,
    )


def lines(judgement: Judgement) -> list[str]:
    """Return what there is to say, as lines for a terminal."""
    found = [f"verdict: {judgement['verdict'].upper()} ({judgement['records']:,} records)"]
    found += [
        f"unhealthy: {_name(h)} {h['seen']:.3g}, at most {h['limit']:.3g} is well, since "
        f"{_place(h['since'])}"
        for h in judgement["health"]
    ]
    for c in judgement["channels"]:
        if c["alarm"]:
            found.append(
                f"drift: {_name(c)} {c['direction']}: {c['seen']:.4g}, usually {c['usual']:.4g}, "
                f"since {_place(c['since'])}, noticed at {_place(c['noticed'])}"
            )
    found += [
        f"drift: {_name(h)} has another histogram since {_place(h['since'])}"
        for h in judgement["histograms"]
        if h["alarm"]
    ]
    if judgement["moved"]:
        found.append(f"moved first: {judgement['moved'][0]}")
    found += [f"left out: {n:,} {reason}" for reason, n in judgement["left_out"].items()]
    found += [f"note: {remark}" for remark in judgement["remarks"]]
    return found


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['layer']}: {entry['what']}" if entry["layer"] else str(entry["what"])


def _place(at: Mapping[str, int]) -> str:
    return f"record {at['record']:,} (boot {at['boots']}, number {at['sequence']:,})"


def _points(values: Sequence[float], low: float, high: float) -> str:
    wide = max(len(values) - 1, 1)
    return " ".join(f"{_WIDTH * i / wide:.1f},{_y(v, low, high):.1f}" for i, v in enumerate(values))


def _y(value: float, low: float, high: float) -> float:
    return _HEIGHT - _HEIGHT * (value - low) / (high - low)


def judgement_curves(chart: Mapping[str, Any], records: int) -> dict[str, Any]:
    """Return the lines of a channel's two pictures, 320 by 90."""
    largest = max((abs(v) for v in chart["values"]), default=0.0) * 1.1 or 1.0
    top = min(max(1.2, *(s * 1.05 for s in chart["sums"])), _TIMES)

    def place(at: Mapping[str, int] | None) -> float | None:
        return None if at is None else _WIDTH * at["record"] / max(records - 1, 1)

    return {
        "line": _points(chart["values"], -largest, largest),
        "usual_y": _HEIGHT / 2,
        "sum_line": _points([min(s, top) for s in chart["sums"]], 0.0, top),
        "limit_y": _y(1.0, 0.0, top),
        "since_x": place(chart["since"]),
        "noticed_x": place(chart["noticed"]),
    }


def _bars(usual: Sequence[float], seen: Sequence[float]) -> list[dict[str, float]]:
    """Return two bars for each place of a histogram."""
    top = max(*usual, *seen, 1e-9)
    wide = _WIDTH / len(usual)
    return [
        {
            "x": i * wide, "width": wide * 0.42, "x2": (i + 0.45) * wide,
            "usual": _HEIGHT * u / top, "seen": _HEIGHT * s / top,
        }
        for i, (u, s) in enumerate(zip(usual, seen, strict=True))
    ]  # fmt: skip
