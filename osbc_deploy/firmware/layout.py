"""The bytes of a network blob and of a telemetry record, described once.

Python writes and reads by these records, the C runtime by offsets made of them, and docs/blob.md
lists them. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = [
    "GEOMETRY",
    "HEADER",
    "KINDS",
    "LAYER",
    "LAYOUT",
    "MAGIC",
    "MOST_EXTENT",
    "NETWORK",
    "POPULATION",
    "PROJECTION",
    "READOUTS",
    "RECORD",
    "RECORD_LAYOUT",
    "RECORD_MAGIC",
    "REGISTERS",
    "TABLE",
    "Record",
    "record",
]

LAYOUT = 2
"""That is written; earlier ones are read, whose projections all have sums of their own."""
MAGIC = b"OSBCNET\0"
RECORD_LAYOUT = 1
RECORD_MAGIC = b"OSBT"
KINDS = ("sparse", "dense", "conv")
READOUTS = ("sum", "last", "max")
MOST_EXTENT = 2**16 - 1
"""Of any side of a convolution, so that no product of two leaves 32 bits."""
REGISTERS = ("kept_u", "kept_v", "bias", "threshold", "drop", "u_init", "v_init")

_CODES = {
    "u8": "B", "u16": "H", "u32": "I", "f64": "d", "4 bytes": "4s", "8 bytes": "8s",
    "16 bytes": "16s", "table": "12s", "8 x u16": "16s",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field: its name, its type as docs/blob.md writes it, and where it starts."""

    name: str
    type: str
    offset: int


@dataclass(frozen=True)
class Record:
    """Fields that follow each other without gaps."""

    name: str
    fields: tuple[Field, ...]

    @cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct("<" + "".join(_CODES[field.type] for field in self.fields))

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return self._struct.size

    def offset(self, name: str) -> int:
        """Return where a field starts."""
        return next(field.offset for field in self.fields if field.name == name)

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """Return the bytes of a record; struct.error for numbers that do not fit."""
        return self._struct.pack(*(values[field.name] for field in self.fields))

    def unpack(self, data: bytes, at: int = 0) -> dict[str, Any]:
        """Return the fields of a record at a place of `data`; struct.error where it ends."""
        found = self._struct.unpack_from(data, at)
        return {field.name: value for field, value in zip(self.fields, found, strict=True)}


def record(name: str, text: str) -> Record:
    """Return the record of lines ``type name name ...``."""
    fields, at = [], 0
    for line in text.strip().splitlines():
        kind, names = line.split(":")
        for field in names.split():
            fields.append(Field(field, kind.strip(), at))
            at += struct.calcsize("<" + _CODES[kind.strip()])
    return Record(name, tuple(fields))


HEADER = record(
    "header",
    """
    8 bytes: magic
    u16: layout zero
    u32: length
    16 bytes: identity
    u32: state_bytes body_crc header_crc
    """,
)
NETWORK = record(
    "network",
    """
    u32: inputs cycle depth votes
    f64: input_scale
    u16: populations projections
    u8: decay_bits state_bits state_shift readout
    u8: input_kind input_bits input_signed margin_unit
    """,
)
"""Right behind the header; then come the projections, then the populations."""

TABLE = record(
    "table",
    """
    u32: at repeat
    u8: width zero0 zero1 zero2
    """,
)
PROJECTION = record(
    "projection",
    """
    u8: kind code_bits shift right wraps graded direct zero
    u16: pre post
    u32: latency ring sums synapses codes geometry
    table: start target delay
    """,
)
POPULATION = record(
    "population",
    f"""
    u32: size state reset_interval reset_offset
    u16: first count
    u8: keeps_u subtract spiking count_unit
    table: {" ".join(REGISTERS)}
    """,
)
GEOMETRY = record(
    "geometry",
    """
    u32: height width rows columns c_in c_out kh kw groups
    u32: stride_y stride_x padding_y padding_x dilation_y dilation_x
    """,
)

RECORD = record(
    "record",
    """
    4 bytes: magic
    u16: version layers classes
    8 bytes: identity
    u32: sequence samples
    u16: boots silent faults
    8 x u16: margins
    """,
)
"""What a telemetry record starts with; then come the layers, the answers of each class (u16) and
the CRC-32 of all before it."""

LAYER = record(
    "layer",
    """
    u32: spikes
    u16: fired clipped_currents clipped_potentials
    8 x u16: counts
    """,
)
