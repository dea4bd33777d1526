"""What a network would take on a chip if nothing of it had been pruned or left out."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace

import numpy as np

from osbc_deploy.chip.mapping import Mapping, layers_of, map_layers
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.lowering import unmeasured
from osbc_deploy.lower.timing import timing

__all__ = ["Footprint", "footprint", "unpruned"]


@dataclass(frozen=True)
class Footprint:
    """What a network takes on a chip.

    Attributes
    ----------
    bytes, cores, neurons : int
    used : dict of int
        Of each resource, where all layers share a core.
    """

    bytes: int
    cores: int
    neurons: int
    used: MappingOf[str, int] = field(default_factory=dict)


def footprint(mapping: Mapping, target: Target) -> Footprint:
    """Return what a mapped network takes."""
    used = mapping.used if target.memory.arrangement == "together" else {}
    neurons = sum(core.neurons for core in mapping.cores)
    return Footprint(mapping.bytes, mapping.cores_used, neurons, used)


def unpruned(
    compressed: CompressedNetwork, apart: Apart, whole: FixedPointNetwork, target: Target
) -> Footprint:
    """Return what the same network takes with all weights and neurons, in the same bits.

    Parameters
    ----------
    compressed : CompressedNetwork
    apart : Apart
        The network that was lowered, with gates that count spikes where a pooling is not merged.
    whole : FixedPointNetwork
        Lowered, with all neurons in.
    target : Target
    """
    weights = apart.weights({n: _filled(p) for n, p in compressed.projections.items()})
    times = timing(apart.network)
    formats = whole.formats
    filled = {
        p.name: p
        for population in apart.network.trained
        for p in unmeasured(apart.network, population, weights, times, formats)[0]
    }
    dense = replace(
        whole,
        projections=tuple(
            replace(p, connection=filled[p.name].connection) if p.name in filled else p
            for p in whole.projections
        ),
    )
    return footprint(map_layers(layers_of(dense), target), target)


def _filled(done: CompressedProjection) -> CompressedProjection:
    """Return weights of which none is 0, as wide as they are."""
    codes = done.codes
    return replace(done, codes=np.where(codes == 0, 1, codes))
