"""The integers of one population and what projects to it, up to a common power of two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from osbc_deploy.arrays import FloatArray, IntArray
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.deviations import Deviation
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.coding import SPIKES, InputFormat
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import (
    FixedConnection,
    FixedPopulation,
    FixedProjection,
)
from osbc_deploy.lower.gates import Way, gate
from osbc_deploy.lower.merge import expand, pooling_of, shifted
from osbc_deploy.lower.registers import (
    RealRegisters,
    excess,
    largest_exponent,
    quantized,
    real_registers,
    shares,
)
from osbc_deploy.lower.timing import Timing, relay_name
from osbc_deploy.model.graph import INPUT, Network, Population, Projection
from osbc_deploy.plain_text import many

__all__ = ["LoweredLayer", "Scaling", "gates", "held", "scaling", "wanting"]

_ANY = 64
"""More than any exponent."""

_ALIKE = 2
"""Powers of two by which outputs of a matrix differ, which an exponent below 0 makes up for."""

LoweredLayer: TypeAlias = tuple[tuple[FixedProjection, ...], FixedPopulation]
"""The projections into a population, and the population."""


@dataclass(frozen=True, eq=False)
class _InputProjection:
    """A projection whose exponent is still open: `exponent` is relative to the population's."""

    projection: Projection
    connection: FixedConnection
    stored: int
    exponent: int
    graded: bool

    def higher(self, bits: int) -> _InputProjection:
        """Return the same weights, with larger mantissas and a smaller exponent."""
        if not bits:
            return self
        return replace(
            self, connection=shifted(self.connection, bits), exponent=self.exponent - bits
        )


@dataclass(frozen=True, eq=False)
class Scaling:
    """A population and what projects to it, at an exponent that is still open."""

    population: Population
    afferents: tuple[_InputProjection, ...]
    sources: tuple[str, ...]
    targets: RealRegisters
    formats: NumberFormats
    ceiling: int
    lowest: int = 0
    lacking: int = 0
    """Powers of two by which registers are too narrow for a real-valued input as fine as this."""

    @property
    def floor(self) -> int:
        """The smallest exponent that every projection's own can follow."""
        least = self.formats.weight_exp_min - min(a.exponent for a in self.afferents)
        return min(self.ceiling, max(self.lowest, least))

    def at(self, exponent: int) -> LoweredLayer:
        """Return the integers at an exponent."""
        projections = tuple(
            FixedProjection(
                a.projection.name,
                source,
                a.projection.post,
                a.connection,
                a.stored,
                exponent + a.exponent,
                graded=a.graded,
                pooling=pooling_of(a.projection),
            )
            for a, source in zip(self.afferents, self.sources, strict=True)
        )
        return projections, quantized(self.population, self.targets, exponent, self.formats)


