"""Write a mapped network as one binary image, core by core.

The byte layout is stated in ``docs/image-format.md``; :mod:`osbc_deploy.formats.image.read`
reads it back.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.chip.mapping import Core, Mapping
from osbc_deploy.errors import FitError, UnsupportedModelError, UsageError
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults, weight_range
from osbc_deploy.formats.folder import manifest_of
from osbc_deploy.formats.image.bits import pack
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape
from osbc_deploy.writing import check_file, write_whole

__all__ = [
    "AFFERENT",
    "CORE",
    "DELAY_BITS",
    "ENCODINGS",
    "ENTRY",
    "GEOMETRY",
    "HEADER",
    "INPUT_NUMBER",
    "LISTED",
    "MAGIC",
    "REGISTERS",
    "SECTIONS",
    "SIGNS",
    "SLICE",
    "VERSION",
    "ImageMap",
    "Section",
    "encode_image",
    "write_image",
]

MAGIC = b"OSBCIMG\0"
VERSION = 1
HEADER = struct.Struct("<8sHHIIIII")
"""Magic, version, zero, bytes in all, sections, cores, CRC-32 of table and header."""
ENTRY = struct.Struct("<HHIIII")
"""Kind, zero, core, offset, length, CRC-32 of the section."""
SECTIONS = {"structure": 1, "scales": 2, "core": 3}
CORE = struct.Struct("<I")
"""Slices."""
SLICE = struct.Struct("<HHI6IIIII")
"""Population, flags, neurons, ranges of three axes, reset interval and offset, sets, afferents."""
LISTED = 4
"""Flag of a slice whose neurons are listed: the layer was sorted before it was cut."""
AFFERENT = struct.Struct("<HHBBbBBBBBIII")
"""Projection, source, encoding, bits, exponent, sign, delay bits, shortest delay, index bits,
graded, axons, synapses, bytes of the records."""
GEOMETRY = struct.Struct("<3I10HI")
"""Source shape, kernel, stride, padding, dilation, groups, zero, bytes of the kernel."""
REGISTERS = ("du", "dv", "vth", "reset_amount", "bias_mant", "bias_exp", "u_init", "v_init")
ENCODINGS = {"sparse": 0, "dense": 1, "conv": 2}
SIGNS = {"mixed": 0, "excitatory": 1, "inhibitory": 2}
DELAY_BITS = 6
INPUT_NUMBER = 0xFFFF
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Section:
    """What lies where.

    Attributes
    ----------
    kind : str
    core : int or None
    offset, length, crc32 : int
    slices : tuple of dict
        Of a core: layer, population, slice, neurons, axons, synapses stored, offset, and the bytes
        that the memory model counts.
    """

    kind: str
    core: int | None
    offset: int
    length: int
    crc32: int
    slices: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class ImageMap:
    """The map of an image: its size, digest and sections."""

    size: int
    sha256: str
    sections: tuple[Section, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the map as plain data, for its JSON file."""
        return {
            "format": f"osbc-deploy/image-map/{VERSION}",
            "image_bytes": self.size,
            "sha256": self.sha256,
            "sections": [
                {
                    "kind": s.kind,
                    **({"core": s.core} if s.core is not None else {}),
                    "offset": s.offset,
                    "length": s.length,
                    "crc32": f"{s.crc32:08x}",
                    **({"slices": list(s.slices)} if s.slices else {}),
                }
                for s in self.sections
            ],
        }


def write_image(network: FixedPointNetwork, mapping: Mapping, path: str | Path) -> ImageMap:
    """Write an image and, beside it, its map (``NAME.map.json``), each whole or not at all.

    Raises
    ------
    FitError
        When the network does not fit the chip.
    UnsupportedModelError
        When numbers are out of range, or something is larger than its field.
    UsageError
        When the path cannot be written, or holds something else.
    """
    path = Path(path)
    data, found = encode_image(network, mapping)
    _replace(path, data, MAGIC)
    text = json.dumps(found.as_dict(), indent=1) + "\n"
    _replace(path.with_name(path.name + ".map.json"), text.encode(), b"{")
    return found


