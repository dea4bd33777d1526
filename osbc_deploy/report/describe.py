"""What was understood of a model, as plain data: layers, neurons with their numbers, notes."""

from __future__ import annotations

from typing import Any

import numpy as np

from osbc_deploy.arrays import FloatArray
from osbc_deploy.errors import UnsupportedModelError
from osbc_deploy.lower.features import check_features
from osbc_deploy.model.delivery import lateness
from osbc_deploy.model.graph import Network, Population, Projection

__all__ = ["SCHEMA", "describe"]

SCHEMA = "osbc-deploy/inspect/1"


def describe(network: Network) -> dict[str, Any]:
    """Describe a float network.

    Parameters
    ----------
    network : Network

    Returns
    -------
    dict
        ``source``, ``dtype``, ``input_shape``, counts, ``populations``, ``projections``, ``notes``
        and ``warnings`` of the import, and under ``unsupported`` what the chip cannot run. A number
        that differs between neurons is a pair ``[least, largest]``.
    """
    try:
        check_features(network)
        unsupported: tuple[str, ...] = ()
    except UnsupportedModelError as error:
        unsupported = error.offenders
    return {
        "schema": SCHEMA,
        "source": network.source,
        "dtype": network.dtype,
        "input_shape": list(network.input_shape),
        "neurons": sum(p.size for p in network.populations),
        "weights": network.weights,
        "parameters": network.parameters,
        "populations": [_population(network, p) for p in network.populations],
        "projections": [_projection(network, p) for p in network.projections],
        "notes": list(network.notes),
        "warnings": list(network.warnings),
        "unsupported": list(unsupported),
    }


def _population(network: Network, population: Population) -> dict[str, Any]:
    neuron = population.neuron
    dynamics, rule = neuron.dynamics(), neuron.reset_rule()
    found: dict[str, Any] = {
        "name": population.name,
        "shape": list(population.shape),
        "neurons": population.size,
        "family": type(neuron).__name__,
        "equation": neuron.equation,
        "spiking": neuron.spiking,
        "output": population is network.output,
        "decay_u": None if dynamics.decay_u is None else _span(dynamics.decay_u),
        "decay_v": _span(dynamics.decay_v),
        "gain": _span(dynamics.gain),
        "drive": _span(dynamics.drive),
        "parameters": {name: _span(value) for name, value in neuron.parameters.items()},
        "options": neuron.options,
        "reset": None,
    }
    if neuron.spiking:
        value = neuron.parameters.get("v_reset") if rule.kind == "zero" else rule.amount
        found["reset"] = {
            "kind": rule.kind,
            "value": None if value is None else _span(value),
            "differs": rule.differs,
        }
    return found


def _span(values: FloatArray) -> float | list[float]:
    low, high = float(np.min(values)), float(np.max(values))
    return low if low == high else [low, high]


def _projection(network: Network, projection: Projection) -> dict[str, Any]:
    connection, pool = projection.connection, projection.pool
    late = lateness(network, projection)
    found: dict[str, Any] = {
        "name": projection.name,
        "from": projection.pre,
        "to": projection.post,
        "kind": connection.kind,
        "weight_shape": list(connection.weight.shape),
        "weights": int(connection.weight.size),
        "nonzero": int(np.count_nonzero(connection.weight)),
        "biases": 0 if connection.bias is None else int(connection.bias.size),
        "compressible": projection.compressible,
        "feedback": network.is_feedback(projection),
        "late": late if isinstance(late, int) else [int(late.min()), int(late.max())],
        "pool": None,
    }
    if connection.convolutional:
        if connection.groups > 1 and connection.weight.shape[1] == 1:
            found["kind"] = "depthwise"
        found["kernel"] = list(connection.weight.shape[2:])
        for key, value in connection.geometry.items():
            found[key] = list(value) if isinstance(value, tuple) else value
    if pool is not None:
        found["pool"] = {
            "kernel": list(pool.kernel),
            "stride": list(pool.stride),
            "padding": list(pool.padding),
            "divisor": pool.divisor,
        }
    return found
