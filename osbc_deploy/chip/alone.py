"""What parts of a network take on a chip, before the rest of it is known."""

from __future__ import annotations

from collections.abc import Sequence

from osbc_deploy.chip.layers import layer_of
from osbc_deploy.chip.mapping import Mapping, map_layers
from osbc_deploy.chip.target import Target
from osbc_deploy.compress.result import CompressedProjection
from osbc_deploy.lower.counting import Apart
from osbc_deploy.lower.lowering import unmeasured
from osbc_deploy.lower.scaling import LoweredLayer, gates
from osbc_deploy.lower.timing import Timing, relays
from osbc_deploy.model.graph import INPUT, Network, Population

__all__ = ["map_alone", "map_beside"]


def map_alone(
    apart: Apart,
    population: Population,
    projections: Sequence[CompressedProjection],
    target: Target,
    times: Timing,
) -> Mapping:
    """Return the cores of a population with its compressed afferents.

    Parameters
    ----------
    apart : Apart
        The network, with gates that count spikes where a pooling is not merged.
    population : Population
    projections : sequence of CompressedProjection
        All that end in it.
    target : Target
    times : Timing
        Of the network: delays take memory too.
    """
    network = apart.network
    weights = apart.weights({p.name: p for p in projections})
    lowered, fixed = unmeasured(network, population, weights, times, target.number_formats)
    shapes = [network.shape_of(p.pre) for p in network.afferents(population.name)]
    following = [p for p in network.projections if p.pre == population.name]
    layer = layer_of(
        fixed,
        tuple(zip(lowered, shapes, strict=True)),
        target.number_formats,
        latencies=[times.latencies[p.name] for p in network.afferents(population.name)],
        to_convolution=bool(following) and all(p.connection.convolutional for p in following),
        is_output=population.name == network.output.name,
    )
    return map_layers((layer,), target, whole=False)


def map_beside(network: Network, target: Target, times: Timing) -> Mapping | None:
    """Return the cores of gates, relays among them, whose weights nothing compresses.

    None where there are none.
    """
    formats = target.number_formats
    found: list[LoweredLayer] = [
        ((projection,), population)
        for source, count in times.relays_of(network).items()
        for projection, population in relays(network, source, count, formats)
    ]
    found += [gates(network, p, times, formats) for p in network.populations if p.neuron.exact]
    shapes = {INPUT: network.input_shape} | {p.name: p.shape for _, p in found}
    shapes |= {p.name: p.shape for p in network.populations}
    following = [p for layer, _ in found for p in layer] + list(network.projections)
    layers = [
        layer_of(
            population,
            tuple((p, shapes[p.pre]) for p in projections),
            formats,
            to_convolution=all(
                p.connection.convolutional for p in following if p.pre == population.name
            ),
            is_output=population.name == network.output.name,
        )
        for projections, population in found
    ]
    return map_layers(tuple(layers), target, whole=False) if layers else None
