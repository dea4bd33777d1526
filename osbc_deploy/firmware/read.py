"""Read a blob back, and refuse one that is broken or leads astray, as the C runtime does."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ArtefactError
from osbc_deploy.firmware.layout import (
    GEOMETRY,
    HEADER,
    KINDS,
    LAYOUT,
    MAGIC,
    MOST_EXTENT,
    NETWORK,
    POPULATION,
    PROJECTION,
    READOUTS,
    REGISTERS,
    TABLE,
)
from osbc_deploy.limits import Allowance

__all__ = ["Blob", "BlobError", "Part", "read_blob"]

_INT32 = 2**31 - 1
_MOST_WORDS = _INT32 // 4
_KINDS_OF_INPUT = 3
_REMEDY = "Export the network again."


class BlobError(ArtefactError):
    """Bytes that are no blob, or one that the runtime would refuse."""


@dataclass(frozen=True, eq=False)
class Part:
    """A projection or population of a blob.

    Attributes
    ----------
    fields : dict of int
        Its record, but for the tables.
    tables : dict of ndarray of int64
        Written out: a register has a number for each neuron, `start` one more than the source has,
        `target`, `delay` and `codes` one for each synapse; a projection that is not sparse has
        `codes` alone.
    geometry : dict of int
        Of a convolution.
    """

    fields: dict[str, int]
    tables: dict[str, IntArray]
    geometry: dict[str, int]


@dataclass(frozen=True, eq=False)
class Blob:
    """What a blob holds.

    Attributes
    ----------
    identity : bytes
        16 bytes that tell networks apart.
    length, state_bytes : int
        Bytes of the blob, and of the state buffer it needs.
    facts : dict
        Of the record of the network.
    projections, populations : tuple of Part
    """

    identity: bytes
    length: int
    state_bytes: int
    facts: dict[str, Any]
    projections: tuple[Part, ...]
    populations: tuple[Part, ...]

    @property
    def outputs(self) -> int:
        """Neurons of the last population."""
        return self.populations[-1].fields["size"]

    @property
    def classes(self) -> int:
        """Classes that the outputs tell apart."""
        return self.outputs // int(self.facts["votes"])


def read_blob(data: bytes) -> Blob:
    """Read a blob; see docs/blob.md.

    Parameters
    ----------
    data : bytes
        The whole blob and nothing else.

    Raises
    ------
    BlobError
        For a blob that is cut short, changed or continued, of another layout, or whose numbers
        contradict each other.
    """
    header = _header(data)
    facts = NETWORK.unpack(data, HEADER.size)
    reader = _Reader(data, facts)
    reader.check_facts()
    return reader.read(header)


def _refuse(what: str) -> NoReturn:
    raise BlobError(f"blob: {what}. {_REMEDY}")


def _header(data: bytes) -> dict[str, Any]:
    if len(data) < HEADER.size + NETWORK.size or data[: len(MAGIC)] != MAGIC:
        _refuse("is not one, or is cut short")
    header = HEADER.unpack(data)
    if not 1 <= header["layout"] <= LAYOUT:
        raise BlobError(
            f"blob: has layout {header['layout']}, this version reads 1 to {LAYOUT}. Read it with "
            "the version that wrote it."
        )
    if zlib.crc32(data[: HEADER.offset("header_crc")]) != header["header_crc"]:
        _refuse("its header is changed")
    if header["length"] != len(data):
        _refuse(f"has {len(data):,} bytes, its header states {header['length']:,}")
    body = data[HEADER.size :]
    if zlib.crc32(body) != header["body_crc"]:
        _refuse("is changed")
    if hashlib.sha256(body).digest()[: len(header["identity"])] != header["identity"]:
        _refuse("its identity is another's")
    return header


class _Reader:
    """Reads the records of a blob in order, and counts the words of its state."""

    def __init__(self, data: bytes, facts: dict[str, Any]) -> None:
        self.data, self.facts = data, facts
        self.memory = Allowance("blob", error=BlobError, remedy="Export a smaller network")
        self.words = 1
        self.sizes: list[int] = []
        self.states: list[int] = []

    def check_facts(self) -> None:
        f = self.facts
        records = f["projections"] * PROJECTION.size + f["populations"] * POPULATION.size
        good = (
            f["populations"] > 0 and f["projections"] > 0 and 0 < f["inputs"] <= _MOST_WORDS
            and records <= len(self.data) - HEADER.size - NETWORK.size
            and 3 <= f["state_bits"] <= 31 and 1 <= f["decay_bits"] <= 30 and f["state_shift"] <= 29
            and f["readout"] < len(READOUTS) and f["input_kind"] < _KINDS_OF_INPUT
            and f["input_signed"] <= 1 and f["input_signed"] < f["input_bits"] <= 24
            and f["margin_unit"] <= 31 and 0 < f["cycle"] <= _INT32
        )  # fmt: skip
        if not good:
            _refuse("states numbers of the network that are none")

    def read(self, header: dict[str, Any]) -> Blob:
        f = self.facts
        start = HEADER.size + NETWORK.size
        behind = start + f["projections"] * PROJECTION.size
        records = [POPULATION.unpack(self.data, behind + number * POPULATION.size)
                   for number in range(f["populations"])]  # fmt: skip
        self.sizes = [f["inputs"], *(q["size"] for q in records)]
        populations = [self.population(number, q) for number, q in enumerate(records)]
        self.states = [q["state"] for q in records]
        projections: list[Part] = []
        for number, q in enumerate(records):
            if q["first"] != len(projections) or q["count"] == 0:
                _refuse(f"population {number}: its projections are not the next ones")
            for _ in range(q["count"]):
                if len(projections) == f["projections"]:
                    _refuse("has fewer projections than its populations state")
                at = start + len(projections) * PROJECTION.size
                projections.append(self.projection(len(projections), at, number, q["count"]))
        votes, readout = f["votes"], READOUTS[f["readout"]]
        if len(projections) != f["projections"]:
            _refuse("has projections that lead nowhere")
        if not votes or self.sizes[-1] % votes or (votes > 1 and readout != "sum"):
            _refuse(f"{votes} votes do not divide {self.sizes[-1]} outputs")
        if 4 * self.words != header["state_bytes"]:
            _refuse(f"states {header['state_bytes']} bytes of state, its parts {4 * self.words}")
        return Blob(
            header["identity"], header["length"], header["state_bytes"], self.facts,
            tuple(projections), tuple(populations),
        )  # fmt: skip

    def population(self, number: int, q: dict[str, Any]) -> Part:
        what, size, interval = f"population {number}", q["size"], q["reset_interval"]
        after = self.words + size * (2 if q["keeps_u"] else 1) + -(-size // 4)
        self.check(what, size > 0 and q["state"] == self.words and q["count_unit"] <= 31)
        self.check(what, after <= _MOST_WORDS)
        if interval:
            self.check(what, self.facts["cycle"] % interval == 0 and q["reset_offset"] < interval)
        self.words = after
        most = 2 ** (self.facts["state_bits"] - 1) - 1
        unity = 1 << self.facts["decay_bits"]
        limits = {
            "kept_u": (0, unity), "kept_v": (0, unity), "bias": (-_INT32 - 1, _INT32),
            "threshold": (0, most), "drop": (-most, most), "u_init": (-most, most),
            "v_init": (-most, most),
        }  # fmt: skip
        tables = {
            name: self.table(f"{what}, {name}", q.pop(name), size, *limits[name])
            for name in REGISTERS
        }
        self.memory.take(0, 10 * size)
        taken = tables["threshold"] + tables["drop"]
        self.check(f"{what}, drop", bool((taken >= 0).all() and (taken <= most).all()))
        return Part(q, tables, {})

    def projection(self, number: int, at: int, post: int, count: int) -> Part:
        p, what = PROJECTION.unpack(self.data, at), f"projection {number}"
        start, target, delay = (p.pop(name) for name in ("start", "target", "delay"))
        self.check(what, p["post"] == post and p["pre"] < len(self.sizes))
        self.check(what, p["kind"] < len(KINDS) and p["code_bits"] in (2, 4, 8, 16))
        self.check(
            what, not (p["graded"] and p["pre"]) and not (p["pre"] > post and not p["latency"])
        )
        self.check(what, p["shift"] <= 31 and p["right"] <= 31)
        ring, latency, synapses = p["ring"], p["latency"], p["synapses"]
        self.check(what, latency < ring and self.facts["cycle"] % max(ring, 1) == 0)
        before, after = self.sizes[p["pre"]], self.sizes[post + 1]
        if p["direct"]:
            shift = p["shift"] + self.facts["state_shift"]
            plain = not (p["right"] or p["wraps"] or p["graded"]) and shift <= 31
            self.check(what, plain and p["direct"] == 1 and ring == 1 and count == 1)
            self.check(what, p["sums"] == self.states[post])
        else:
            self.check(what, p["sums"] == self.words and self.words + ring * after <= _MOST_WORDS)
            self.words += ring * after
        tables = {"codes": self.codes(what, p["codes"], synapses, p["code_bits"])}
        geometry: dict[str, int] = {}
        kind = KINDS[p["kind"]]
        if kind == "sparse":
            tables |= self.lists(what, (start, target, delay), before, after, p)
        elif kind == "dense":
            self.check(what, before * after == synapses)
        else:
            geometry = self.geometry(what, p["geometry"], before, after, synapses)
        return Part(p, tables, geometry)

    def lists(
        self, what: str, tables: tuple[bytes, bytes, bytes], before: int, after: int,
        p: dict[str, Any],
    ) -> dict[str, IntArray]:  # fmt: skip
        n = p["synapses"]
        if TABLE.unpack(tables[0])["width"] == 0:
            _refuse(f"{what}: does not say where its synapses start")
        start = self.table(f"{what}, start", tables[0], before + 1, 0, n, signed=False)
        rising = bool((start[1:] >= start[:-1]).all())
        self.check(f"{what}, start", rising and start[0] == 0 and start[-1] == n)
        longest = p["ring"] - 1 - p["latency"]
        return {
            "start": start,
            "target": self.table(f"{what}, target", tables[1], n, 0, after - 1, signed=False),
            "delay": self.table(f"{what}, delay", tables[2], n, 0, longest, signed=False),
        }

    def geometry(
        self, what: str, at: int, before: int, after: int, synapses: int
    ) -> dict[str, int]:
        self.inside(what, at, GEOMETRY.size)
        g = GEOMETRY.unpack(self.data, at)
        may_be_0 = ("padding_y", "padding_x")
        self.check(what, all((v or k in may_be_0) and v <= MOST_EXTENT for k, v in g.items()))
        self.check(what, g["c_in"] * g["height"] * g["width"] == before)
        self.check(what, g["c_out"] * g["rows"] * g["columns"] == after)
        self.check(what, not g["c_in"] % g["groups"] and not g["c_out"] % g["groups"])
        codes = g["c_in"] * g["kh"] * g["kw"] * (g["c_out"] // g["groups"])
        self.check(what, codes == synapses)
        return g

    def codes(self, what: str, at: int, count: int, bits: int) -> IntArray:
        self.memory.take(8 * count, 24 * count)
        data = self.inside(what, at, (count * bits + 7) // 8)
        if bits == 16:
            return np.frombuffer(data, "<i2").astype(np.int64)
        packed = np.frombuffer(data, np.uint8).astype(np.int64)
        shifts = bits * np.arange(8 // bits)
        found = (packed[:, None] >> shifts & ((1 << bits) - 1)).ravel()[:count]
        return np.asarray((found ^ (1 << (bits - 1))) - (1 << (bits - 1)))

    def table(
        self, what: str, record: bytes, count: int, low: int, high: int, *, signed: bool = True
    ) -> IntArray:
        """Return the numbers of a table, written out; each must lie between two others."""
        # The numbers, and two answers of a comparison.
        self.memory.take(8 * count, 4 * count)
        t = TABLE.unpack(record)
        at, width, repeat = t["at"], t["width"], t["repeat"]
        if width == 0:
            one = at - (1 << 32 if signed and at > _INT32 else 0)
            found: IntArray = np.full(count, one, np.int64)
            if not count:
                # What nothing follows is still checked, as the runtime does.
                self.check(what, low <= one <= high)
        else:
            self.check(what, width in (1, 2, 4) and repeat > 0 and count % max(repeat, 1) == 0)
            self.check(what, signed or repeat == 1)
            data = self.inside(what, at, count // repeat * width)
            kind = np.dtype(f"<{'i' if signed else 'u'}{width}")
            found = np.repeat(np.frombuffer(data, kind).astype(np.int64), repeat)
        self.check(what, bool((found >= low).all() and (found <= high).all()))
        return found

    def inside(self, what: str, at: int, size: int) -> bytes:
        self.check(what, HEADER.size <= at and at + size <= len(self.data))
        return self.data[at : at + size]

    def check(self, what: str, good: bool) -> None:
        if not good:
            _refuse(f"{what}: contradicts the rest, or leads out of the blob")
