"""The tables of options of the compression: how much is left of the weights, and by what.

They are part of :mod:`osbc_deploy.options`, which says how tables are read.
"""

# Annotations are read by `option`, so this module does without their postponement.

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from osbc_deploy.options.notation import parsed_pattern, removed_by
from osbc_deploy.options.option import BYTES, Options, option
from osbc_deploy.options.unasked import Unasked, unasked

__all__ = [
    "BOTH", "REQUESTED", "SHARING", "VERIFIED", "Allocation", "AmountOptions", "AugmentOptions",
    "Augmentation", "Compression", "CompressionRequest", "Method", "MethodOptions",
    "SolverOptions", "TriedAllocation", "impossible", "other_sparsity",
]  # fmt: skip

Method: TypeAlias = Literal["osbc", "obc", "magnitude", "paper"]
Allocation: TypeAlias = Literal["lamps", "uniform", "global"]
TriedAllocation: TypeAlias = Literal["lamps", "uniform", "global", "auto"]
Augmentation: TypeAlias = Literal["auto", "shifts", "none"]

REQUESTED = "report.compression.requested"
VERIFIED = "verify.options"
"""Places in the reports, beside the provenance of every report, which holds all options."""

BOTH = (REQUESTED, VERIFIED)
SHARING = "How layers share --sparsity; global is by loss, or by size with magnitude."

_SPARSITY = Unasked(0.9)


@dataclass(frozen=True, kw_only=True)
class AmountOptions(Options):
    """How much is left of the weights."""

    sparsity: float = option(
        _SPARSITY,
        "Share of weights to remove, 0 <= S < 1; --pattern N:M sets it.",
        least=0,
        below=1,
        remedy="Give the share of weights to remove, such as 0.9.",
        reported=BOTH,
    )
    bits: int = option(
        4,
        "Bits per weight, 1 to 8; 1 is ternary: -1, 0 and 1.",
        least=1,
        most=8,
        remedy="Give the bits per weight, such as 4.",
        reported=BOTH,
    )


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Options):
    """What the choice and the values of the weights go by."""

    method: Method = option(
        "osbc",
        "Membrane Hessian, current Hessian, magnitude alone, or OSBC's recipe as published.",
        reported=[VERIFIED],
    )


@dataclass(frozen=True, kw_only=True)
class SolverOptions(Options):
    """How the weights to keep are chosen, and what the solver may take."""

    allocation: TriedAllocation = option("lamps", SHARING, formerly="budget", reported=BOTH)
    pattern: str = option(
        "weights",
        "What is removed together: single weights, all but N of M, whole neurons or channels.",
        metavar="weights|N:M|inputs|outputs",
        reported=BOTH,
    )
    mixed: bool = option(
        False,
        "Distribute the chip memory that --bits would take among layers, for the least loss.",
        reported=BOTH,
    )
    tune: bool = option(
        True,
        "Try variants of every layer on held-out calibration samples.",
        reported=BOTH,
    )
    solver_memory: int = option(
        4 * 1024**3,
        "Memory for spikes and a layer's Hessians; batches may take as much again.",
        metavar=BYTES,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class Compression(SolverOptions, MethodOptions, AmountOptions):
    """What is asked of the compression."""

    def _settled(self) -> dict[str, Any]:
        if not unasked(self.sparsity):
            return {}
        removed = removed_by(self.pattern)
        return {"sparsity": _SPARSITY if removed is None else Unasked(removed)}

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        yield from impossible(self, self.method)
        yield from other_sparsity(self.pattern, [self.sparsity])


def impossible(solver: SolverOptions, method: Method) -> Iterator[str]:
    """Return what a method cannot do."""
    kind, _, _ = parsed_pattern(solver.pattern)
    if kind != "weights" and solver.allocation == "global":
        yield (
            f"allocation: global ranks single weights, the pattern is {solver.pattern}. Use "
            "lamps or uniform with it."
        )
    if kind != "weights" and method == "magnitude":
        yield (f"pattern: {solver.pattern} needs a Hessian. Use method osbc or obc with it.")
    for name, more in (("pattern", kind != "weights"), ("mixed", solver.mixed)):
        if more and method == "paper":
            yield f"{name}: is not supported by method paper. Use method osbc or obc with it."


def other_sparsity(pattern: str, asked: Sequence[float]) -> Iterator[str]:
    """Return what is wrong with sparsities that were asked for beside a pattern."""
    removed = removed_by(pattern)
    # A third has no end of digits: as many as the sentence below shows are enough.
    if removed is None or all(math.isclose(s, removed, rel_tol=1e-4) for s in asked):
        return
    _, stay, of = parsed_pattern(pattern)
    given = ", ".join(f"{sparsity:g}" for sparsity in asked)
    yield (
        f"sparsity: {given} contradicts pattern {pattern}, which keeps {stay} of {of} weights and "
        f"so removes {removed:.4g}. Leave out --sparsity or the pattern."
    )


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(Options):
    """What is calibrated on beside the samples."""

    augment: Augmentation = option(
        "auto",
        "Calibrate on copies of the samples, moved by up to 2 pixels, as well; auto where a dense "
        "layer fed by a camera has more inputs than they have steps.",
    )

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        methods = getattr(self, "methods", [getattr(self, "method", "osbc")])
        for method in dict.fromkeys(methods):
            if self.augment == "shifts" and method in ("magnitude", "paper"):
                yield (
                    f"augment: method {method} is calibrated on the samples as they are. Use "
                    "method osbc or obc with shifts."
                )


@dataclass(frozen=True, kw_only=True)
class CompressionRequest(AugmentOptions, Compression):
    """The same with what has one best value, which Python alone can change."""

    damping: float = option(
        0.03,
        "Added to the Hessian's diagonal, relative to its mean.",
        least=0, below=math.inf, reported=[REQUESTED],
    )  # fmt: skip
