"""The Pareto front as a picture: one SVG file, no script."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from osbc_deploy.fitting.run import FitResult
from osbc_deploy.plain_text import visible

__all__ = ["front_svg"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 400, 70, 36, 50


def front_svg(result: FitResult) -> str:
    """Return loss (logarithmic) against the resource, every plan a dot, the chosen one filled."""
    per_word = result.deployment.target.memory.word_bits.value / 8
    cores = result.resource == "cores"

    def cost(plan: object) -> float:
        value = float(getattr(plan, result.resource))
        return value if cores else value * per_word / 1024

    plans = [*result.front, result.plan]
    costs = [cost(plan) for plan in plans]
    losses = [math.log10(max(plan.loss, 1e-9)) for plan in plans]
    low, high = math.floor(min(losses)), math.ceil(max(losses)) or 1
    high = high if high > low else low + 1
    first, last = min(costs), max(costs)
    first, last = (first, last) if last > first else (first - 1, last + 1)

    def x(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - 20)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)

    svg = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
    )
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "12")
    ElementTree.SubElement(svg, "rect", width=str(_WIDTH), height=str(_HEIGHT), fill="white")

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle") -> None:
        label = ElementTree.SubElement(svg, "text", x=f"{at_x:.1f}", y=f"{at_y:.1f}")
        label.set("text-anchor", anchor)
        label.text = words

    for power in range(low, high + 1):
        path = f"M{_LEFT} {y(power):.1f} H{_WIDTH - 20}"
        ElementTree.SubElement(svg, "path", d=path, stroke="#ddd")
        text(_LEFT - 6, y(power) + 4, f"1e{power}", "end")
    for value in (first, (first + last) / 2, last):
        text(x(value), _HEIGHT - _BOTTOM + 18, f"{value:,.0f}")
    text((_LEFT + _WIDTH) / 2, _HEIGHT - 10, "cores" if cores else "memory, KiB")
    text(14, 14, "membrane loss, relative", "start")
    points = list(zip(costs, losses, strict=True))
    path = "M" + " L".join(f"{x(c):.1f} {y(v):.1f}" for c, v in points[:-1])
    ElementTree.SubElement(svg, "path", d=path, fill="none", stroke="#3b6fb6")
    for number, (c, v) in enumerate(points):
        chosen = number == len(points) - 1
        dot = ElementTree.SubElement(
            svg, "circle", cx=f"{x(c):.1f}", cy=f"{y(v):.1f}", r="6" if chosen else "3"
        )
        dot.set("fill", "#b3261e" if chosen else "#3b6fb6")
        plan = plans[number]
        layers = ", ".join(
            f"{visible(name)}: {choice.sparsity:.0%} {choice.bits} bit"
            for name, choice in plan.choices.items()
        )
        title = ElementTree.SubElement(dot, "title")
        title.text = (
            f"{plan.cores} cores, {plan.words * per_word:,.0f} B, {plan.loss:.4g}: {layers}"
        )
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"
