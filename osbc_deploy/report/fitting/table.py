"""The plans of a front as cells of a table, for every medium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from osbc_deploy.fitting.run import FitResult
from osbc_deploy.fitting.search import Plan

__all__ = ["columns_of", "rows_of"]


def columns_of(result: FitResult) -> list[str]:
    """Return the headers; the first column marks what was chosen."""
    return ["", "cores", "bytes", "loss", *(f"layer {name}" for name in result.plan.choices)]


def rows_of(result: FitResult, most: int) -> Iterator[tuple[list[str], bool]]:
    """Return the cells of about `most` plans along the front, and whether it is the chosen one."""
    per_word = result.deployment.target.memory.word_bits.value / 8
    rows = _thinned(result.front, most)
    # What was tuned takes its place on the front.
    rows = [plan for plan in rows if not _same(plan, result.plan)] + [result.plan]
    rows.sort(key=lambda plan: (getattr(plan, result.resource), plan.loss))
    for plan in rows:
        chosen = plan is result.plan
        yield (
            [
                ">" if chosen else "",
                f"{plan.cores:,}",
                f"{round(plan.words * per_word):,}",
                f"{plan.loss:.4f}",
                *(f"{c.sparsity:.0%} {c.bits} bit" for c in plan.choices.values()),
            ],
            chosen,
        )


def _thinned(front: Sequence[Plan], most: int) -> list[Plan]:
    if len(front) <= most:
        return list(front)
    return [front[round(k * (len(front) - 1) / (most - 1))] for k in range(most)]


def _same(a: Plan, b: Plan) -> bool:
    return all(
        (chosen.sparsity, chosen.bits) == (b.choices[name].sparsity, b.choices[name].bits)
        for name, chosen in a.choices.items()
    )