def scaling(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    times: Timing,
    formats: NumberFormats,
    deviations: list[Deviation],
    input: InputFormat = SPIKES,  # noqa: A002 - as a network calls it
    *,
    longer: bool = True,
) -> Scaling:
    """Return the integers of a population and of the projections into it, up to the exponent.

    Parameters
    ----------
    network : Network
        In floating point.
    population : Population
    weights : dict of CompressedProjection
        By projection name.
    times : Timing
    formats : NumberFormats
    deviations : list of Deviation
        Takes notes of what is stored wider than asked.
    input : InputFormat
        What the network is given, of which weights take up the scale.
    longer : bool
        Whether steps of real values may still become longer.

    Raises
    ------
    UnsupportedModelError
        When merged poolings make weights wider than the chip stores.
    """
    afferents = network.afferents(population.name)
    whole = math.lcm(*(1 if p.pool is None else p.pool.divisor for p in afferents))
    # What a spike or a payload of 1 stands for; a power of two where these differ.
    units = [input.scale if p.pre == INPUT else 1.0 for p in afferents]
    peaks = [input.peak if p.pre == INPUT else 1 for p in afferents]
    graded = [input.graded and p.pre == INPUT for p in afferents]
    convolves = any(p.connection.convolutional for p in afferents)
    # Longer steps of real values, or an exponent below 0, make up for what most have in common.
    shared = any(graded) and ((input.kind == "values" and longer) or not convolves)
    spared = (0 if convolves else _ALIKE) if shared else None
    weights = _held(afferents, population, weights, min(units) / whole, formats, deviations, spared)
    expanded = [expand(p, weights[p.name].codes, network.shape_of(p.pre)) for p in afferents]
    found, plain = [], []
    for number, (projection, (merged, divisor)) in enumerate(zip(afferents, expanded, strict=True)):
        asked = weights[projection.name].bits
        share = whole // divisor
        power = (share & -share).bit_length() - 1
        connection = _times(merged, share >> power)
        power += _log2(units[number] / min(units))
        stored = formats.stored_bits(_width(projection, connection, asked, formats))
        _note_width(projection, connection, asked, stored, deviations)
        _note_lost(weights[projection.name], deviations)
        shift = formats.weight_shift(stored)
        plain.append((connection, power, peaks[number]))
        late = shifted(connection, shift)
        if projection.name in times.delays:
            late = late.with_delays(times.delays[projection.name])
        found.append(_InputProjection(projection, late, stored, power - shift, graded[number]))
    scale = weights[afferents[0].name].scale / whole * min(units)
    targets = real_registers(afferents, population, scale, formats, deviations)
    highest = min(formats.weight_exp_max - a.exponent for a in found)
    if highest < 0 and not any(graded):
        raise ChipLimitError(
            "network: poolings whose sums the chip's exponents do not reach",
            [
                f"{a.projection.name}: needs a weight exponent of {a.exponent}, the chip has "
                f"{formats.weight_exp_max}"
                for a in found
                if a.exponent > formats.weight_exp_max
            ],
            "Ask for fewer bits, which leave room, or pool fewer places at a time.",
        )
    # Payloads drive sums that a shift to the right brings into the register, where the sum is
    # shifted as a whole; a convolution's exponent is in its weights (see the Lava backend).
    lowest = 0
    if any(graded) and not convolves:
        lowest = formats.weight_exp_min - min(a.exponent for a in found)
    ceiling = largest_exponent(plain, targets, population, formats, highest, lowest)
    lacking = 0
    if any(graded) and ceiling == lowest:
        bound = largest_exponent(plain, targets, population, formats, highest, -_ANY)
        lacking = max(0, lowest - bound)
    if ceiling == highest and (population.neuron.spiking or targets.bias.any()):
        # Codes that leave upper bits of their width free take them, for finer registers.
        room = [a.exponent - formats.weight_exp_min for a in found]
        spare = max(0, min([*room, *(_spare(a, formats) for a in found)]))
        wider = largest_exponent(plain, targets, population, formats, highest + spare, lowest)
        found = [a.higher(wider - ceiling) for a in found]
        ceiling = wider
    sources = tuple(_source(p, times) for p in afferents)
    return Scaling(population, tuple(found), sources, targets, formats, ceiling, lowest, lacking)


