"""The tables of the C library: what a network needs in flash, in the smallest types."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.firmware.packing import Table, packed, table_of
from osbc_deploy.fixedpoint.connections import FixedConnection, FixedConv, FixedDense
from osbc_deploy.fixedpoint.connections.base import widest_sum
from osbc_deploy.fixedpoint.formats import LOIHI, NumberFormats
from osbc_deploy.fixedpoint.network import (
    INPUT,
    FixedPointNetwork,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.fixedpoint.ranges import faults
from osbc_deploy.model.connections.base import no_such_kind
from osbc_deploy.model.windows import Shape

__all__ = [
    "FirmwareTables",
    "PopulationTables",
    "ProjectionTables",
    "lay_out",
    "population_tables",
    "projection_tables",
    "state_words",
    "together",
]

_SUM_LIMIT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ProjectionTables:
    """A projection, or the synapses of one that share a delay; fields are those of the blob.

    One that is `direct` adds to the state itself, to u where that is kept and else to v, and needs
    no place for sums.
    """

    name: str
    kind: str
    pre: int
    post: int
    synapses: int
    code_bits: int
    shift: int
    right: int
    wraps: bool
    graded: bool
    direct: bool
    latency: int
    ring: int
    start: Table
    target: Table
    delay: Table
    code: Table
    geometry: dict[str, Any]

    @property
    def tables(self) -> dict[str, Table]:
        """All tables."""
        return {
            "start": self.start, "target": self.target, "delay": self.delay, "code": self.code
        }  # fmt: skip

    @property
    def sums(self) -> int:
        """Sums that are kept for each neuron behind."""
        return 0 if self.direct else self.ring


@dataclass(frozen=True, eq=False)
class PopulationTables:
    """The registers of a population, by their names in the blob."""

    population: FixedPopulation
    tables: dict[str, Table]

    @property
    def keeps_u(self) -> bool:
        """Whether any current outlives its step."""
        kept = self.tables["kept_u"]
        return kept.data is not None or kept.value != 0

    @property
    def state_words(self) -> int:
        """32-bit words of state."""
        return state_words(self.population.size, self.keeps_u)


def state_words(size: int, keeps_u: bool) -> int:
    """Return the 32-bit words of this many neurons: u if kept, v, and a byte for each spike."""
    return (1 + keeps_u) * size + -(-size // 4)


@dataclass(frozen=True, eq=False)
class FirmwareTables:
    """All tables of a network, and where its state lies.

    Attributes
    ----------
    projections, populations : tuple
    state_offsets : list of int
        Where u, v and spikes of each population start, in 32-bit words.
    sum_offsets : list of int
        Where the sums of each projection start; of a direct one, the state it adds to.
    state_words : int
    cycle : int
        Steps after which all rings and timed resets repeat.
    """

    projections: tuple[ProjectionTables, ...]
    populations: tuple[PopulationTables, ...]
    state_offsets: list[int]
    sum_offsets: list[int]
    state_words: int
    cycle: int

    @property
    def size(self) -> int:
        """Bytes of flash for all tables."""
        parts: list[ProjectionTables | PopulationTables] = [*self.projections, *self.populations]
        return sum(table.size for part in parts for table in part.tables.values())


def lay_out(network: FixedPointNetwork) -> FirmwareTables:
    """Return the tables of a network.

    Raises
    ------
    UnsupportedModelError
        When numbers are out of range, a sum may not fit 32 bits, or the arithmetic is another.
    """
    if (asked := network.formats.arithmetic) != LOIHI:
        raise UnsupportedModelError(
            f"network: the C runtime computes the integers of {LOIHI!r}, not those of {asked!r}",
            remedy="Deploy the model for a target such as cortex-m4.",
        )
    if wrong := faults(network):
        raise UnsupportedModelError(
            "network: numbers out of the format's range", wrong, "Deploy the model again."
        )
    projections: list[ProjectionTables] = []
    offenders: list[str] = []
    names = [INPUT, *(p.name for p in network.populations)]
    for projection in network.projections:
        projections += projection_tables(
            projection,
            network.shape_of(projection.pre),
            network.latency(projection),
            network.formats,
            ends=(names.index(projection.pre), names.index(projection.post) - 1),
            peak=network.input.peak,
            offenders=offenders,
        )
    if offenders:
        raise UnsupportedModelError(
            "network: sums that 32 bits may not hold", offenders, "Use fewer bits or inputs."
        )
    # Those into a population follow each other.
    projections = [
        part
        for number in range(len(network.populations))
        for part in together([part for part in projections if part.post == number])
    ]
    populations = tuple(population_tables(p, network.formats) for p in network.populations)
    word = 1
    states, sums = [], []
    for q in populations:
        states.append(word)
        word += q.state_words
    for part in projections:
        sums.append(states[part.post] if part.direct else word)
        word += part.sums * network.populations[part.post].size
    cycle = math.lcm(*(p.ring for p in projections), *(p.reset_interval or 1
                     for p in network.populations))  # fmt: skip
    if cycle * 4 > _SUM_LIMIT or word * 4 > _SUM_LIMIT:
        raise UnsupportedModelError(
            "network: too large for a 32-bit machine",
            [f"{word * 4:,} bytes of state, timed resets that repeat after {cycle:,} steps"],
            "Use smaller layers, or reset intervals that divide each other.",
        )
    # A count that starts again at every second step would do; long cycles divide less often.
    return FirmwareTables(
        tuple(projections), populations, states, sums, word, cycle * (2**29 // cycle or 1)
    )


def together(parts: list[ProjectionTables]) -> list[ProjectionTables]:
    """Return the tables of all projections into a population: only one alone is direct."""
    return parts if len(parts) == 1 else [replace(part, direct=False) for part in parts]


def projection_tables(
    projection: FixedProjection,
    shape: Shape,
    latency: int,
    formats: NumberFormats,
    *,
    ends: tuple[int, int] = (0, 0),
    peak: int = 1,
    offenders: list[str] | None = None,
) -> list[ProjectionTables]:
    """Return the tables of a projection, one part for each delay where its sums need that.

    Parameters
    ----------
    projection : FixedProjection
    shape : tuple of int
        Of its source.
    latency : int
    formats : NumberFormats
    ends : tuple of int
        Numbers of its source, 0 for the input, and of its population.
    peak : int
        The largest payload of the input.
    offenders : list of str, optional
        Gets a line where a sum may not fit 32 bits.
    """
    connection = projection.connection
    weight = connection.weight.astype(np.int64)
    # What all weights have in common goes into the shift of their sum.
    common = _trailing_zeros(weight)
    codes, exponent = weight >> common, projection.weight_exp + common
    shift, right = max(exponent, 0), max(-exponent, 0)
    widest = widest_sum(codes) * (peak if projection.graded else 1)
    if offenders is not None and widest << shift > _SUM_LIMIT:
        offenders.append(f"{projection.name}: sums up to {widest << shift:,}")
        return []
    fixed: dict[str, Any] = {
        "name": projection.name,
        "pre": ends[0],
        "post": ends[1],
        "shift": shift,
        "right": right,
        "wraps": connection.wraps and widest << shift >= formats.state_limit,
        "graded": projection.graded,
        "direct": False,
    }
    parts = _laid_out(connection, fixed, codes, shape, latency)
    # What the register of u would wrap cannot be told from a sum that v is in. Where all weights
    # are 0, the shift alone stays within 32 bits.
    within = max(widest, 1) << (shift + formats.state_shift) < formats.state_limit
    plain = within and not right and not projection.graded
    return [replace(part, direct=plain and part.ring == 1) for part in parts]


@singledispatch
def _laid_out(
    connection: FixedConnection, fixed: dict[str, Any], codes: IntArray, shape: Shape, latency: int
) -> list[ProjectionTables]:
    """Return the tables of a connection.

    Parameters
    ----------
    connection : FixedConnection
    fixed : dict
        Fields that do not depend on its kind.
    codes : ndarray of int64
        Its weights, shifted right by what they have in common.
    shape : tuple of int
        Of the source.
    latency : int
    """
    raise no_such_kind(connection, "the C library")


@_laid_out.register(FixedConv)
def _(
    conv: FixedConv, fixed: dict[str, Any], codes: IntArray, shape: Shape, latency: int
) -> list[ProjectionTables]:
    code, bits = packed(conv.by_input(codes).ravel())
    none = Table(None)
    return [
        ProjectionTables(
            **fixed, kind="conv", synapses=codes.size, code_bits=bits, latency=latency,
            ring=_power(latency + 1), start=none, target=none, delay=none, code=code,
            geometry=_geometry(conv, shape),
        )
    ]  # fmt: skip


@_laid_out.register(FixedDense)
def _(
    dense: FixedDense, fixed: dict[str, Any], codes: IntArray, shape: Shape, latency: int
) -> list[ProjectionTables]:
    delay = dense.delay
    if delay is not None and fixed["right"]:
        # Sums are shifted for each delay on its own.
        return [
            _dense(fixed, np.where(delay == d, codes, 0), None, latency + int(d))
            for d in np.unique(delay)
        ]
    # A projection that skips populations delivers early, and its delays make up for that.
    soonest = dense.shortest_delay
    late = None if delay is None else delay - soonest
    return [_dense(fixed, codes, late, latency + soonest)]


def _dense(
    fixed: dict[str, Any], codes: IntArray, delay: IntArray | None, latency: int
) -> ProjectionTables:
    """Choose lists or rows, whichever takes less."""
    none = Table(None)
    pre, post = np.nonzero(codes.T)
    start = np.concatenate([[0], np.cumsum(np.bincount(pre, minlength=codes.shape[1]))])
    late = none if delay is None else table_of(delay[post, pre], signed=False)
    code, bits = packed(codes[post, pre])
    lists: dict[str, Any] = {
        "start": table_of(start, signed=False, always=True),
        "target": table_of(post, signed=False, always=True),
        "delay": late,
        "code": code,
    }
    rows, row_bits = packed(codes.T.ravel())
    longest = 0 if delay is None else int(delay.max(initial=0))
    shared: dict[str, Any] = fixed | {
        "latency": latency,
        "ring": _power(latency + longest + 1),
        "geometry": {},
    }
    if delay is None and rows.size <= sum(table.size for table in lists.values()):
        return ProjectionTables(
            **shared, kind="dense", synapses=codes.size, code_bits=row_bits, start=none,
            target=none, delay=none, code=rows,
        )  # fmt: skip
    return ProjectionTables(**shared, **lists, kind="sparse", synapses=len(post), code_bits=bits)


def population_tables(p: FixedPopulation, formats: NumberFormats) -> PopulationTables:
    """Return the registers of a population."""
    decoded = p.decoded(formats)
    registers = decoded._asdict() | {
        # Beyond the threshold: mostly 0, and then no table.
        "drop": (decoded.drop - decoded.threshold) * (p.reset == "subtract"),
        "u_init": p.u_init,
        "v_init": p.v_init,
    }
    return PopulationTables(p, {name: _per_channel(v, p.shape) for name, v in registers.items()})


def _per_channel(values: IntArray, shape: Shape) -> Table:
    """Return a register once for each channel where a channel's neurons share it."""
    by_channel = values.reshape(shape[0], -1)
    if by_channel.shape[1] > 1 and (by_channel == by_channel[:, :1]).all():
        return replace(table_of(by_channel[:, 0]), repeat=by_channel.shape[1])
    return table_of(values)


def _geometry(conv: FixedConv, shape: tuple[int, ...]) -> dict[str, Any]:
    out, _, kh, kw = conv.weight.shape
    channels, height, width = shape
    _, rows, columns = conv.output_shape(shape)
    return {
        "height": height, "width": width, "rows": rows, "columns": columns, "c_in": channels,
        "c_out": out, "kh": kh, "kw": kw, "groups": conv.groups, "stride": conv.stride,
        "padding": conv.padding, "dilation": conv.dilation,
    }  # fmt: skip


def _trailing_zeros(weight: IntArray) -> int:
    """Return how many low bits are 0 in all weights."""
    used = int(np.bitwise_or.reduce(np.abs(weight).ravel(), initial=0))
    return (used & -used).bit_length() - 1 if used else 0


def _power(size: int) -> int:
    """Return the power of two that is not less: rings of such sizes repeat together."""
    return 1 << (size - 1).bit_length()
