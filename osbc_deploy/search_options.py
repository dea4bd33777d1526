"""The tables of options of a search: what a plan may use, and what may be tried.

They are part of :mod:`osbc_deploy.options`, which says how tables are read.
"""

# Annotations are read by osbc_deploy.option, so this module does without their postponement.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from osbc_deploy.option import BYTES, Options, option

__all__ = ["BITS", "BudgetOptions", "FitBudget", "SearchOptions"]

BITS = (8, 6, 5, 4, 3, 2)
"""Widths that ``fit`` tries."""


@dataclass(frozen=True)
class FitBudget(Options):
    """What a plan may use."""

    cores: int | None = option(
        None,
        "Cores the network may take; the target's by default.",
        least=1,
        remedy="Nothing can run on that.",
    )
    memory: int | None = option(
        None,
        "Memory it may take on all cores.",
        metavar=BYTES,
        least=1,
        remedy="Nothing can run on that.",
    )
    accuracy_drop: float | None = option(
        None,
        "Accuracy that may be lost, such as 0.01; asks for the smallest network that keeps it.",
        metavar="SHARE",
        flags=["--max-accuracy-drop"],
        least=0,
        most=1,
        remedy="Give a share, such as 0.01 for one point.",
    )


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """The limits of a search."""

    budget: FitBudget | None = option(None, "What the network may take.")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """What a search may try."""

    bits: Sequence[int] = option(
        BITS,
        "Bits per weight that may be taken.",
        least=1,
        most=8,
        remedy="Give the bits per weight, such as 4.",
    )
    max_sparsity: float = option(
        0.99,
        "Most that may be removed.",
        least=0,
        below=1,
        remedy="Give the share of weights to remove, such as 0.9.",
    )

    def _contradictions(self) -> Iterator[str]:
        untried = ", ".join(str(width) for width in self.bits if width not in BITS)
        if untried or not self.bits:
            tried = ", ".join(map(str, sorted(BITS)))
            yield f"bits: fit tries {tried}, not {untried or 'none'}. Give some of these."
