"""Read an image back, and refuse everything that is not exactly what was written."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ArtefactError, NotFoundError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.fixedpoint.ranges import weight_range
from osbc_deploy.formats.folder import network_of
from osbc_deploy.formats.image import write as layout
from osbc_deploy.formats.image.bits import packed_size, unpack
from osbc_deploy.limits import PARSED, Allowance, array_bytes, is_there, read_bytes
from osbc_deploy.model.graph import Shape
from osbc_deploy.parsing import parse_json

__all__ = ["decode_image", "read_image"]

_DIGEST = hashlib.sha256().digest_size

_NEURON, _SYNAPSE, _PACKED = 160, 20, 150
"""Bytes of a neuron, of a place of a weight matrix, and of what a packed byte becomes for a while:
every bit of it an int64."""


def read_image(path: str | Path) -> FixedPointNetwork:
    """Read an image; see :func:`decode_image`."""
    path = Path(path)
    if not is_there(path):
        raise NotFoundError(f"{path}: no such file. Give an image written with osbc-deploy export.")
    try:
        data = read_bytes(path, each=2)
    except OSError as error:
        raise ArtefactError(
            f"{path}: cannot be read ({error.strerror}). Check the path."
        ) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> FixedPointNetwork:
    """Return the network of an image.

    Raises
    ------
    ArtefactError
        When a single bit differs from what was written, or the content is inconsistent.
    """
    try:
        return _decode(data, Allowance(name, remedy="Give a smaller image"))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError,
            struct.error, RecursionError, ZeroDivisionError) as error:  # fmt: skip
        raise ArtefactError(f"{name}: broken image ({error}). Export the network again.") from error


class _Cursor:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("file is truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def fields(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def array(self, kind: str, count: int) -> IntArray:
        found: IntArray = np.frombuffer(self.take(np.dtype(kind).itemsize * count), kind)
        self.zeros(-self.at % 4)
        return found

    def zeros(self, count: int) -> None:
        if any(self.take(count)):
            raise ValueError("padding is not zero")

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError("trailing bytes after the last section")


def _decode(data: bytes, allowance: Allowance) -> FixedPointNetwork:
    cursor = _Cursor(data)
    magic, version, zero, total, count, cores, table_crc, head_crc = cursor.fields(layout.HEADER)
    if magic != layout.MAGIC:
        raise ValueError("it does not begin as an image does")
    if zlib.crc32(data[: layout.HEADER.size - 4]) != head_crc or zero:
        raise ValueError("checksum of the header")
    if version != layout.VERSION:
        raise ValueError(f"version {version}, this program reads {layout.VERSION}")
    if total != len(data):
        raise ValueError(f"has {len(data)} bytes, its header declares {total}")
    # Before anything in it is believed.
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError("digest of the whole")
    table = cursor.take(layout.ENTRY.size * count)
    if zlib.crc32(table) != table_crc:
        raise ValueError("checksum of the section table")
    sections: list[tuple[int, int, bytes]] = []
    for kind, zero, core, offset, length, crc in layout.ENTRY.iter_unpack(table):
        if offset != cursor.at or zero:
            raise ValueError("sections do not follow each other")
        part = cursor.take(length)
        cursor.zeros(-length % 4)
        if zlib.crc32(part) != crc:
            raise ValueError(f"checksum of the section at {offset}")
        sections.append((kind, core, part))
    cursor.take(_DIGEST)
    cursor.end()
    kinds = [kind for kind, _, _ in sections]
    known = layout.SECTIONS
    if kinds != [known["structure"], known["scales"], *[known["core"]] * cores]:
        raise ValueError(f"sections {kinds}")
    allowance.take(PARSED * len(sections[0][2]))
    manifest = parse_json(sections[0][2])
    arrays = _Arrays(manifest, allowance)
    arrays.scales(sections[1][2])
    for _, _, part in sections[2:]:
        arrays.core(part)
    return network_of(manifest, arrays.finish())


@dataclass(frozen=True, eq=False)
class _Weights:
    """The weights of a projection while they are put together."""

    entry: dict[str, Any]
    weight: IntArray
    delay: IntArray | None
    covered: IntArray


class _Arrays:
    """The arrays of a network, put together slice by slice."""

    def __init__(self, manifest: dict[str, Any], allowance: Allowance) -> None:
        self.manifest, self.allowance = manifest, allowance
        given = dict(manifest["formats"])
        given["weight_bits"] = tuple(given["weight_bits"])
        self.formats = NumberFormats(**given)
        self.shapes: list[Shape] = [tuple(p["shape"]) for p in manifest["populations"]]
        self.names = [p["name"] for p in manifest["populations"]]
        sizes = [array_bytes(shape, 1) for shape in self.shapes]
        allowance.take(sum(sizes) * _NEURON)
        self.registers = [np.zeros((size, len(layout.REGISTERS)), np.int32) for size in sizes]
        self.covered = [np.zeros(size, np.int64) for size in sizes]
        self.arrays: dict[str, Any] = {}
        self.weights: list[_Weights | None] = [None] * len(manifest["projections"])

    def scales(self, data: bytes) -> None:
        cursor = _Cursor(data)
        for name, covered in zip(self.names, self.covered, strict=True):
            for key in ("v_scale", "v_offset"):
                self.arrays[f"population.{name}.{key}"] = np.frombuffer(
                    cursor.take(8 * len(covered)), "<f8"
                )
        cursor.end()

    def core(self, data: bytes) -> None:
        cursor = _Cursor(data)
        (slices,) = cursor.fields(layout.CORE)
        for _ in range(slices):
            self.neurons(cursor)
        cursor.end()

    def neurons(self, cursor: _Cursor) -> None:
        number, flags, count, *rest = cursor.fields(layout.SLICE)
        *flat, interval, offset, sets, afferents = rest
        shape, about = self.shapes[number], self.manifest["populations"][number]
        ranges = [slice(a, b) for a, b in zip(flat[::2], flat[1::2], strict=True)]
        listed = bool(flags & layout.LISTED)
        flags &= ~layout.LISTED
        if flags != int(about["spiking"]) | 2 * int(about["reset"] == "subtract") or (
            (interval, offset) != (about["reset_interval"], about["reset_offset"])
        ):
            raise ValueError("slice contradicts the structure section")
        every = np.arange(len(self.covered[number])).reshape(shape)
        chosen = every[tuple(ranges[: len(shape)])].ravel()
        if len(chosen) != count or any(r != slice(0, 1) for r in ranges[len(shape) :]):
            raise ValueError("ranges of a slice")
        if listed:
            chosen = cursor.array("<u4", count).astype(np.int64)
            if len(shape) != 1 or len(np.unique(chosen)) != count or chosen.max() >= every.size:
                raise ValueError("listed neurons of a slice")
        table = cursor.array("<i4", sets * len(layout.REGISTERS)).reshape(sets, -1)
        width = 1 if sets <= 2**8 else 2 if sets <= 2**16 else 4
        which = cursor.array(f"<u{width}", count)
        self.registers[number][chosen] = table[which]
        self.covered[number][chosen] += 1
        for _ in range(afferents):
            self.afferent(cursor, number, ranges[0], chosen if listed else None)

    def afferent(
        self, cursor: _Cursor, population: int, box: slice, listed: IntArray | None
    ) -> None:
        (number, source, encoding, bits, exponent, sign, delay_bits, shortest, index_bits, graded,
         axons, synapses, length) = cursor.fields(layout.AFFERENT)  # fmt: skip
        entry = self.manifest["projections"][number]
        pre = "input" if source == layout.INPUT_NUMBER else self.names[source]
        said = (entry["pre"], entry["post"], entry["weight_bits"], entry["weight_exp"],
                layout.SIGNS[entry["sign"]], int(entry["graded"]))  # fmt: skip
        if said != (pre, self.names[population], bits, exponent, sign, graded):
            raise ValueError("afferent contradicts the structure section")
        self.allowance.take(0, _PACKED * length)
        part = _Cursor(cursor.take(length))
        _, _, step = weight_range(bits, entry["sign"], self.formats)
        unit = -step if entry["sign"] == "inhibitory" else step
        if encoding == layout.ENCODINGS["conv"]:
            if listed is not None:
                raise ValueError("listed neurons of a convolution")
            self.kernel(part, number, box, bits, unit)
            part.end()
            return
        before = self.manifest["input_shape"] if source == layout.INPUT_NUMBER else (
            self.shapes[source])  # fmt: skip
        size = array_bytes(before, 1), box.stop - box.start
        self.allowance.take(0, array_bytes(size, _SYNAPSE))
        delays = bool(delay_bits)
        late = None
        if encoding == layout.ENCODINGS["sparse"]:
            table = part.array("<u4", 2 * axons).reshape(axons, 2).astype(np.int64)
            widths = [bits, index_bits] + [delay_bits] * delays
            fields = unpack(part.take(packed_size(synapses, widths)), synapses, widths)
            ends = np.append(table[1:, 1], synapses)
            at = np.repeat(table[:, 0], ends - table[:, 1]), fields[1]
            codes = np.zeros(size, np.int64)
            codes[at] = _signed(fields[0], bits, entry["sign"])
            if delays:
                late = np.full(size, shortest)
                late[at] = fields[2]
        elif encoding == layout.ENCODINGS["dense"] and axons == size[0]:
            widths = [bits] + [delay_bits] * delays
            fields = unpack(part.take(packed_size(synapses, widths)), synapses, widths)
            codes = _signed(fields[0], bits, entry["sign"]).reshape(size)
            late = fields[1].reshape(size) if delays else None
        else:
            raise ValueError("encoding of an afferent")
        part.end()
        found = self.of(number, (len(self.covered[population]), size[0]), delays)
        rows = box if listed is None else listed
        found.weight[rows] = codes.T * unit
        if found.delay is not None and late is not None:
            found.delay[rows] = late.T
        found.covered[rows] += 1

    def kernel(self, part: _Cursor, number: int, rows: slice, bits: int, unit: int) -> None:
        *source, kh, kw, sh, sw, ph, pw, dh, dw, groups, zero, length = part.fields(layout.GEOMETRY)
        entry = self.manifest["projections"][number]
        said = (*entry["stride"], *entry["padding"], *entry["dilation"], entry["groups"])
        if said != (sh, sw, ph, pw, dh, dw, groups) or zero or source[0] % groups:
            raise ValueError("geometry of a convolution")
        out = self.shapes[self.names.index(entry["post"])][0]
        shape = (rows.stop - rows.start, source[0] // groups, kh, kw)
        count = int(np.prod(shape))
        (codes,) = unpack(part.take(length), count, [bits])
        found = self.of(number, (out, *shape[1:]), False)
        kernel = (_signed(codes, bits, entry["sign"]) * unit).reshape(shape)
        known = found.covered[rows] > 0
        if (found.weight[rows][known] != kernel[known]).any():
            raise ValueError("cores hold different kernels of one channel")
        found.weight[rows] = kernel
        found.covered[rows] += 1

    def of(self, number: int, shape: tuple[int, ...], delays: bool) -> _Weights:
        """Return the weights of a projection, begun if need be."""
        found = self.weights[number]
        if found is None:
            self.allowance.take(array_bytes(shape, _SYNAPSE))
            found = _Weights(
                self.manifest["projections"][number],
                np.zeros(shape, np.int16),
                np.zeros(shape, np.uint8) if delays else None,
                np.zeros(shape[0], np.int64),
            )
            self.weights[number] = found
        if found.weight.shape != shape or (found.delay is not None) != delays:
            raise ValueError("slices of a projection differ in shape")
        return found

    def finish(self) -> dict[str, Any]:
        """Return all arrays, every neuron and weight of which some core held."""
        for name, registers, covered in zip(self.names, self.registers, self.covered, strict=True):
            if (covered != 1).any():
                raise ValueError("neurons on no core, or on two")
            for column, key in enumerate(layout.REGISTERS):
                self.arrays[f"population.{name}.{key}"] = registers[:, column]
        for found in self.weights:
            if found is None or (found.covered == 0).any():
                raise ValueError("weights on no core")
            name = found.entry["name"]
            self.arrays[f"projection.{name}.weight"] = found.weight
            if found.delay is not None:
                self.arrays[f"projection.{name}.delay"] = found.delay
        return self.arrays


def _signed(codes: IntArray, bits: int, sign: str) -> IntArray:
    """Return codes as numbers; those of mixed signs are two's complement."""
    if sign != "mixed":
        return codes
    top = 1 << (bits - 1)
    return (codes ^ top) - top
