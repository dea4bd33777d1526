"""The Pareto front as a picture: one SVG file, no script."""

from __future__ import annotations

from osbc_deploy.fitting.run import FitResult
from osbc_deploy.plain_text import many
from osbc_deploy.report.figures import ALERT, INK, SERIES, axes, drawn, logarithmic, style

__all__ = ["front_svg"]

_LEAST = 1e-9
"""Loss that is drawn for none, on a logarithmic axis."""


def front_svg(result: FitResult, *, alone: bool = True) -> str:
    """Return loss (logarithmic) against the resource: every plan, the budget, what was chosen.

    Memory is in KB of 1000 B, the unit of ``--memory``. A picture that is not alone takes its
    colors from the page around it.
    """
    per_word = result.deployment.target.memory.word_bits.value / 8
    cores = result.resource == "cores"

    def point(plan: object) -> tuple[float, float]:
        value = float(getattr(plan, result.resource))
        loss = max(plan.loss, _LEAST)  # type: ignore[attr-defined]
        return value if cores else value * per_word / 1000, loss

    limit = result.budget.cores if cores else result.budget.memory
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, ax = axes(640 if alone else 560, 440, left=84, top=92)
        logarithmic(ax, "y")
        ax.set_xlabel("cores" if cores else "memory, KB (1000 B)")
        ax.set_ylabel("membrane loss, relative")
        if cores:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.plot(
            *zip(*map(point, result.front), strict=True),
            "o-", color=SERIES[0], markersize=4, label="plans on the front", gid="osbc-dot",
        )  # fmt: skip
        if limit is not None:
            shown = f"{limit:,} core{'s' if limit != 1 else ''}" if cores else f"{limit:,} B"
            ax.axvline(
                limit if cores else limit / 1000,
                color=ALERT, linestyle="--", label=f"budget: {shown}",
            )  # fmt: skip
        ax.plot(
            *point(result.plan),
            "D", color=INK, markersize=8, label=_chosen(result, per_word), gid="osbc-chosen",
        )  # fmt: skip
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), borderaxespad=0)
        title = "membrane loss against " + ("cores" if cores else "memory")
        return drawn(figure, f"{title}; {_chosen(result, per_word)}", alone=alone)


def _chosen(result: FitResult, per_word: float) -> str:
    plan, accuracy = result.plan, result.deployment.accuracy
    text = (
        f"chosen: {many(plan.cores, 'core')}, {plan.words * per_word:,.0f} B, loss {plan.loss:.4f}"
    )
    if accuracy.float_ is not None and accuracy.fixed_point is not None:
        text += f",\nfixed-point accuracy {accuracy.fixed_point:.2%} (float {accuracy.float_:.2%})"
    return text
