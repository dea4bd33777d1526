"""The tables of options of a search: what a plan may use, and what may be tried.

They are part of :mod:`osbc_deploy.options`, which says how tables are read.
"""

# Annotations are read by `option`, so this module does without their postponement.

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from osbc_deploy.options.option import BYTES, Options, StrPath, option
from osbc_deploy.options.unasked import Unasked

__all__ = ["BITS", "BudgetOptions", "FitBudget", "GridOptions", "NeuronOptions", "SearchOptions"]

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
    flash: int | None = option(
        None,
        "Flash it may take on a microcontroller, the runtime's code included; the target's by "
        "default.",
        metavar=BYTES,
        least=1,
        remedy="Nothing can run on that.",
    )
    ram: int | None = option(
        None,
        "RAM it may take on a microcontroller, the runtime's stack included.",
        metavar=BYTES,
        least=1,
        remedy="Nothing can run on that.",
    )
    instructions: int | None = option(
        None,
        "Instructions that a step may take on a microcontroller: the modelled most of any step of "
        "the calibration samples.",
        metavar="N",
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
class NeuronOptions(Options):
    """How many neurons are left."""

    remove_neurons: float = option(
        0.0,
        "Share of hidden neurons to remove before weights are pruned, of convolutions whole "
        "channels; chosen across layers on calibration samples.",
        metavar="SHARE",
        least=0,
        below=1,
        remedy="Give the share of neurons to remove, such as 0.5.",
    )

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        method = getattr(self, "method", "osbc")
        if self.remove_neurons and method in ("magnitude", "paper"):
            yield (
                f"remove_neurons: needs the Hessians of the layers behind them, which method "
                f"{method} does not compute. Use method osbc or obc with it."
            )


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
    tune: bool = option(
        True, "Try variants of every layer of the plan on held-out calibration samples."
    )
    max_sparsity: float = option(
        0.99,
        "Largest share of weights that may be removed.",
        least=0,
        below=1,
        remedy="Give the share of weights to remove, such as 0.9.",
    )

    max_removed: float = option(
        0.94,
        "Largest share of hidden neurons that may be removed, of convolutions whole channels.",
        metavar="SHARE",
        least=0,
        below=1,
        remedy="Give the share of neurons, such as 0.5; 0 keeps all of them.",
    )

    def _contradictions(self) -> Iterator[str]:
        untried = ", ".join(str(width) for width in self.bits if width not in BITS)
        if untried or not self.bits:
            tried = ", ".join(map(str, sorted(BITS)))
            yield f"bits: fit tries {tried}, not {untried or 'none'}. Give some of these."


@dataclass(frozen=True, kw_only=True)
class GridOptions(Options):
    """The points of a sweep: all combinations of these."""

    targets: Sequence[str] = option(
        ("loihi2-sim",),
        "Chip to deploy on; may be repeated.",
        metavar="NAME|FILE.toml",
        flags=["--target"],
        required=True,
    )
    sparsities: Sequence[float] = option(
        (Unasked(0.8), Unasked(0.9), Unasked(0.95)),
        "Shares of weights to remove; --pattern N:M sets its own.",
        metavar="S,S,...",
        flags=["--sparsity"],
        least=0,
        below=1,
        remedy="Give the shares of weights to remove, such as 0.8,0.9.",
    )
    bits: Sequence[int] = option(
        (8, 4, 3, 2),
        "Bits per weight; 1 is ternary: -1, 0 and 1.",
        metavar="B,B,...",
        least=1,
        most=8,
        remedy="Give the bits per weight, such as 4,8.",
    )
    seeds: Sequence[int] = option(
        (),
        "Draw the data anew with each of these seeds; --seed alone by default.",
        metavar="N,N,...",
        least=0,
        most=2**32 - 1,
    )
    ledger: StrPath | None = option(
        None, "Keep finished points here, and go on from them when killed.", metavar="FOLDER"
    )

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        for name in ("targets", "sparsities", "bits"):
            if not getattr(self, name):
                yield f"{name}: is empty, so the sweep has no points. Give one or more."
