"""A fit as one self-contained HTML page: no script, no file but itself."""

from __future__ import annotations

from osbc_deploy.fitting.run import FitResult
from osbc_deploy.plain_text import html_page, many
from osbc_deploy.report.deployment.build import build_report
from osbc_deploy.report.fitting.plot import front_svg
from osbc_deploy.report.fitting.table import columns_of, rows_of

__all__ = ["fit_page"]

_ROWS = 25


def fit_page(result: FitResult) -> str:
    """Return the page. Everything from the report is escaped."""
    return html_page(
        "fitting/page.html.j2",
        report=build_report(result.deployment),
        kept=result.deployment.fits and result.keeps_accuracy,
        cards=_cards(result),
        picture=front_svg(result, alone=False),
        columns=columns_of(result),
        rows=[{"cells": cells, "chosen": chosen} for cells, chosen in rows_of(result, _ROWS)],
        count=len(result.front),
        prediction=result.prediction,
    )


def _cards(result: FitResult) -> list[tuple[str, str]]:
    """Return numbers and what they are, beside what was allowed."""
    mapping, budget = result.deployment.mapping, result.budget
    accuracy = result.deployment.accuracy

    def allowed(limit: int | None, unit: str = "") -> str:
        return "" if limit is None else f", {limit:,}{unit} allowed"

    found = [
        (f"{mapping.cores_used:,}", f"cores{allowed(budget.cores)}"),
        (f"{mapping.bytes:,} B", f"memory on the chip{allowed(budget.memory, ' B')}"),
        (f"{result.plan.loss:.4f}", "membrane loss of the plan"),
    ]
    if accuracy.float_ is not None and accuracy.fixed_point is not None:
        text = (
            f"fixed-point accuracy; float {accuracy.float_:.2%} "
            f"({many(accuracy.samples, 'sample')})"
        )
        found.append((f"{accuracy.fixed_point:.2%}", text))
    if budget.accuracy_drop is not None:
        lost = f"{result.lost:.2%}"
        found.append((lost, f"of the samples lost, {budget.accuracy_drop:.2%} allowed"))
    return found
