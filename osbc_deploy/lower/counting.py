r"""Poolings that are kept apart: gates count the spikes of each window, and send the sum in binary.

A pooling is merged into the weights behind it (:mod:`.merge`) where that is exact and takes less
of the chip (:mod:`osbc_deploy.chip.pooling`). Else a window of k spikes is counted by k gates, of
which gate j fires at j spikes and more; a second layer of gates makes of these the binary digits
of the sum,

.. math::

    b_m = \sum_{j \le k} c_{mj} [\text{sum} \ge j]

with :math:`c_{mj} = 1` where j leaves :math:`2^m` when divided by :math:`2^{m+1}`, -1 where it
leaves 0, and 0 elsewhere. The connection behind receives each digit with the weights it has, times
:math:`2^m`, which is an exponent. So they are stored once for each digit, and not once for each
place of a window; and as sums arrive in place of spikes, a convolution may pad with zeros whatever
the windows are. Both layers of gates take the chip a step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.lower.merge import inexact
from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import INPUT, AvgPool, Conv, Network, Population, Projection, Shape

__all__ = ["Apart", "countable", "kept_apart"]

_LARGEST = 1024
"""Places of a window that gates count exactly on any chip (see :mod:`.gates`)."""
_ONE = (1, 1)


@dataclass(frozen=True, eq=False)
class Apart:
    """A network with gates in the place of poolings that are kept apart.

    Attributes
    ----------
    network : Network
    digits : mapping of str to tuple of str
        Projections by what they were: of the lowest binary digit first.
    shifts : mapping of str to int
        Populations whose potentials count in units of this many digits less.
    """

    network: Network
    digits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shifts: Mapping[str, int] = field(default_factory=dict)

    def weights(self, given: Mapping[str, CompressedProjection]) -> dict[str, CompressedProjection]:
        """Return the weights of this network's projections, where those of the other are given."""
        found: dict[str, CompressedProjection] = {}
        ends = {p.name: p.post for p in self.network.projections}
        for name, weights in given.items():
            parts = self.digits.get(name, (name,))
            unit = 2.0 ** self.shifts.get(ends.get(parts[-1], ""), 0)
            for part in parts:
                kept = weights.kept if part == name else 0
                found[part] = replace(
                    weights, name=part, scale=weights.scale * unit, kept=kept, pruned=None
                )
        return found

    def notes(self) -> Iterator[tuple[str, str]]:
        """Say of each projection what was done."""
        sizes = {p.name: p.size for p in self.network.populations}
        pre = {p.name: p.pre for p in self.network.projections}
        for name, parts in self.digits.items():
            told = [pre[part] for part in parts]
            counting = next(p.pre for p in self.network.projections if p.post == told[0])
            yield (
                name,
                f"the pooling before it is kept apart: {sizes[counting]:,} gates count the spikes "
                f"of its windows, {sum(sizes[t] for t in told):,} send them in {len(parts)} binary "
                "digits; two more steps on the chip",
            )


