"""Which slice of which layer lies on which core, and what is exceeded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.layers import Layer, Ranges, Usage, layer_of
from osbc_deploy.chip.partition import arrange
from osbc_deploy.chip.target import Target
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.model.graph import Shape

__all__ = ["Core", "Mapping", "layers_of", "map_layers", "map_network"]


@dataclass(frozen=True)
class Core:
    """A slice of a layer on a core; on some chips, several share one.

    Attributes
    ----------
    index : int
        Number of the core, from 0.
    population, layer : str
        The neurons, and the weights in front of them.
    ranges : tuple of (start, stop)
        One per axis of the population's shape.
    listed : tuple of int
        Neurons of the slice where the layer was sorted before it was cut: `ranges` then counts in
        that order. Empty where it was not.
    usage : Usage
    limits : dict of int
        What the core holds of each resource.
    delay_bits : int
        Of the delays of its synapses.
    """

    index: int
    population: str
    layer: str
    ranges: Ranges
    usage: Usage
    limits: MappingOf[str, int]
    listed: tuple[int, ...] = ()
    delay_bits: int = 0

    @property
    def neurons(self) -> int:
        """Neurons of the slice."""
        return self.usage.neurons

    @property
    def slice(self) -> str:
        """The ranges as text, such as ``0:50``, ``0:16, 0:10, 0:20`` or ``0:50 sorted``."""
        text = ", ".join(f"{start}:{stop}" for start, stop in self.ranges)
        return f"{text} sorted" if self.listed else text

    def members(self, shape: Shape) -> IntArray:
        """Return the numbers of the slice's neurons in their population of `shape`."""
        if self.listed:
            return np.array(self.listed)
        every = np.arange(math.prod(shape)).reshape(shape)
        return np.asarray(every[tuple(slice(*r) for r in self.ranges)].ravel())

    def as_dict(self, word_bits: int) -> dict[str, Any]:
        """Return the core as plain data, with its resources and what limits it."""
        limiting, share = self.limiting()
        usage = self.usage
        return {
            "core": self.index,
            "layer": self.layer,
            "population": self.population,
            "slice": self.slice,
            **({"listed": list(self.listed)} if self.listed else {}),
            "neurons": usage.neurons,
            "axons": usage.axons,
            "synapses": usage.synapses,
            "encoding": usage.encoding,
            "resources": {
                name: {"used": used, "max": self.limits[name]} for name, used in usage.used.items()
            },
            "synapse_bits": dict(usage.bits),
            "bytes": usage.words * word_bits // 8,
            "limiting": limiting,
            "limiting_share": share,
        }

    def limiting(self) -> tuple[str, float]:
        """Return the resource closest to its limit, and the share used."""
        used = self.usage.used
        name = max(used, key=lambda key: used[key] / self.limits[key])
        return name, used[name] / self.limits[name]


