"""Build the report: plain data with a versioned schema."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from osbc_deploy.options import REQUESTED, CompressionRequest
from osbc_deploy.options.option import reported, schema
from osbc_deploy.parsing import schema_of
from osbc_deploy.provenance import sealed
from osbc_deploy.report.deployment.operations import operations_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osbc_deploy.arrays import IntArray
    from osbc_deploy.chip.mapping import Core
    from osbc_deploy.chip.mapping import Mapping as ChipMapping
    from osbc_deploy.chip.target import Target
    from osbc_deploy.compress.work import Spent
    from osbc_deploy.deployment import Deployment
    from osbc_deploy.fixedpoint.coding import InputFormat, InputSeen
    from osbc_deploy.fixedpoint.network import FixedPointNetwork, FixedPopulation
    from osbc_deploy.fixedpoint.record import Activity

__all__ = [
    "SCHEMA",
    "activity_parts",
    "build_report",
    "counted_parts",
    "input_parts",
    "json_schema",
]

SCHEMA = "osbc-deploy/report/6"


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the report, with the options of the table."""
    found = schema_of("osbc_deploy.report.deployment")
    compression = found["properties"]["compression"]["properties"]
    compression["requested"] = schema(REQUESTED, CompressionRequest)
    return found


def build_report(deployment: Deployment) -> dict[str, Any]:
    """Return the report of a deployment; numbers only, no rounding."""
    network, target, mapping = deployment.lowered.network, deployment.target, deployment.mapping
    float_bytes = deployment.network.parameters * (
        8 if deployment.network.dtype == "float64" else 4
    )
    counted = counted_parts(network, mapping, target)
    return sealed(
        {
            "schema": SCHEMA,
            "target": {"name": target.name, "title": target.title},
            "provenance": dict(deployment.provenance),
            "warnings": list(deployment.warnings),
            "fits": counted["fits"],
            "excesses": counted["excesses"],
            "accuracy": {
                name.rstrip("_"): value for name, value in asdict(deployment.accuracy).items()
            },
            **input_parts(network.input, deployment.input),
            "compression": _compression(deployment),
            "populations": [
                part | active | {"float_rate": deployment.compressed.rates.get(part["name"])}
                for part, active in zip(
                    counted["populations"],
                    activity_parts(network, deployment.activity),
                    strict=True,
                )
            ],
            "fidelity": asdict(deployment.fidelity),
            "cores": [
                part | {"place": _place(deployment, core)}
                for part, core in zip(counted["cores"], mapping.cores, strict=True)
            ],
            "memory": counted["memory"] | {"float_bytes": float_bytes},
            "pruning": _pruning(deployment),
            "placement": _placement(deployment),
            "operations": operations_part(deployment),
            "deviations": [asdict(deviation) for deviation in deployment.deviations],
        }
    )


def counted_parts(
    network: FixedPointNetwork, mapping: ChipMapping, target: Target
) -> dict[str, Any]:
    """Return the parts of a report that network and target alone decide.

    Parameters
    ----------
    network : FixedPointNetwork
    mapping : ChipMapping
        Of that network on `target`.
    target : Target
    """
    return {
        "fits": mapping.fits,
        "excesses": mapping.excesses(),
        "populations": [_population(network, population) for population in network.populations],
        "cores": [core.as_dict(mapping.word_bits) for core in mapping.cores],
        "memory": {
            "deployed_bytes": mapping.bytes,
            "deployed_words": mapping.words,
            "word_bits": mapping.word_bits,
            "cores_used": mapping.cores_used,
            "cores_available": mapping.available,
            "cores_lower_bound": mapping.lower_bound,
            "synapse_payload_bytes": _payload(network),
            "assumed": [
                name
                for name, fact in target.facts().items()
                if fact.grade == "assumed" and name.startswith("memory.")
            ],
        },
    }


def _pruning(deployment: Deployment) -> dict[str, Any]:
    """Return what the network takes, and what it would with all weights and neurons."""
    lowered = deployment.lowered
    return {
        "unpruned": asdict(deployment.unpruned),
        "deployed": asdict(deployment.footprint),
        "left_out": {
            name: {
                "neurons": len(lowered.kept[name]) + gone,
                "left_out": gone,
                "stayed": _ranges(lowered.kept[name]),
            }
            for name, gone in lowered.left_out.items()
        },
    }


