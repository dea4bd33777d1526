"""When spikes arrive: what delays and relays a projection needs on the chip.

The chip delivers every projection one step later, so each population runs behind the input by the
longest way to it. A projection that skips populations would deliver too early: a dense one gets
synaptic delays, a convolution, which has none, hears its source through relays, populations that
repeat their input a step later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from osbc_deploy.arrays import IntArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.formats import NumberFormats
from osbc_deploy.fixedpoint.network import FixedConv, FixedPopulation, FixedProjection
from osbc_deploy.fixedpoint.ranges import MAX_DELAY
from osbc_deploy.model.delivery import lateness
from osbc_deploy.model.graph import INPUT, Network, Shape

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
    """

    delays: Mapping[str, IntArray] = field(default_factory=dict)
    relays: Mapping[str, int] = field(default_factory=dict)

    def relays_of(self, network: Network) -> dict[str, int]:
        """Return how many relays repeat each population, or the input, for all that hear them."""
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
    delays, relays, offenders = {}, {}, []
    for projection in network.projections:
        wanted = projection.delay is not None and projection.delay.any()
        # Own time of a population starts with its first input; see FixedPointNetwork.latency.
        own = 1 + depth[projection.pre] - depth[projection.post]
        extra = np.atleast_1d(lateness(network, projection)) - own
        if not extra.any():
            continue
        if extra.min() < 0:
            offenders.append(
                f"{projection.name}: arrives {-int(extra.min())} steps before the chip can deliver "
                "it; feedback takes a step for each population on its way"
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
            relays[projection.name] = int(extra[0])
    if offenders:
        raise UnsupportedModelError(
            "network: projections the chip cannot deliver in time", offenders
        )
    return Timing(delays, relays)


def _size(network: Network, name: str) -> int:
    return int(np.prod(network.shape_of(name)))


def relay_name(source: str, number: int) -> str:
    """Return the name of the relay that repeats `source` so many steps later."""
    return f"{source} relay {number}"


def _relay(
    source: str, before: str, number: int, shape: Shape, formats: NumberFormats
) -> tuple[FixedProjection, FixedPopulation]:
    """Return a population (C, H, W) that repeats its input a step later.

    Parameters
    ----------
    source, before : str
        What is repeated, and the population or relay it comes from.
    number : int
    shape : tuple of int
    formats : NumberFormats
    """
    name = relay_name(source, number)
    size = int(np.prod(shape))
    zero = np.zeros(size, np.int64)
    stored = formats.stored_bits(1)
    one = 1 << formats.weight_shift(stored)
    identity = FixedConv(np.full((shape[0], 1, 1, 1), one), (1, 1), (0, 0), (1, 1), shape[0])
    population = FixedPopulation(
        name,
        shape,
        du=zero + formats.decay_unity - formats.decay_u_offset,
        dv=zero,
        # One spike is more than a threshold of 0, and resets what it leaves.
        vth=zero,
        bias_mant=zero,
        bias_exp=zero + formats.bias_exp_min,
        u_init=zero,
        v_init=zero,
        spiking=True,
        v_scale=np.ones(size),
        v_offset=np.zeros(size),
    )
    return FixedProjection(f"to {name}", before, name, identity, stored, 0), population


def relays(
    network: Network, source: str, count: int, formats: NumberFormats
) -> list[tuple[FixedProjection, FixedPopulation]]:
    """Return the chain of relays of a population or of the input, each with what it hears."""
    chain, before = [], source
    for number in range(1, count + 1):
        chain.append(_relay(source, before, number, network.shape_of(source), formats))
        before = chain[-1][1].name
    return chain