@dataclass(frozen=True)
class Mapping:
    """All cores of a network on a target.

    Attributes
    ----------
    cores : tuple of Core
    lower_bound : int
        Cores that no way of cutting the populations could do without.
    available, chips : int
        Cores of all chips, and chips.
    word_bits : int
    faults : tuple of str
        What no room would help: rules of the chip that a layer breaks, and single neurons that
        exceed a core.
    notes : tuple of str
        What was counted in an unexpected way.
    rule_names : dict of str
        What the maker's tools call the limits, by resource.
    rules : tuple of str
        The rules of the chip among the faults.
    ends : tuple of str
        Resources that count inputs or outputs.
    """

    cores: tuple[Core, ...]
    lower_bound: int
    available: int
    chips: int
    word_bits: int
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rule_names: dict[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    @cached_property
    def cores_used(self) -> int:
        """Number of cores."""
        return len({core.index for core in self.cores})

    def excesses(self) -> list[str]:
        """Return one line for every limit exceeded; empty when the network fits."""
        lines = self.misfits()
        if self.cores_used > self.available:
            where = "chip" if self.chips == 1 else f"{self.chips} chips"
            lines.insert(
                len(self.faults),
                f"{where}: {self.cores_used} cores needed, {self.available} available "
                f"({self.cores_used - self.available} over)",
            )
        return lines

    def misfits(self) -> list[str]:
        """Return one line for every limit exceeded that more cores would not help."""
        lines = list(self.faults)
        for cores, name, used, limit in self._over():
            names = " + ".join(f"layer {core.layer}[{core.slice}]" for core in cores)
            rule = f"; {self.rule_names[name]}" if name in self.rule_names else ""
            lines.append(
                f"core {cores[0].index} ({names}): {name} {used} exceeds {limit} "
                f"({used - limit} over{rule})"
            )
        return lines

    def remedy(self) -> str:
        """Return what to change where no weights would help; empty where they may."""
        over = {name for _, name, _, _ in self._over()}
        parts = [f"fewer {name}" for name in self.ends if name in over]
        changes = [f"give the network {' and '.join(parts)}"] if parts else []
        changes += ["change the layers that break a rule of the chip"] if self.rules else []
        if not changes:
            return ""
        return f"No weights change that: {', '.join(changes)}, or take another target"

    def _over(self) -> Iterator[tuple[list[Core], str, int, int]]:
        """Yield the slices of each core with a resource that they exceed, what it is and holds."""
        for cores in self.by_core().values():
            for name, limit in cores[0].limits.items():
                used = sum(core.usage.used[name] for core in cores)
                if used > limit:
                    yield cores, name, used, limit

    def as_cut(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """Return the layers with their neurons in the order that cores' ranges count them in."""
        cores = self.by_population()
        orders = {
            name: np.concatenate([np.array(core.listed, np.int64) for core in parts])
            for name, parts in cores.items()
        }
        return tuple(
            layer.ordered(orders[layer.name]) if len(orders[layer.name]) else layer
            for layer in layers
        )

    def by_population(self) -> dict[str, list[Core]]:
        """Return the cores of every population."""
        found: dict[str, list[Core]] = {}
        for core in self.cores:
            found.setdefault(core.population, []).append(core)
        return found

    def by_core(self) -> dict[int, list[Core]]:
        """Return the slices that lie on every core, by its number."""
        shared: dict[int, list[Core]] = {}
        for core in self.cores:
            shared.setdefault(core.index, []).append(core)
        return shared

    @property
    def fits(self) -> bool:
        """Whether every limit is kept."""
        return not self.excesses()

    @property
    def used(self) -> dict[str, int]:
        """What all slices take together of every resource."""
        total: Counter[str] = Counter()
        for core in self.cores:
            total.update(core.usage.used)
        return dict(total)

    @property
    def words(self) -> int:
        """Words of memory used on all cores."""
        return sum(core.usage.words for core in self.cores)

    @property
    def bytes(self) -> int:
        """Bytes of memory used on all cores."""
        return self.words * self.word_bits // 8


def map_network(network: FixedPointNetwork, target: Target) -> Mapping:
    """Give every population of a network the cores it needs.

    Raises
    ------
    UnsupportedModelError
        When the chip does not take what the network's input carries.
    """
    target.check_input(network.input)
    mapping = map_layers(layers_of(network), target)
    ours = network.formats.arithmetic
    if target.formats is None or ours == (theirs := target.formats.arithmetic):
        return mapping
    fault = (
        f"network: its integers are those of {ours!r}, this chip computes with {theirs!r}. "
        "Deploy the model for it"
    )
    return replace(mapping, faults=(fault, *mapping.faults))


def layers_of(network: FixedPointNetwork) -> tuple[Layer, ...]:
    """Return what the memory models need to know of every population, in network order."""
    layers = []
    for population in network.populations:
        outgoing = network.outgoing(population.name)
        incoming = [p for p in network.projections if p.post == population.name]
        layers.append(
            layer_of(
                population,
                tuple((p, network.shape_of(p.pre)) for p in incoming),
                network.formats,
                latencies=[network.latency(p) for p in incoming],
                to_convolution=bool(outgoing) and all(p.connection.convolutional for p in outgoing),
                is_output=population is network.output,
            )
        )
    return tuple(layers)


def map_layers(layers: tuple[Layer, ...], target: Target, *, whole: bool = True) -> Mapping:
    """Give every layer the cores it needs.

    Parameters
    ----------
    layers : tuple of Layer
        In network order; cores are numbered in it.
    target : Target
    whole : bool
        They are a network; otherwise what the chip asks of networks is not checked.
    """
    found = arrange(layers, target)
    cores = []
    first = 0
    for layer, part in zip(layers, found, strict=True):
        for number, (ranges, usage) in enumerate(part.slices):
            index = first + number if part.cores is None else part.cores[number]
            limits = target.memory.core_limits(min(index, target.cores - 1))
            listed = () if part.order is None else tuple(part.order[slice(*ranges[0])].tolist())
            name = layer.title or layer.name
            core = Core(index, layer.name, name, ranges, usage, limits, listed, layer.delay_bits)
            cores.append(core)
        first += len(part.slices)
    rules = tuple(target.memory.broken_rules(layers)) if whole else ()
    return Mapping(
        tuple(cores),
        sum(part.lower_bound for part in found),
        target.cores,
        target.chip.chips.value,
        target.memory.word_bits.value,
        (
            *rules,
            *dict.fromkeys(fault for part in found for fault in part.faults),
        ),
        tuple(target.memory.notes(layers)),
        target.memory.rule_names(),
        rules,
        target.memory.ends,
    )
