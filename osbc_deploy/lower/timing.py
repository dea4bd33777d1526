"""When spikes arrive: what delays and relays a projection needs on the chip.

The chip delivers every projection one step later, so each population runs behind the input by the
longest way to it. A projection that skips populations would deliver too early: a dense one gets
synaptic delays, a convolution, which has none, hears its source through relays, populations that
repeat their input a step later. The input itself needs none: the host shows it to a convolution
later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import ChipLimitError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedConv, FixedPopulation, FixedProjection
from osbc_deploy.fixedpoint.ranges import MAX_DELAY
from osbc_deploy.lower.gates import Way, gate
from osbc_deploy.model.delivery import lateness
from osbc_deploy.model.graph import INPUT, Network
from osbc_deploy.plain_text import many

__all__ = ["Timing", "relay_name", "relays", "timing"]


@dataclass(frozen=True)
class Timing:
    """How the projections of a network keep their time on the chip.

    Attributes
    ----------
    delays : dict of ndarray of int (n_pre,)
        Synaptic delays by projection; those that need none are left out.
    relays : dict of int
        Relays between a convolution and its source, by projection.
    shown : dict of int
        How many steps later the host shows the input to a convolution, by projection.
    latencies : dict of int
        Of all projections, as :meth:`osbc_deploy.fixedpoint.network.FixedPointNetwork.latency`
        counts them.
    """

    delays: Mapping[str, IntArray] = field(default_factory=dict)
    relays: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, int] = field(default_factory=dict)
    latencies: Mapping[str, int] = field(default_factory=dict)

    def relays_of(self, network: Network) -> dict[str, int]:
        """Return how many relays repeat each population for all that they feed."""
        longest: dict[str, int] = {}
        for projection in network.projections:
            count = self.relays.get(projection.name, 0)
            if count > longest.get(projection.pre, 0):
                longest[projection.pre] = count
        return longest


def timing(network: Network) -> Timing:
    """Return what every projection needs.

    Raises
    ------
    UnsupportedModelError
        With every projection that cannot deliver when it should.
    """
    depth = {INPUT: 0}
    for population in network.populations:
        before = [p.pre for p in network.afferents(population.name) if not network.is_feedback(p)]
        depth[population.name] = 1 + max(depth[pre] for pre in before)
    delays: dict[str, IntArray] = {}
    relays: dict[str, int] = {}
    shown: dict[str, int] = {}
    latencies: dict[str, int] = {}
    offenders = []
    for projection in network.projections:
        wanted = projection.delay is not None and projection.delay.any()
        # Own time of a population starts with its first input; see FixedPointNetwork.latency.
        own = 1 + depth[projection.pre] - depth[projection.post]
        latencies[projection.name] = own
        extra = np.atleast_1d(lateness(network, projection)) - own
        if not extra.any():
            continue
        if extra.min() < 0:
            offenders.append(
                f"{projection.name}: arrives {many(-int(extra.min()), 'step')} before the chip can "
                "deliver it; feedback takes a step for each population on its way"
            )
        elif projection.connection.delayed:
            if extra.max() > MAX_DELAY:
                offenders.append(
                    f"{projection.name}: needs delays to {extra.max()}, the chip has {MAX_DELAY}"
                )
            delays[projection.name] = np.broadcast_to(extra, _size(network, projection.pre))
        elif wanted and not network.is_feedback(projection):
            offenders.append(f"{projection.name}: a convolution has no delays on the chip")
        elif (extra != extra[0]).any():
            offenders.append(f"{projection.name}: a convolution hears all neurons at one time")
        else:
            late = shown if projection.pre == INPUT else relays
            late[projection.name] = int(extra[0])
            latencies[projection.name] += int(extra[0])
    if offenders:
        raise ChipLimitError("network: projections the chip cannot deliver in time", offenders)
    return Timing(delays, relays, shown, latencies)


def _size(network: Network, name: str) -> int:
    return int(np.prod(network.shape_of(name)))


def relay_name(source: str, number: int) -> str:
    """Return the name of the relay that repeats `source` this many steps later."""
    return f"{source} relay {number}"


def relays(
    network: Network, source: str, count: int, formats: NumberFormats
) -> list[tuple[FixedProjection, FixedPopulation]]:
    """Return the chain of relays of a population, each with its source."""
    shape = network.shape_of(source)
    identity = FixedConv(np.ones((shape[0], 1, 1, 1), np.int64), (1, 1), (0, 0), (1, 1), shape[0])
    chain, before = [], source
    for number in range(1, count + 1):
        name = relay_name(source, number)
        (projection,), population = gate(
            name, shape, 1, [Way(f"to {name}", before, identity)], formats
        )
        chain.append((projection, population))
        before = name
    return chain
