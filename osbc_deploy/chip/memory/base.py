"""The contract of a memory model; a model overrides what its chip restricts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, TypeAlias

from osbc_deploy.chip.facts import Fact, Strict, Width
from osbc_deploy.chip.layers import Layer, Ranges, Usage

__all__ = ["Arrangement", "MemoryBase"]

Arrangement: TypeAlias = Literal["split", "together", "one each"]

_SHARING = 4
"""Layers that are to find room for their thresholds on one core."""


class MemoryBase(Strict):
    """A memory model without rules beside its capacities, whose cores are all the same.

    A model derives from this class, with a :class:`~osbc_deploy.chip.facts.Fact` for every number
    of the table ``[memory]`` of its targets, and is registered as an entry point of the group
    ``osbc_deploy.memory_models``, under the name that the table's key ``model`` gives.

    Attributes
    ----------
    model : str
        Name of the model.
    word_bits : Fact
        Bits of a word, in which memory is counted.
    layers_share : Fact or None
        Where populations are split: whether a core may hold slices of several of them. What they
        take is added up.
    ends : tuple of str
        Resources that count the network's inputs or outputs, which no weights change.
    arrangement : {"split", "together", "one each"}
        Whether a population is cut over as many cores as it needs, all lie on one core, or each is
        given a core that can hold it. Only where populations are split, :meth:`least` is asked.
    """

    arrangement: ClassVar[Arrangement] = "split"
    ends: ClassVar[tuple[str, ...]] = ()

    model: str
    word_bits: Fact[Width]
    layers_share: Fact[bool] | None = None

    @property
    def packs(self) -> bool:
        """Whether slices of several layers may lie on one core of populations that are split."""
        allowed = self.layers_share is not None and self.layers_share.value
        return allowed and self.arrangement == "split"

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales, that a core holds."""
        raise NotImplementedError

    @property
    def layer_scales(self) -> int:
        """Different thresholds that one layer is given.

        Where layers share cores, a layer that took all of them would be alone on its own.
        """
        return max(1, self.scale_groups // _SHARING) if self.packs else self.scale_groups

    def limits(self) -> dict[str, int]:
        """Return the capacity of a core by resource."""
        raise NotImplementedError

    def core_limits(self, core: int) -> dict[str, int]:
        """Return the capacity of one core."""
        del core
        return self.limits()

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of this many cores."""
        unshared = self.arrangement == "together" and cores != 1
        return [f"chip.cores is {cores}; all layers share 1"] * unshared

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a slice of a layer uses on its core; the whole layer where none is cut."""
        raise NotImplementedError

    def fixed(self) -> dict[str, int]:
        """Return what of :meth:`cost` the output layer only stands for, whatever the network.

        Of each resource, and of "words".
        """
        return {}

    def least(self, layer: Layer) -> dict[str, int]:
        """Return what the slices of any cut together use at least of every resource."""
        raise NotImplementedError

    def least_together(self, populations: Iterable[tuple[int, bool]]) -> dict[str, int]:
        """Return what populations on one core take at least, whatever their weights.

        Of each, its neurons and whether their current outlives a step.
        """
        del populations
        return {}

    def broken_rules(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what the chip cannot do at all, however much room its cores have."""
        del layers
        return []

    def rule_names(self) -> dict[str, str]:
        """Return what the maker's tools call the limits of resources, where they name them."""
        return {}

    def notes(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what was counted in an unexpected way."""
        del layers
        return []
