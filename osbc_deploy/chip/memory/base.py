"""What every memory model answers; a model overrides what its chip restricts."""

from __future__ import annotations

from osbc_deploy.chip.facts import Strict
from osbc_deploy.chip.layers import Layer

__all__ = ["MemoryBase"]


class MemoryBase(Strict):
    """A memory model without rules beside its capacities, whose cores are all the same."""

    def limits(self) -> dict[str, int]:
        """Return the capacity of a core by resource."""
        raise NotImplementedError

    def core_limits(self, core: int) -> dict[str, int]:
        """Return the capacity of one core."""
        del core
        return self.limits()

    def faults(self, cores: int) -> list[str]:
        """Return what contradicts itself in a chip of so many cores."""
        del cores
        return []

    def broken_rules(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what the chip cannot do at all, however much room its cores have."""
        del layers
        return []

    def notes(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what was counted otherwise than one may expect."""
        del layers
        return []
