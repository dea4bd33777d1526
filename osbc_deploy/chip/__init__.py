"""The chip: what it is (targets), what a network costs on it (memory), how it is split (cores)."""

from osbc_deploy.chip.mapping import Core, Mapping, map_network
from osbc_deploy.chip.target import Target, load_target, target_names

__all__ = ["Core", "Mapping", "Target", "load_target", "map_network", "target_names"]