def encode_image(network: FixedPointNetwork, mapping: Mapping) -> tuple[bytes, ImageMap]:
    """Return the bytes of an image, and its map; errors are those of :func:`write_image`."""
    if wrong := faults(network):
        raise UnsupportedModelError("network: out of the chip's range", wrong, "Deploy it again.")
    if not mapping.fits:
        raise FitError(
            f"image: the network does not fit the chip ({'; '.join(mapping.excesses()[:3])}). "
            "Compress it further, or choose a larger target."
        )
    manifest = manifest_of(network)
    parts: list[tuple[str, int | None, bytes, tuple[dict[str, Any], ...]]] = [
        ("structure", None, json.dumps(manifest, separators=(",", ":")).encode(), ()),
        ("scales", None, _scales(network), ()),
    ]
    cores = mapping.by_core()
    try:
        for index, slices in sorted(cores.items()):
            parts.append(("core", index, *_core(network, slices, mapping.word_bits)))
        return _assemble(parts, len(cores))
    except struct.error as error:
        raise UnsupportedModelError(
            "network: larger than the image's fields",
            [str(error)],
            "Sizes and offsets have 32 bits, population numbers 16; use smaller layers.",
        ) from error


def _assemble(
    parts: list[tuple[str, int | None, bytes, tuple[dict[str, Any], ...]]], cores: int
) -> tuple[bytes, ImageMap]:
    offset = HEADER.size + ENTRY.size * len(parts)
    table, body, sections = b"", b"", []
    for kind, core, data, slices in parts:
        crc = zlib.crc32(data)
        table += ENTRY.pack(SECTIONS[kind], 0, core or 0, offset, len(data), crc)
        moved = tuple(entry | {"offset": entry["offset"] + offset} for entry in slices)
        sections.append(Section(kind, core, offset, len(data), crc, moved))
        padded = data + bytes(-len(data) % 4)
        body += padded
        offset += len(padded)
    total = offset + _DIGEST
    head = HEADER.pack(MAGIC, VERSION, 0, total, len(parts), cores, zlib.crc32(table), 0)[:-4]
    data = head + struct.pack("<I", zlib.crc32(head)) + table + body
    digest = hashlib.sha256(data)
    return data + digest.digest(), ImageMap(total, digest.hexdigest(), tuple(sections))


def _scales(network: FixedPointNetwork) -> bytes:
    parts = [array for p in network.populations for array in (p.v_scale, p.v_offset)]
    return b"".join(np.asarray(array, "<f8").tobytes() for array in parts)


def _core(
    network: FixedPointNetwork, slices: list[Core], word_bits: int
) -> tuple[bytes, tuple[dict[str, Any], ...]]:
    data, entries = CORE.pack(len(slices)), []
    for core in slices:
        encoded, synapses = _slice(network, core)
        entries.append(
            {
                "layer": core.layer,
                "population": core.population,
                "slice": core.slice,
                "neurons": core.neurons,
                "axons": core.usage.axons,
                "synapses": synapses,
                "offset": len(data),
                "length": len(encoded),
                "memory_bytes": core.usage.words * word_bits // 8,
            }
        )
        data += encoded
    return data, tuple(entries)


def _slice(network: FixedPointNetwork, core: Core) -> tuple[bytes, int]:
    names = [p.name for p in network.populations]
    number = names.index(core.population)
    population = network.populations[number]
    chosen = core.members(population.shape)
    registers = np.stack([getattr(population, name)[chosen] for name in REGISTERS], axis=1)
    sets, which = np.unique(registers, axis=0, return_inverse=True)
    afferents = network.afferents(core.population)
    ranges = [x for r in (*core.ranges, *[(0, 1)] * (3 - len(core.ranges))) for x in r]
    flags = int(population.spiking) | 2 * int(population.reset == "subtract")
    flags |= LISTED * bool(core.listed)
    data = SLICE.pack(
        number, flags, len(chosen), *ranges, population.reset_interval,
        population.reset_offset, len(sets), len(afferents),
    )  # fmt: skip
    data += np.array(core.listed, "<u4").tobytes()
    data += sets.astype("<i4").tobytes()
    width = 1 if len(sets) <= 2**8 else 2 if len(sets) <= 2**16 else 4
    index = which.ravel().astype(f"<u{width}").tobytes()
    data += index + bytes(-len(index) % 4)
    synapses = 0
    for projection in afferents:
        part, count = _afferent(network, projection, core, names)
        data += part
        synapses += count
    return data, synapses


