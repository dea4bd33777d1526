"""What the compression is told: what the user asks for, and what the chip and a plan decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from osbc_deploy.cluster import Crew
from osbc_deploy.compress.rows import Workspace
from osbc_deploy.model.neurons import LinearDynamics
from osbc_deploy.options import Compression, CompressionRequest
from osbc_deploy.options.notation import Readout
from osbc_deploy.options.option import rows
from osbc_deploy.options.solver import Augmentation

__all__ = ["CompressionOptions", "LayerChoice"]

PUBLISHED_DAMPING = 0.01
"""Of the recipe as it was published (Shi, Li, Ward-Cherrier 2025)."""


@dataclass(frozen=True)
class LayerChoice:
    """Sparsity and bits of one layer, in place of the network's."""

    sparsity: float
    bits: int


@dataclass(frozen=True, kw_only=True)
class CompressionOptions(CompressionRequest):
    """What is asked of the compression; :mod:`osbc_deploy.options` explains the rest.

    Attributes
    ----------
    damping : float
        3 % leaves the least loss on held-out calibration samples of the bundled networks (GPTQ's
        1 % leaves 1 % more).
    scale_groups : int
        Different weight scales allowed per layer: the neuron groups of a core.
    layers : dict of LayerChoice
        By projection name; layers that are not named share `sparsity`.
    dynamics : dict of LinearDynamics
        By population: what the chip makes of its linear system, where that is another.
    readout : {"sum", "last", "max", "vote:N"}
        How the outputs' activity becomes a class.
    threads : int
        0 for one per core.
    crew : Crew or None
        Other processes that take part; they change no result.
    device : str or None
        Where torch runs and moments are summed, which changes none either; None for the CPU.
    """

    scale_groups: int = 8
    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    dynamics: Mapping[str, LinearDynamics] = field(default_factory=dict)
    readout: Readout = "sum"
    threads: int = 0
    crew: Crew | None = field(default=None, repr=False, compare=False)
    device: str | None = field(default=None, repr=False, compare=False)

    def space(self, on_rows: Callable[[int], None] = lambda rows: None) -> Workspace:
        """Return what the solver may use."""
        return Workspace(self.solver_memory, self.threads, on_rows, self.crew, self.device)

    @property
    def joint(self) -> bool:
        """Whether losses of all layers are compared, so that all Hessians are needed at once."""
        return self.mixed or (self.allocation == "global" and self.method != "magnitude")

    @property
    def tries(self) -> bool:
        """Whether variants of each layer are tried: the published recipe has none."""
        return self.tune and self.method != "paper"

    @property
    def added(self) -> float:
        """What is added to the Hessian's diagonal, relative to its mean."""
        return PUBLISHED_DAMPING if self.method == "paper" else self.damping

    @classmethod
    def of(
        cls,
        asked: Compression,
        *,
        scale_groups: int,
        dynamics: Mapping[str, LinearDynamics] | None = None,
        readout: Readout = "sum",
        augment: Augmentation = "none",
    ) -> CompressionOptions:
        """Return what a verb's options ask of the compression, on a chip."""
        values = {row.name: getattr(asked, row.name) for row in rows(Compression)}
        return cls(
            **values,
            scale_groups=scale_groups,
            dynamics=dynamics or {},
            readout=readout,
            augment=augment,
        )