def _held(
    afferents: Sequence[Projection],
    population: Population,
    weights: Mapping[str, CompressedProjection],
    unit: float,
    formats: NumberFormats,
    deviations: list[Deviation],
    spared: int | None,
) -> Mapping[str, CompressedProjection]:
    """Return weights in whose unit, that of a code, the registers hold threshold and bias.

    An output whose weights are tiny beside these, as behind a BatchNorm that nearly silenced a
    channel, needs coarser codes, not another threshold: what is lost of its weights is less than
    the last bit of that. Where anything else makes up for what most outputs exceed their registers
    by, that is left, and `spared` powers of two more.
    """
    given = [weights[p.name] for p in afferents]
    targets = real_registers(afferents, population, given[0].scale * unit, formats, [])
    bits = excess(targets, population, formats)
    if spared is not None:
        bits = (bits - np.sort(bits)[(len(bits) - 1) // 2] - spared).clip(0)
    if not bits.any():
        return weights
    outputs, most = many(int(np.count_nonzero(bits)), "output"), many(int(bits.max()), "bit")
    text = (
        f"weights of {outputs} are tiny beside threshold or bias, and are held up to {most} "
        "coarser, so that registers hold those"
    )
    deviations.append(Deviation("lower", population.name, text))
    return {each.name: held(each, bits) for each in given}


def held(weights: CompressedProjection, bits: IntArray) -> CompressedProjection:
    """Return weights in codes that are coarser by powers of two (n_post or c_out,)."""
    codes = weights.codes / (2.0**bits).reshape(-1, *(1,) * (weights.codes.ndim - 1))
    return replace(weights, codes=np.rint(codes), scale=weights.scale * 2.0**bits)


def wanting(
    network: Network,
    population: Population,
    weights: Mapping[str, CompressedProjection],
    formats: NumberFormats,
    input: InputFormat,  # noqa: A002 - as a network calls it
) -> FloatArray:
    """Return how much of its fullest register each output (n_post or c_out,) of a layer takes.

    That is with sums of whole codes and payloads, which no exponent shifts.
    """
    afferents = network.afferents(population.name)
    whole = math.lcm(*(1 if p.pool is None else p.pool.divisor for p in afferents))
    scale = weights[afferents[0].name].scale * (input.scale / whole)
    targets = real_registers(afferents, population, scale, formats, [])
    return shares(targets, population, formats)


def gates(
    network: Network, population: Population, times: Timing, formats: NumberFormats
) -> LoweredLayer:
    """Return the integers of gates and of what projects to them.

    Raises
    ------
    UnsupportedModelError
        Where the registers do not make exact gates of them.
    """
    ways = []
    for p in network.afferents(population.name):
        weight = p.connection.weight.astype(np.int64)
        connection, _ = expand(p, weight, network.shape_of(p.pre))
        if p.name in times.delays:
            connection = connection.with_delays(times.delays[p.name])
        ways.append(Way(p.name, _source(p, times), connection))
    threshold = population.neuron.parameters["v_threshold"]
    return gate(population.name, population.shape, threshold, ways, formats)


def _source(projection: Projection, times: Timing) -> str:
    """Return where a projection comes from: its source, or a relay of it."""
    count = times.relays.get(projection.name)
    return relay_name(projection.pre, count) if count else projection.pre


def _log2(power: float) -> int:
    """Return the exponent of a power of two.

    Raises
    ------
    ValueError
        When it is none.
    """
    mantissa, exponent = math.frexp(power)
    if mantissa != 0.5:
        raise ValueError(f"{power} is not a power of two")
    return exponent - 1


def _spare(afferent: _InputProjection, formats: NumberFormats) -> int:
    """Return how far mantissas could be shifted before they leave their width."""
    weight = afferent.connection.weight
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    top = 1 << formats.weight_mantissa_bits
    bits = 0
    while (low or high) and -top <= low << bits + 1 and high << bits + 1 < top:
        bits += 1
    return bits


def _times(connection: FixedConnection, factor: int) -> FixedConnection:
    if factor == 1:
        return connection
    return replace(connection, weight=connection.weight.astype(np.int64) * factor)


def _width(
    projection: Projection, connection: FixedConnection, asked: int, formats: NumberFormats
) -> int:
    """Return the bits that hold all codes, at least those asked for."""
    low, high = int(connection.weight.min(initial=0)), int(connection.weight.max(initial=0))
    # One bit is a sign, which is stored in two.
    sign = asked == 1 and max(-low, high) <= 1
    needed = 1 if sign else max(asked, 1 + max(-low - 1, high, 0).bit_length())
    if needed > formats.weight_bits[-1]:
        raise ChipLimitError(
            "network: weights that grow beyond what the chip stores",
            [
                f"{projection.name}: poolings make weights of {asked} bits need {needed}, the chip "
                f"stores {formats.weight_bits[-1]}"
            ],
            "Ask for fewer bits, or use poolings of one size, or of windows that do not overlap.",
        )
    return needed


def _note_lost(weights: CompressedProjection, deviations: list[Deviation]) -> None:
    held = int(np.count_nonzero(weights.codes))
    if 2 * held < weights.kept:
        text = (
            f"weights are coarse: {weights.kept - held:,} of the {weights.kept:,} that pruning "
            f"kept are 0 in {weights.bits} bits"
        )
        deviations.append(Deviation("lower", weights.name, text))


def _note_width(
    projection: Projection,
    connection: FixedConnection,
    asked: int,
    stored: int,
    deviations: list[Deviation],
) -> None:
    notes = []
    if stored != asked:
        notes.append(f"{asked}-bit weights are stored in {stored} bits on this chip")
    if connection.weight.size != projection.connection.weight.size:
        notes.append(
            f"the pooling before it is merged into its weights: "
            f"{projection.connection.weight.size} weights become {connection.weight.size}"
        )
    deviations.extend(Deviation("lower", projection.name, text) for text in notes)
