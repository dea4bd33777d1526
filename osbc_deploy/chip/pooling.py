"""Which poolings take less of a chip when they are kept apart than when they are merged.

Merged, a pooling copies the weights behind it to every place of its windows; kept apart, it takes
gates, their relays and two steps more (:mod:`osbc_deploy.lower.counting`). What either takes is
counted by the target's own memory model, with the largest weights and the bits that are asked for
in the place of those that compression will choose.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from osbc_deploy.chip.alone import map_alone, map_beside
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.layer import nearest, prune_by_magnitude, split
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.problem import stacked_weights
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.fixedpoint.arithmetics import arithmetic_of
from osbc_deploy.lower.counting import countable, kept_apart
from osbc_deploy.lower.merge import inexact, merged_size
from osbc_deploy.lower.timing import timing
from osbc_deploy.model.graph import INPUT, AvgPool, Network, Population

__all__ = ["counted_poolings"]

_LARGEST = 2**27
"""Merged weights that are laid out to be counted; no chip holds more."""

_Cost: TypeAlias = tuple[bool, int, int]
"""Whether something fits no core, cores, and words of synapse memory."""
_TOO_MUCH: _Cost = (True, 2**62, 0)


def counted_poolings(
    network: Network, target: Target, options: CompressionOptions
) -> frozenset[str]:
    """Return the projections whose poolings are better counted by gates than merged.

    Poolings that cannot be merged are not among them: those are counted in any case.

    Parameters
    ----------
    network : Network
    target : Target
    options : CompressionOptions
        What sparsity and bits the weights will have.
    """
    ways: dict[tuple[str, AvgPool | None], set[str]] = {}
    for p in network.projections:
        merges = p.pool is not None and not inexact(p, network.shape_of(p.pre))
        # What comes in from outside may be more than spikes.
        if merges and p.pre != INPUT and countable(network, p):
            # Projections from the same windows share their gates.
            ways.setdefault((p.pre, p.pool), set()).add(p.name)
    if not ways or not arithmetic_of(target.number_formats).lowering.gates:
        return frozenset()
    pooled = frozenset[str]().union(*ways.values())
    concerned = {p.post for p in network.projections if p.name in pooled}
    layers = {
        p.name: _estimated(network, p, target, options)
        for p in network.populations
        if not p.neuron.exact
    }
    chosen: frozenset[str] = frozenset()
    least = _cost(network, target, layers, concerned, chosen)
    for names in ways.values():
        tried = _cost(network, target, layers, concerned, chosen | names)
        if tried < least:
            chosen, least = chosen | names, tried
    return chosen


def _estimated(
    network: Network, population: Population, target: Target, options: CompressionOptions
) -> tuple[CompressedProjection, ...]:
    """Return a population's largest weights, rounded, in the place of compressed ones."""
    afferents = network.afferents(population.name)
    blocks = stacked_weights(afferents)
    keep = max(1, blocks.size - round(options.sparsity * blocks.size))
    pruned = prune_by_magnitude(blocks, keep)
    groups = target.memory.layer_scales if population.neuron.spiking else 1
    return split(afferents, pruned, options.bits, *nearest(pruned, options.bits, groups))


def _cost(
    network: Network,
    target: Target,
    layers: dict[str, tuple[CompressedProjection, ...]],
    concerned: Collection[str],
    chosen: Collection[str],
) -> _Cost:
    """Return what gates, relays and the layers fed by pooled or delayed spikes take."""
    apart = kept_apart(network, chosen)
    merged = [p for p in apart.network.projections if p.pool is not None]
    if any(merged_size(p, apart.network.shape_of(p.pre)) > _LARGEST for p in merged):
        return _TOO_MUCH
    try:
        times = timing(apart.network)
        beside = map_beside(apart.network, target, times)
        late = {p.post for p in apart.network.projections if p.name in times.delays}
        mappings = [
            map_alone(apart, p, layers[p.name], target, times)
            for p in apart.network.populations
            if p.name in layers and p.name in {*concerned, *late}
        ]
    except UnsupportedModelError:
        # It will be refused where it cannot be anything else.
        return _TOO_MUCH
    mappings += [] if beside is None else [beside]
    misfits = any(m.misfits() for m in mappings)
    return misfits, sum(m.cores_used for m in mappings), sum(m.words for m in mappings)
