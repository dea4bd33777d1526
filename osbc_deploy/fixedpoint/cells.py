"""Populations as the compiled engine takes them: their sums, their registers, their arithmetic."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osbc_deploy.arrays import IntArray
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import INPUT, FixedPointNetwork, FixedPopulation
from osbc_deploy.fixedpoint.packing import Pass
from osbc_deploy.fixedpoint.passes import margin_of, passes_into
from osbc_deploy.fixedpoint.sites import NO_MARGIN, Site
from osbc_deploy.fixedpoint.stepping import TOGETHER

__all__ = ["Cell", "Total", "sites_of"]


def sites_of(
    network: FixedPointNetwork, given: Collection[str], by_maps: Collection[str]
) -> dict[str, Site]:
    """Return where the neurons of the input and of all populations lie.

    Those that are given lie as they are, those that hear whole maps with their channels first.
    """
    sites = {INPUT: Site(network.input_shape, turned=False)}
    for p in network.populations:
        turned = len(p.shape) == 3 and p.name not in given and p.name not in by_maps
        margin = NO_MARGIN
        if turned:
            for q in network.afferents(p.name):
                margin = margin.or_wider(margin_of(q.connection, network.shape_of(q.pre)))
        sites[p.name] = Site(p.shape, turned, margin)
    return sites


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of what some passes deliver, the type that holds it, and for how many steps."""

    parts: list[Pass]
    dtype: type[np.signedinteger[Any]]
    tail: int

    @property
    def exponent(self) -> int:
        """Places to shift it left, or right where it is negative."""
        return self.parts[0].exponent

    @property
    def wrap(self) -> int:
        """Half the range of a sum that wraps; 0 where it cannot."""
        return self.parts[0].wrap

    @property
    def ready(self) -> bool:
        """Whether a shift to the left is all that it wants."""
        return self.parts[0].shared

    @property
    def largest(self) -> int:
        """Largest magnitude of what it brings, unless it wraps."""
        bound = sum(part.bound for part in self.parts)
        exponent = self.exponent
        return bound << exponent if exponent >= 0 else (bound >> -exponent) + 1


@dataclass(frozen=True, eq=False)
class Cell:
    """A population as the kernels take it.

    Attributes
    ----------
    population : FixedPopulation
    totals : list of Total
    narrow : bool
        Whether 32 bits hold its arithmetic.
    registers, initial, resets
        What :mod:`.stepping` wants, with a value for each neuron.
    """

    population: FixedPopulation
    totals: list[Total]
    narrow: bool
    registers: tuple[NDArray[Any], ...]
    initial: tuple[IntArray, IntArray]
    resets: tuple[bool, int, int]

    @cached_property
    def short(self) -> tuple[NDArray[Any], ...]:
        """The registers as :func:`.stepping.neurons` takes them: what is the same stays short.

        They are read in every step, and long ones not from the nearest cache.
        """
        return tuple(map(_cut, self.registers))

    @classmethod
    def of(
        cls,
        network: FixedPointNetwork,
        p: FixedPopulation,
        sites: dict[str, Site],
        peak: int,
        *,
        strict: bool,
    ) -> Cell:
        """Prepare a population; see :func:`.passes.passes_into`."""
        totals = _totals(passes_into(network, p.name, sites, peak))
        site, formats = sites[p.name], network.formats
        narrow = _fits(p, sum(total.largest for total in totals), formats, strict=strict)
        kept_u, kept_v, *others = p.decoded(formats)
        kept: list[NDArray[Any]] = [kept_u, kept_v]
        if narrow:
            kept = [share / np.float64(formats.decay_unity) for share in kept]
        kind = np.int32 if narrow else np.int64
        return cls(
            p,
            totals,
            narrow,
            tuple(site.here(x) for x in (*kept, *(x.astype(kind) for x in others))),
            (site.here(p.u_init.astype(kind)), site.here(p.v_init.astype(kind))),
            (p.reset == "subtract", p.reset_interval, p.reset_offset),
        )


def _cut(values: NDArray[Any]) -> NDArray[Any]:
    """Cut values that are all the same to as many as are taken at a time."""
    return values[:TOGETHER] if values.size and (values == values[0]).all() else values


def _totals(passes: list[Pass]) -> list[Total]:
    """Put passes together that add to the same sum."""
    groups: dict[object, list[Pass]] = {}
    for number, part in enumerate(passes):
        groups.setdefault(("shared", part.exponent) if part.shared else number, []).append(part)
    totals = []
    for parts in groups.values():
        bound = sum(part.bound for part in parts)
        small = all(part.narrow for part in parts)
        dtype: type[np.signedinteger[Any]] = np.int64
        if bound < 2**31:
            dtype = np.int16 if small and bound < 2**15 else np.int32
        totals.append(Total(parts, dtype, max(part.latest for part in parts)))
    return totals


def _fits(p: FixedPopulation, largest: int, formats: NumberFormats, *, strict: bool) -> bool:
    """Tell whether the arithmetic of :func:`.stepping.neurons` is exact for a population."""
    limit, most = formats.state_limit, 2**31
    kept_u, kept_v, bias, threshold, drop = (
        (int(x.min(initial=0)), int(x.max(initial=0))) for x in p.decoded(formats)
    )
    activation = largest << formats.state_shift
    return (
        # Products of a state and a share are exact in double precision.
        formats.state_bits - 1 + formats.decay_bits <= 53
        and all(low >= 0 and high <= formats.decay_unity for low, high in (kept_u, kept_v))
        and all(np.abs(x.astype(np.int64)).max(initial=0) <= limit for x in (p.u_init, p.v_init))
        # A run that is not strict goes on with currents that one wrap cannot bring back.
        and activation <= (most - limit - 1 if strict else 2 * limit)
        and all(2 * limit + max(-low, high) < most for low, high in (bias, threshold, drop))
    )
