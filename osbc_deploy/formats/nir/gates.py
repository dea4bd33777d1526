"""Thresholds of NIR that are logic gates: what counts spikes needs no compression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from osbc_deploy.model.gates import Gate
from osbc_deploy.model.graph import Network, Projection

__all__ = ["with_gates"]


def with_gates(network: Network) -> Network:
    """Return the network with gates where memoryless neurons have weights of 1 and -1 alone.

    A sum of those exceeds a threshold if it reaches the next whole number.
    """
    gates: dict[str, Gate] = {}
    for p in network.populations:
        if p.neuron.memoryless and all(map(_counts, network.afferents(p.name))):
            threshold = p.neuron.parameters["v_threshold"]
            gates[p.name] = Gate(np.floor(threshold) + 1.0)
    if not gates:
        return network
    projections = tuple(
        replace(p, compressible=False) if p.post in gates else p for p in network.projections
    )
    return replace(network.with_neurons(gates), projections=projections)


def _counts(projection: Projection) -> bool:
    weight, bias = projection.connection.weight, projection.connection.bias
    plain = projection.pool is None and (bias is None or not bias.any())
    return bool(plain and np.isin(weight, (-1, 0, 1)).all())