def _afferent(
    network: FixedPointNetwork,
    projection: FixedProjection,
    core: Core,
    names: list[str],
) -> tuple[bytes, int]:
    _, _, step = weight_range(projection.weight_bits, projection.sign, network.formats)
    # One sign is not stored: inhibitory codes are magnitudes.
    unit = -step if projection.sign == "inhibitory" else step
    shape = network.shape_of(projection.pre)
    part = _synapses(projection.connection, core, shape, unit, projection.weight_bits)
    source = INPUT_NUMBER if projection.pre == INPUT else names.index(projection.pre)
    head = AFFERENT.pack(
        network.projections.index(projection), source, ENCODINGS[part.encoding],
        projection.weight_bits, projection.weight_exp, SIGNS[projection.sign], part.delay_bits,
        part.shortest, part.index_bits, int(projection.graded), part.axons, part.synapses,
        len(part.data),
    )  # fmt: skip
    return head + part.data, part.synapses


class _Synapses(NamedTuple):
    """The synapses of a projection into a slice; see :data:`AFFERENT`."""

    encoding: str
    axons: int
    synapses: int
    data: bytes
    delay_bits: int = 0
    shortest: int = 0
    index_bits: int = 0


@singledispatch
def _synapses(
    connection: FixedConnection, core: Core, shape: Shape, unit: int, bits: int
) -> _Synapses:
    """Return the synapses of a slice.

    Parameters
    ----------
    connection : FixedConnection
    core : Core
        With the slice.
    shape : tuple of int
        Of the source.
    unit, bits : int
        What a code of 1 stands for, and the width of a code.
    """
    raise no_such_kind(connection, "the chip image")


@_synapses.register(FixedDense)
def _(dense: FixedDense, core: Core, shape: Shape, unit: int, bits: int) -> _Synapses:
    low, high = core.ranges[0]
    part = dense.rows(np.array(core.listed) if core.listed else np.arange(low, high))
    codes = part.weight.astype(np.int64).T // unit
    delay = None if part.delay is None else part.delay.T
    late = (0, 0) if delay is None else (DELAY_BITS, dense.shortest_delay)
    if _encoding(core) == "sparse":
        index_bits = max(1, (high - low - 1).bit_length())
        return _Synapses("sparse", *_lists(codes, delay, bits, index_bits), *late, index_bits)
    found = [codes.ravel()] + ([] if delay is None else [delay.ravel()])
    data = pack(found, [bits, DELAY_BITS][: len(found)])
    return _Synapses("dense", codes.shape[0], codes.size, data, *late)


@_synapses.register(FixedConv)
def _(conv: FixedConv, core: Core, shape: Shape, unit: int, bits: int) -> _Synapses:
    """Return the geometry and the kernels of the output channels of a slice."""
    kernels = conv.weight[slice(*core.ranges[0])].astype(np.int64) // unit
    data = pack([kernels.ravel()], [bits])
    head = GEOMETRY.pack(
        *shape, *conv.weight.shape[2:], *conv.stride, *conv.padding, *conv.dilation,
        conv.groups, 0, len(data),
    )  # fmt: skip
    return _Synapses("conv", 0, kernels.size, head + data)


def _encoding(core: Core) -> str:
    """Return how the memory model stores the dense afferents of a slice."""
    return "sparse" if "sparse" in core.usage.encoding else "dense"


def _lists(
    codes: IntArray, delay: IntArray | None, bits: int, index_bits: int
) -> tuple[int, int, bytes]:
    """Return axons, synapses, and the axon table followed by the packed synapses."""
    pre, post = np.nonzero(codes)
    axons, first = np.unique(pre, return_index=True)
    table = np.stack([axons, first], axis=1).astype("<u4").tobytes()
    fields, widths = [codes[pre, post], post], [bits, index_bits]
    if delay is not None:
        fields.append(delay[pre, post])
        widths.append(DELAY_BITS)
    return len(axons), len(pre), table + pack(fields, widths)


def _replace(path: Path, data: bytes, start: bytes) -> None:
    """Write a file, in place of nothing but one that starts in the same way."""
    check_file(path, parents=True)
    if path.exists():
        with path.open("rb") as file:
            ours = file.read(len(start)) == start
        if not ours:
            raise UsageError(
                f"{path}: exists and was not written by osbc-deploy. Choose another name."
            )
    write_whole(path, data)
