"""What is asked of the compression, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from osbc_deploy.compress.patterns import Pattern
from osbc_deploy.compress.rows import DEFAULT_MEMORY
from osbc_deploy.errors import UsageError

__all__ = ["BUDGETS", "METHODS", "CompressionOptions", "LayerChoice"]

Method = Literal["osbc", "obc", "magnitude"]
METHODS: tuple[str, ...] = get_args(Method)

Budget = Literal["lamps", "uniform", "global"]
BUDGETS: tuple[str, ...] = get_args(Budget)


@dataclass(frozen=True)
class LayerChoice:
    """Sparsity and bits of one layer, in place of the network's."""

    sparsity: float
    bits: int


@dataclass(frozen=True)
class CompressionOptions:
    """What is asked of the compression.

    Attributes
    ----------
    sparsity : float
        Share of all weights removed, 0 <= sparsity < 1.
    bits : int
        Bits per weight, 1 to 8.
    method : str
        "osbc" (membrane Hessian), "obc" (input-current Hessian) or "magnitude".
    damping : float
        Added to the Hessian's diagonal, relative to its mean; 3 % leaves the least loss on
        held-out calibration samples of the bundled networks (GPTQ's 1 % leaves 1 % more).
    scale_groups : int
        Different weight scales allowed per layer: the neuron groups of a core.
    layers : dict of LayerChoice
        By projection name; layers that are not named share `sparsity`.
    budget : str
        How layers share `sparsity`: "lamps" (Lee et al. 2021), "uniform", or "global" (least sum
        of relative losses).
    pattern : str
        "weights", "inputs", "outputs", or N:M such as "2:4".
    mixed : bool
        Whether `bits` is an average over the weights kept, shared for the least loss.
    tune : bool
        Whether each population is compressed for the spikes that arrive from compressed layers,
        in the way that held-out calibration samples favour; see :mod:`.tuning`.
    memory : int
        Bytes that the Hessians of a layer may take, and once more what is worked on beside them.
    threads : int
        0 for one per core.
    """

    sparsity: float = 0.9
    bits: int = 4
    method: str = "osbc"
    damping: float = 0.03
    scale_groups: int = 8
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    budget: str = "lamps"
    pattern: str = "weights"
    mixed: bool = False
    tune: bool = True
    memory: int = DEFAULT_MEMORY
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise UsageError(
                f"sparsity: {self.sparsity:g} is outside 0 <= sparsity < 1. Give the "
                "share of weights to remove, such as 0.9."
            )
        if not 1 <= self.bits <= 8:
            raise UsageError(
                f"bits: {self.bits} is outside 1 to 8. Give the bits per weight, such as 4."
            )
        if self.method not in METHODS:
            raise UsageError(f"method: {self.method!r} is none of {', '.join(METHODS)}.")
        if self.budget not in BUDGETS:
            raise UsageError(f"budget: {self.budget!r} is none of {', '.join(BUDGETS)}.")
        if not (np.isfinite(self.damping) and self.damping >= 0.0):
            raise UsageError(f"damping: {self.damping:g} is not a number of at least 0.")
        if self.memory < 1:
            raise UsageError(f"memory: {self.memory} B is less than 1.")
        pattern = Pattern.parse(self.pattern)
        if pattern.kind != "weights" and self.budget == "global":
            raise UsageError(
                f"budget: global ranks single weights, the pattern is {self.pattern}. "
                "Use lamps or uniform with it."
            )
        if self.method == "magnitude" and pattern.kind != "weights":
            raise UsageError(
                f"pattern: {self.pattern} needs a Hessian. Use method osbc or obc with it."
            )