def _ranges(numbers: IntArray) -> list[list[int]]:
    """Return ascending numbers as ranges (start, stop)."""
    found: list[list[int]] = []
    for number in numbers.tolist():
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found


def input_parts(given: InputFormat, seen: InputSeen | None = None) -> dict[str, Any]:
    """Return the part of a report about a graded input; none where it is spikes."""
    if not given.graded:
        return {}
    said = asdict(given) | {"low": given.low, "high": given.high}
    return {"input": said | ({} if seen is None else asdict(seen))}


def _compression(deployment: Deployment) -> dict[str, Any]:
    compressed = deployment.compressed
    layers = []
    for projection in deployment.network.weighted:
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
                "damping": done.damping,
                "variant": done.chosen,
                "tried": dict(done.tried),
                "threshold": done.threshold,
                "bias_recalibrated": done.bias is not None,
                "relative_loss": dict(done.relative_loss) or None,
                "loss_curve": [list(point) for point in done.curve],
            }
        )
    options = compressed.options
    return {
        "method": options.method,
        "requested": reported(REQUESTED, CompressionRequest, options),
        "sparsity": compressed.sparsity,
        "layers": layers,
        "effort": _effort(compressed.spent),
    }


def _effort(spent: Spent | None) -> dict[str, Any] | None:
    """Return what the compression was expected to take, and took; times only where they may vary.

    Counts are the same on every machine.
    """
    if spent is None:
        return None
    plan = spent.plan
    timed = not os.environ.get("SOURCE_DATE_EPOCH")
    return {
        "seconds_expected": spent.expected if timed else None,
        "seconds_taken": spent.taken if timed else None,
        "bytes": plan.bytes,
        "kept_bytes": plan.kept,
        "samples": plan.samples,
        "steps": plan.steps,
        "layers": [
            {
                "name": layer.name,
                "outputs": layer.outputs,
                "inputs": layer.inputs,
                "rows": layer.rows,
                "rows_there_are": layer.of,
                "bytes": layer.bytes,
            }
            for layer in plan.layers
        ],
    }


def _population(network: FixedPointNetwork, population: FixedPopulation) -> dict[str, Any]:
    afferents = network.afferents(population.name)
    return {
        "name": population.name,
        "shape": list(population.shape),
        "spiking": population.spiking,
        "layer": network.layers[population.name],
        "projections": [
            {
                "name": p.name,
                "from": p.pre,
                "weight_bits": p.weight_bits,
                "weight_exp": p.weight_exp,
                "longest_delay": p.connection.longest_delay,
            }
            for p in afferents
        ],
        "reset": population.reset,
        "vth": [int(population.vth.min()), int(population.vth.max())],
    }


def activity_parts(
    network: FixedPointNetwork, activity: Mapping[str, Activity]
) -> list[dict[str, Any]]:
    """Return what each population did on the evaluated samples, as its part of a report.

    Parameters
    ----------
    network : FixedPointNetwork
    activity : dict of Activity
        By population.
    """
    limit = network.formats.state_limit
    return [
        {
            "name": population.name,
            "rate": seen.rate if population.spiking else None,
            "u_range_used": seen.u_peak / limit,
            "v_range_used": seen.v_peak / limit,
            "wraps": seen.wraps,
            "saturations": seen.saturations,
        }
        for population in network.populations
        for seen in (activity[population.name],)
    ]


def _place(deployment: Deployment, core: Core) -> list[int] | None:
    place = deployment.placement
    if place is None:
        return None
    return [int(axis[core.index]) for axis in (place.chip, place.x, place.y)]


def _placement(deployment: Deployment) -> dict[str, Any] | None:
    """Return spikes times hops of a calibration sample, or None where cores have no place."""
    place, mesh = deployment.placement, deployment.target.mesh
    if place is None or mesh is None:
        return None
    return {
        "mesh": mesh.size.value,
        "chips_used": int(place.chip.max()) + 1,
        "spike_hops": place.spike_hops,
        "layer_order": place.layer_order,
        "random_order": place.random_order,
    }


def _payload(network: FixedPointNetwork) -> int:
    """Return the bytes of the non-zero weights alone: what a naive count would report."""
    return -(-sum(p.nonzero * p.weight_bits for p in network.projections) // 8)
