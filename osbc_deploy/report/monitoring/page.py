"""A judgement as one self-contained HTML page with pictures: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from osbc_deploy.plain_text import html_page, many
from osbc_deploy.report.figures import ALERT, MUTED, SERIES, axes, drawn, style

__all__ = ["channel_picture", "judgement_page", "lines"]

Judgement = Mapping[str, Any]

_WIDTH = 360
"""Of a picture, in pixels."""
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
        charts=[{**c, "picture": channel_picture(c, judgement["records"])} for c in charts],
        histograms=[
            {**h, "picture": _histogram(h)}
            for h in sorted(judgement["histograms"], key=lambda h: (not h["alarm"], -h["peak"]))
        ],
    )


def lines(judgement: Judgement) -> list[str]:
    """Return what there is to say, as lines for a terminal."""
    found = [f"verdict: {judgement['verdict'].upper()} ({many(judgement['records'], 'record')})"]
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


def channel_picture(chart: Mapping[str, Any], records: int) -> str:
    """Return a count over the records, and below it the chart's sum with its limit."""
    name, alarm = _name(chart), chart["alarm"]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_WIDTH / 72, 260 / 72), dpi=72)
        figure.subplots_adjust(left=0.19, right=0.96, top=0.97, bottom=0.17, hspace=0.18)
        above, below = figure.subplots(2, 1, sharex=True)
        # The values are thinned, and those of all records.
        last = max(len(chart["values"]) - 1, 1)
        places = [k * (records - 1) / last for k in range(len(chart["values"]))]
        above.plot(places, chart["values"], color=SERIES[0], linewidth=1)
        above.axhline(0.0, color=MUTED, linestyle="--", linewidth=1)
        above.set_ylabel("from usual")
        sums = [min(value, _TIMES) for value in chart["sums"]]
        below.plot(places, sums, color=MUTED, linewidth=1)
        below.axhline(1.0, color=ALERT, linestyle="--", linewidth=1)
        below.set_ylabel("sum / limit")
        below.set_xlabel("record")
        below.set_ylim(0, max(1.2, 1.05 * max(sums, default=0.0)))
        if alarm:
            above.axvline(chart["since"]["record"], color=SERIES[1])
            below.axvline(chart["noticed"]["record"], color=ALERT)
        return drawn(figure, f"{name} over the records, and the sum of its chart")


def _histogram(found: Mapping[str, Any]) -> str:
    """Return the usual and the seen shares of a histogram, side by side."""
    places = range(len(found["usual"]))
    with style():
        figure, ax = axes(_WIDTH, 150, left=56, bottom=40)
        ax.bar([i - 0.21 for i in places], [100 * v for v in found["usual"]], 0.4, color=SERIES[3])
        seen = SERIES[1] if found["alarm"] else SERIES[0]
        ax.bar([i + 0.21 for i in places], [100 * v for v in found["seen"]], 0.4, color=seen)
        ax.set_xlabel("class" if found["what"] == "answers" else "bin, from few to many")
        ax.set_ylabel("share, %")
        return drawn(figure, f"{_name(found)}: usual shares and those seen")
