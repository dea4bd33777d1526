"""Flash and RAM of a microcontroller: what the C runtime and a network's blob take, to the byte.

A microcontroller is a chip of one core, whose memory all layers share: the tables of the blob and
the code of the runtime in flash, the state buffer and the runtime's stack in RAM. Tables and state
are those that an export writes; code and stack are facts of the target, as its compiler made them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from osbc_deploy.chip.facts import Count, Fact, Positive, Strict
from osbc_deploy.chip.layers import Layer, Ranges, Usage
from osbc_deploy.chip.memory import Arrangement, MemoryBase
from osbc_deploy.firmware.layout import GEOMETRY, HEADER, NETWORK, POPULATION, PROJECTION
from osbc_deploy.firmware.tables import (
    PopulationTables,
    ProjectionTables,
    population_tables,
    projection_tables,
    state_words,
    together,
)

__all__ = ["RuntimeMemory"]


class RuntimeCaps(Strict):
    """What the microcontroller has, in bytes."""

    flash: Fact[Positive]
    ram: Fact[Positive]


class RuntimeMemory(MemoryBase):
    """Memory model of the C runtime on a microcontroller.

    Attributes
    ----------
    word_bits : Fact
    caps : RuntimeCaps
    code, stack : Fact
        Bytes that the runtime takes whatever the network, of flash and of RAM.
    thresholds : Fact
        Different thresholds, so weight scales, that a layer may have: each takes room.
    """

    arrangement: ClassVar[Arrangement] = "together"

    caps: RuntimeCaps
    code: Fact[Count]
    stack: Fact[Count]
    thresholds: Fact[Positive]

    @property
    def scale_groups(self) -> int:
        """Different thresholds, so weight scales."""
        return self.thresholds.value

    def limits(self) -> dict[str, int]:
        """Return the bytes there are."""
        return {name: getattr(self.caps, name).value for name in RuntimeCaps.model_fields}

    def cost(self, layer: Layer, ranges: Ranges) -> Usage:
        """Return what a layer adds; the output layer, which every network has one of, the rest."""
        del ranges
        if layer.population is None or layer.formats is None:
            raise ValueError(f"{layer}: its numbers are not known")
        registers = population_tables(layer.population, layer.formats)
        parts = together(
            [
                part
                for a in layer.afferents
                if a.projection is not None
                for part in projection_tables(a.projection, a.pre_shape, a.latency, layer.formats)
            ]
        )
        flash = _registers(registers) + sum(_synapses(part) for part in parts)
        ram = 4 * registers.state_words + sum(4 * part.sums * layer.size for part in parts)
        if layer.is_output:
            flash += self.fixed()["flash"]
            ram += self.fixed()["ram"]
        payload = sum(part.synapses * part.code_bits for part in parts)
        index = 8 * sum(p.start.size + p.target.size + p.delay.size for p in parts)
        stored = 8 * sum(sum(_filled(t.size) for t in p.tables.values()) for p in parts)
        return Usage(
            {"flash": flash, "ram": ram},
            words=flash * 8 // self.word_bits.value,
            neurons=layer.size,
            axons=sum(a.pre_size for a in layer.afferents),
            synapses=sum(part.synapses for part in parts),
            encoding="+".join(dict.fromkeys(part.kind for part in parts)),
            bits={
                "payload": payload,
                "index": index,
                "header": 8 * sum(map(_header, parts)),
                "padding": stored - payload - index,
            },
        )

    def fixed(self) -> dict[str, int]:
        """Return the runtime's code and stack, with what every blob and state begins with."""
        flash = self.code.value + HEADER.size + NETWORK.size
        words = flash * 8 // self.word_bits.value
        # The first word of the state counts steps.
        return {"flash": flash, "ram": self.stack.value + 4, "words": words}

    def least_together(self, populations: Iterable[tuple[int, bool]]) -> dict[str, int]:
        """Return the RAM of populations whose sums take none."""
        words = sum(state_words(size, keeps_u) for size, keeps_u in populations)
        return {"ram": self.fixed()["ram"] + 4 * words}

    def notes(self, layers: tuple[Layer, ...]) -> list[str]:
        """Return what belongs to no layer."""
        del layers
        return [
            f"the last layer's flash and RAM hold the runtime's code ({self.code.value:,} B) and "
            f"stack ({self.stack.value:,} B)"
        ]


def _filled(size: int) -> int:
    """Return the bytes of a table in a blob, whose parts start at multiples of four."""
    return -(-size // 4) * 4


def _registers(q: PopulationTables) -> int:
    return POPULATION.size + sum(_filled(table.size) for table in q.tables.values())


def _header(p: ProjectionTables) -> int:
    return PROJECTION.size + (GEOMETRY.size if p.geometry else 0)


def _synapses(p: ProjectionTables) -> int:
    return _header(p) + sum(_filled(table.size) for table in p.tables.values())
