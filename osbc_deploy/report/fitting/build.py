"""Build the report of a fit to chip: the budget, what was chosen, and the front."""

from __future__ import annotations

from typing import Any

from osbc_deploy.fitting.run import FitResult
from osbc_deploy.fitting.search import Candidate, Plan
from osbc_deploy.report.deployment.build import build_report

__all__ = ["build_fit", "front_of"]

SCHEMA = "osbc-deploy/fit/1"


def build_fit(result: FitResult) -> dict[str, Any]:
    """Return budget, choice and front, and the report of what was deployed."""
    return {**front_of(result), "report": build_report(result.deployment)}


def front_of(result: FitResult) -> dict[str, Any]:
    """Return budget, choice and front as plain data."""
    memory = result.deployment.target.memory.word_bits.value
    return {
        "schema": SCHEMA,
        "budget": {
            "cores": result.budget.cores,
            "memory_bytes": result.budget.memory,
            "flash_bytes": result.budget.flash,
            "ram_bytes": result.budget.ram,
            "instructions": result.budget.instructions,
            "accuracy_drop": result.budget.accuracy_drop,
        },
        "resource": result.resource,
        "chosen": _plain(result.plan, memory),
        "as_predicted": result.as_predicted,
        "front": [_plain(plan, memory) for plan in result.front],
    }


def _plain(plan: Plan, word_bits: int) -> dict[str, Any]:
    def measures(part: Plan | Candidate) -> dict[str, Any]:
        return {
            "cores": part.cores,
            "words": part.words,
            "memory_bytes": part.words * word_bits // 8,
            "loss": part.loss,
        }

    return {
        **measures(plan),
        "neurons_removed": plan.removed,
        "layers": {
            name: {"sparsity": c.sparsity, "bits": c.bits, **measures(c)}
            for name, c in plan.choices.items()
        },
    }
