"""Sums over a report that several views of it need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["layer_measures", "on_processor", "total_loss", "totals"]

Report = Mapping[str, Any]


def totals(report: Report) -> dict[str, int]:
    """Return cores and bytes of the whole network."""
    memory = report["memory"]
    return {"cores": memory["cores_used"], "memory_bytes": memory["deployed_bytes"]}


def on_processor(report: Report) -> dict[str, int]:
    """Return flash and RAM in bytes, and the most instructions of a step, as far as counted.

    Only reports of microcontrollers count them.
    """
    counted: dict[str, int] = {}
    for core in report["cores"]:
        for name in ("flash", "ram"):
            if name in core["resources"]:
                counted[name] = counted.get(name, 0) + core["resources"][name]["used"]
    steps = report["operations"].get("instructions")
    return counted if steps is None else counted | {"instructions": math.ceil(steps["worst"])}


def total_loss(layer: Mapping[str, Any]) -> float | None:
    """Return the loss of a report's layer after quantization, or None if none was measured."""
    losses = layer["relative_loss"]
    return None if losses is None else float(losses["total"])


def layer_measures(report: Report) -> dict[str, dict[str, Any]]:
    """Return what every layer uses on all of its cores, by layer name, in network order.

    A layer is a population with all projections into it, called after the first of them.

    Keys: ``cores``, ``memory_bytes``, ``neurons``, ``synapses``, every resource by its name,
    ``payload``, ``index``, ``header`` and ``padding`` bits, and ``weights``, ``nonzero``,
    ``sparsity``, ``bits``, ``loss`` (None where it was not measured) and ``rate`` of the layer
    itself.
    """
    compressed = {layer["name"]: layer for layer in report["compression"]["layers"]}
    measures: dict[str, dict[str, Any]] = {}
    for population in report["populations"]:
        # Relays have no weights of their own.
        parts = [
            compressed[p["name"]] for p in population["projections"] if p["name"] in compressed
        ]
        weights = sum(part["weights"] for part in parts)
        nonzero = sum(part["nonzero"] for part in parts)
        measures[population["layer"]] = {
            "cores": 0,
            "memory_bytes": 0,
            "neurons": 0,
            "synapses": 0,
            "weights": weights,
            "nonzero": nonzero,
            "sparsity": 1.0 - nonzero / weights if weights else 0.0,
            "bits": parts[0]["bits"] if parts else 1,
            "loss": total_loss(parts[0]) if parts else 0.0,
            "rate": population["rate"],
        }
    for core in report["cores"]:
        entry = measures[core["layer"]]
        entry["cores"] += 1
        entry["memory_bytes"] += core["bytes"]
        entry["neurons"] += core["neurons"]
        for name, resource in core["resources"].items():
            key = f"{name}_used"
            entry[key] = entry.get(key, 0) + resource["used"]
        for part, bits in core["synapse_bits"].items():
            entry[part] = entry.get(part, 0) + bits
        entry["synapses"] += core["synapses"]
    return measures
