"""Build the report: plain data with a versioned schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from osbc_deploy._version import __version__

if TYPE_CHECKING:
    from osbc_deploy.chip.mapping import Core
    from osbc_deploy.pipeline import Deployment

__all__ = ["SCHEMA", "build_report", "json_schema"]

SCHEMA = "osbc-deploy/report/1"


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the report."""
    text = files("osbc_deploy.report").joinpath("schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def build_report(deployment: Deployment) -> dict[str, Any]:
    """Return the report of a deployment; numbers only, no rounding."""
    target, mapping = deployment.target, deployment.mapping
    float_bytes = deployment.network.parameters * (
        8 if deployment.network.dtype == "float64" else 4
    )
    return {
        "schema": SCHEMA,
        "tool": __version__,
        "target": {"name": target.name, "title": target.title, "sha256": target.digest},
        "provenance": dict(deployment.provenance),
        "fits": mapping.fits,
        "excesses": mapping.excesses(),
        "accuracy": {
            name.rstrip("_"): value for name, value in asdict(deployment.accuracy).items()
        },
        "compression": _compression(deployment),
        "populations": _populations(deployment),
        "fidelity": asdict(deployment.fidelity),
        "cores": [_core(deployment, core) for core in mapping.cores],
        "memory": {
            "float_bytes": float_bytes,
            "deployed_bytes": mapping.bytes,
            "deployed_words": mapping.words,
            "word_bits": mapping.word_bits,
            "cores_used": mapping.cores_used,
            "cores_available": mapping.available,
            "cores_lower_bound": mapping.lower_bound,
            "synapse_payload_bytes": _payload(deployment),
            "assumed": [name for name, fact in target.facts().items() if fact.grade == "assumed"],
        },
        "deviations": [asdict(deviation) for deviation in deployment.deviations],
    }


def _compression(deployment: Deployment) -> dict[str, Any]:
    compressed = deployment.compressed
    layers = []
    for projection in deployment.network.projections:
        done = compressed.projections[projection.name]
        size = projection.connection.weight.size
        layers.append(
            {
                "name": projection.name,
                "weights": size,
                "nonzero": done.nonzero,
                "sparsity": 1.0 - done.nonzero / size,
                "bits": done.bits,
                "selection": done.selection,
                "dead_inputs": done.dead_inputs,
                "relative_loss": dict(done.relative_loss),
                "loss_curve": [list(point) for point in done.curve],
            }
        )
    options = compressed.options
    return {
        "method": options.method,
        "requested": {"sparsity": options.sparsity, "bits": options.bits},
        "sparsity": compressed.sparsity,
        "layers": layers,
    }


def _populations(deployment: Deployment) -> list[dict[str, Any]]:
    network = deployment.lowered.network
    limit = network.formats.state_limit
    entries = []
    for population, projection in zip(network.populations, network.projections, strict=True):
        seen = deployment.activity[population.name]
        entries.append(
            {
                "name": population.name,
                "shape": list(population.shape),
                "spiking": population.spiking,
                "weight_bits": projection.weight_bits,
                "weight_exp": projection.weight_exp,
                "vth": [int(population.vth.min()), int(population.vth.max())],
                "rate": seen.rate if population.spiking else None,
                "float_rate": deployment.compressed.rates.get(population.name),
                "u_range_used": seen.u_peak / limit,
                "v_range_used": seen.v_peak / limit,
                "wraps": seen.wraps,
                "saturations": seen.saturations,
            }
        )
    return entries


def _core(deployment: Deployment, core: Core) -> dict[str, Any]:
    limiting, share = core.limiting()
    usage = core.usage
    return {
        "core": core.index,
        "layer": deployment.network.incoming(core.population).name,
        "population": core.population,
        "slice": core.slice,
        "neurons": usage.neurons,
        "axons": usage.axons,
        "synapses": usage.synapses,
        "encoding": usage.encoding,
        "resources": {
            name: {"used": used, "max": core.limits[name]} for name, used in usage.used.items()
        },
        "synapse_bits": dict(usage.bits),
        "bytes": usage.words * deployment.mapping.word_bits // 8,
        "limiting": limiting,
        "limiting_share": share,
    }


def _payload(deployment: Deployment) -> int:
    """Return the bytes of the non-zero weights alone: what a naive count would report."""
    bits = sum(p.nonzero * p.weight_bits for p in deployment.lowered.network.projections)
    return -(-bits // 8)