def kept_apart(network: Network, wanted: Collection[str] = ()) -> Apart:
    """Return a network in which poolings that cannot be merged are counted.

    So are those in front of the projections `wanted`.
    """
    chosen = [
        p
        for p in network.projections
        if countable(network, p) and (p.name in wanted or inexact(p, network.shape_of(p.pre)))
    ]
    if not chosen:
        return Apart(network)
    shifts: dict[str, int] = {}
    for p in chosen:
        shifts[p.post] = max(shifts.get(p.post, 0), _digits(p) - 1)
    counters: dict[tuple[str, AvgPool], Sequence[str]] = {}
    behind: dict[str, list[Population]] = {}
    projections: list[Projection] = []
    digits: dict[str, tuple[str, ...]] = {}
    for p in network.projections:
        shift = shifts.get(p.post, 0)
        pool = p.pool
        if p not in chosen or pool is None:
            projections.append(_in_units(p, shift))
            continue
        if (p.pre, pool) not in counters:
            gates, ways = _counter(p.pre, pool, network.shape_of(p.pre), len(counters))
            behind.setdefault(p.pre, []).extend(gates)
            projections += ways
            counters[p.pre, pool] = [gate.name for gate in gates[1:]]
        sources = counters[p.pre, pool]
        parts = tuple(
            replace(
                p,
                name=p.name if place == len(sources) - 1 else f"{p.name} of digit {place}",
                pre=source,
                pool=AvgPool(_ONE, _ONE, divisor=pool.divisor << shift - place),
                connection=p.connection
                if place == len(sources) - 1
                else replace(p.connection, bias=None),
            )
            for place, source in enumerate(sources)
        )
        digits[p.name] = tuple(part.name for part in parts)
        # The first names the layer, and holds its bias.
        projections += reversed(parts)
    populations = _placed(network, behind)
    order = {p.name: number for number, p in enumerate(populations)}
    projections.sort(key=lambda p: order[p.post])
    changed = replace(network, populations=populations, projections=tuple(projections))
    return Apart(changed, digits, shifts)


def countable(network: Network, projection: Projection) -> bool:
    """Tell whether gates can count the windows in front of a projection."""
    pool = projection.pool
    ends = {projection.pre, projection.post}
    if pool is None or pool.kernel == _ONE:
        return False
    if any(ends <= {p.name for p in block} for block in network.blocks()):
        # What leads back would arrive too late behind two more steps.
        return False
    late = projection.delay is not None and projection.delay.any()
    others = [p for p in network.afferents(projection.post) if p is not projection]
    flat = any(len(network.shape_of(p.pre)) != 3 for p in others)
    return not (late or flat or math.prod(pool.kernel) > _LARGEST)


def _digits(projection: Projection) -> int:
    pool = projection.pool
    return 1 if pool is None else math.prod(pool.kernel).bit_length()


def _in_units(projection: Projection, shift: int) -> Projection:
    """Return a projection whose currents count in finer units, as those beside it."""
    if not shift:
        return projection
    pool = projection.pool or AvgPool(_ONE, _ONE)
    return replace(projection, pool=replace(pool, divisor=pool.divisor << shift))


def _counter(
    pre: str, pool: AvgPool, shape: Shape, number: int
) -> tuple[list[Population], list[Projection]]:
    """Return gates that count the spikes of windows: those for each sum, then for each digit."""
    most = math.prod(pool.kernel)
    channels, rows, cols = pool.output_shape(shape)
    name = f"{pre} counted" + (f" {number + 1}" if number else "")
    ones = np.ones((channels * most, 1, *pool.kernel))
    least = np.tile(np.arange(1.0, most + 1), channels).reshape(-1, 1, 1)
    gates = [Population(name, (channels * most, rows, cols), Gate(least))]
    into = Conv(ones, None, pool.stride, pool.padding, groups=channels)
    ways = [Projection(f"to {name}", pre, name, into, compressible=False)]
    sums = np.arange(1, most + 1)
    for digit in range(most.bit_length()):
        rest = sums % (2 << digit)
        signs = np.where(rest == 1 << digit, 1.0, np.where(rest == 0, -1.0, 0.0))
        weight = np.tile(signs.reshape(1, most, 1, 1), (channels, 1, 1, 1))
        own = f"{name}, digit {digit}"
        gates.append(Population(own, (channels, rows, cols), Gate(np.asarray(1.0))))
        told = Conv(weight, groups=channels)
        ways.append(Projection(f"to {own}", name, own, told, compressible=False))
    return gates, ways


def _placed(network: Network, behind: Mapping[str, Sequence[Population]]) -> tuple[Population, ...]:
    """Return the populations with gates behind what they count."""
    found: list[Population] = list(behind.get(INPUT, ()))
    for block in network.blocks():
        found += block
        for population in block:
            found += behind.get(population.name, ())
    return tuple(found)
