"""Write a network as a blob: the bytes that the C runtime loads and computes from in place."""

from __future__ import annotations

import hashlib
import math
import zlib
from typing import Any

import numpy as np

from osbc_deploy.errors import UnsupportedModelError
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
    TABLE,
)
from osbc_deploy.firmware.packing import Table
from osbc_deploy.firmware.tables import (
    FirmwareTables,
    PopulationTables,
    ProjectionTables,
)
from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation
from osbc_deploy.options.notation import outputs_per_class

__all__ = ["INPUT_KINDS", "write_blob"]

INPUT_KINDS = ("spikes", "integers", "values")
_MOST_BYTES = 2**31 - 1
_MOST_PARTS = 2**16 - 1
_MOST_SYNAPSES = 2**32 - 1
_BUCKETS_BELOW = 4
"""Powers of two below a spike for each neuron that a histogram of counts starts at."""
_MARGINS_BELOW = 3
"""The same below a margin of 1 in units of the float network."""


def write_blob(network: FixedPointNetwork, tables: FirmwareTables) -> bytes:
    """Return the blob of a network; docs/blob.md describes it.

    Parameters
    ----------
    network : FixedPointNetwork
    tables : FirmwareTables
        What :func:`osbc_deploy.firmware.tables.lay_out` returns for it.

    Raises
    ------
    UnsupportedModelError
        For more parts or bytes than the layout can count.
    """
    start = HEADER.size + NETWORK.size
    start += len(tables.projections) * PROJECTION.size + len(tables.populations) * POPULATION.size
    if offenders := _beyond(tables, start + tables.size):
        raise UnsupportedModelError(
            "network: more than a blob can count", offenders, "Use smaller layers."
        )
    bulk = _Bulk(start)
    records = [_projection(p, at, bulk) for p, at in
               zip(tables.projections, tables.sum_offsets, strict=True)]  # fmt: skip
    records += [_population(q, at, tables, number, bulk) for number, (q, at) in
                enumerate(zip(tables.populations, tables.state_offsets, strict=True))]  # fmt: skip
    body = _network(network, tables) + b"".join(records) + bytes(bulk.data)
    fields: dict[str, Any] = {
        "magic": MAGIC, "layout": LAYOUT, "zero": 0, "length": HEADER.size + len(body),
        "identity": hashlib.sha256(body).digest()[:16], "state_bytes": 4 * tables.state_words,
        "body_crc": zlib.crc32(body), "header_crc": 0,
    }  # fmt: skip
    fields["header_crc"] = zlib.crc32(HEADER.pack(fields)[: HEADER.offset("header_crc")])
    return HEADER.pack(fields) + body


def _beyond(tables: FirmwareTables, size: int) -> list[str]:
    """Return a line for everything that the fields of a blob do not hold."""
    lines = []
    if len(tables.projections) > _MOST_PARTS:
        lines.append(f"{len(tables.projections):,} projections, allowed {_MOST_PARTS:,}")
    if size > _MOST_BYTES:
        lines.append(f"{size:,} bytes, allowed {_MOST_BYTES:,}")
    for p in tables.projections:
        extents = {key: max(np.atleast_1d(value)) for key, value in p.geometry.items()}
        wide = [f"{key} {n:,}" for key, n in extents.items() if n > MOST_EXTENT]
        if wide:
            lines.append(f"{p.name}: {', '.join(wide)}, allowed {MOST_EXTENT:,}")
        if p.synapses > _MOST_SYNAPSES:
            lines.append(f"{p.name}: {p.synapses:,} synapses, allowed {_MOST_SYNAPSES:,}")
    return lines


class _Bulk:
    """What the records point at, each part filled up to four bytes."""

    def __init__(self, start: int) -> None:
        self.start, self.data = start, bytearray()

    def add(self, data: bytes) -> int:
        """Append data and return where it starts in the blob."""
        at = self.start + len(self.data)
        self.data += data + bytes(-len(data) % 4)
        return at


def _network(network: FixedPointNetwork, tables: FirmwareTables) -> bytes:
    formats, given = network.formats, network.input
    votes = outputs_per_class(network.readout)
    return NETWORK.pack(
        {
            "inputs": math.prod(network.input_shape), "cycle": tables.cycle,
            "depth": network.depth[network.output.name], "votes": votes,
            "input_scale": given.scale,
            "populations": len(tables.populations), "projections": len(tables.projections),
            "decay_bits": formats.decay_bits, "state_bits": formats.state_bits,
            "state_shift": formats.state_shift,
            "readout": READOUTS.index("sum" if votes > 1 else network.readout),
            "input_kind": INPUT_KINDS.index(given.kind), "input_bits": given.bits,
            "input_signed": given.signed, "margin_unit": _margin_unit(network.output),
        }
    )  # fmt: skip


def _margin_unit(output: FixedPopulation) -> int:
    """Return the power of two that a margin of the output is counted in."""
    if output.spiking:
        return 0
    scale = float(np.min(np.abs(output.v_scale), initial=np.inf, where=output.v_scale != 0))
    one = 1 / scale if 0 < scale < math.inf else 1.0
    return min(31, max(0, math.frexp(one)[1] - 1 - _MARGINS_BELOW))


def _table(table: Table, bulk: _Bulk) -> bytes:
    one = table.value & 0xFFFFFFFF
    at = one if table.data is None else bulk.add(table.serialized())
    return TABLE.pack({"at": at, "repeat": table.repeat, "width": table.width,
                       "zero0": 0, "zero1": 0, "zero2": 0})  # fmt: skip


def _projection(p: ProjectionTables, sums: int, bulk: _Bulk) -> bytes:
    g = p.geometry
    geometry = 0
    if g:
        pairs = {f"{key}_{axis}": g[key][number] for key in ("stride", "padding", "dilation")
                 for number, axis in enumerate("yx")}  # fmt: skip
        geometry = bulk.add(GEOMETRY.pack(g | pairs))
    return PROJECTION.pack(
        {
            "kind": KINDS.index(p.kind), "code_bits": p.code_bits, "shift": p.shift,
            "right": p.right, "wraps": p.wraps, "graded": p.graded, "direct": p.direct, "zero": 0,
            "pre": p.pre, "post": p.post, "latency": p.latency, "ring": p.ring, "sums": sums,
            "synapses": p.synapses, "geometry": geometry,
            "start": _table(p.start, bulk), "target": _table(p.target, bulk),
            "delay": _table(p.delay, bulk), "codes": bulk.add(p.code.serialized()),
        }
    )  # fmt: skip


def _population(
    q: PopulationTables, state: int, tables: FirmwareTables, number: int, bulk: _Bulk
) -> bytes:
    p = q.population
    into = [n for n, way in enumerate(tables.projections) if way.post == number]
    return POPULATION.pack(
        {
            "size": p.size, "state": state, "reset_interval": p.reset_interval,
            "reset_offset": p.reset_offset % p.reset_interval if p.reset_interval else 0,
            "first": into[0], "count": len(into), "keeps_u": q.keeps_u,
            "subtract": p.reset == "subtract", "spiking": p.spiking,
            "count_unit": max(0, p.size.bit_length() - 1 - _BUCKETS_BELOW),
        }
        | {name: _table(table, bulk) for name, table in q.tables.items()}
    )  # fmt: skip
