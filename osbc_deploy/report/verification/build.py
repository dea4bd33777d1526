"""Build the verification report: plain data with a versioned schema."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.formats.folder import write_network
from osbc_deploy.lower.lowering import Lowered
from osbc_deploy.model.readout import NO_ANSWER
from osbc_deploy.options import VERIFIED, VerifyOptions
from osbc_deploy.options.option import reported, schema
from osbc_deploy.parsing import schema_of
from osbc_deploy.provenance import sealed
from osbc_deploy.verification.bits import BackendComparison
from osbc_deploy.verification.cost import Effect
from osbc_deploy.verification.difference import Difference
from osbc_deploy.verification.result import LayerCost, Score, Step, Verification

__all__ = ["VERIFY_SCHEMA", "build_verification", "verify_json_schema"]

VERIFY_SCHEMA = "osbc-deploy/verify/3"


def verify_json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the verification report, with the table's options."""
    found = schema_of("osbc_deploy.report.verification")
    found["properties"]["options"] = schema(VERIFIED, VerifyOptions)
    return found


def build_verification(verification: Verification) -> dict[str, Any]:
    """Return the report of a verification; numbers only, no rounding."""
    deployment = verification.deployment
    target, options = deployment.target, deployment.compressed.options
    costliest = verification.costliest
    layers = deployment.lowered.network.layers
    return sealed(
        {
            "schema": VERIFY_SCHEMA,
            "target": {"name": target.name, "title": target.title},
            "provenance": {
                **deployment.provenance,
                "deployed": _deployed(deployment.lowered.network),
            },
            "warnings": list(deployment.warnings),
            "options": {
                "method": options.method,
                **reported(VERIFIED, VerifyOptions, options, verification),
            },
            "names": dict(layers),
            "stages": [_stage(verification, score) for score in verification.scores],
            "steps": [_step(verification, step) for step in verification.steps],
            "registers": _registers(verification),
            "layers": [
                {"name": layers[cost.population], **_layer(verification, cost)}
                for cost in verification.layers
            ],
            "costliest": None if costliest is None else layers[costliest.population],
            "backend": None
            if verification.backend is None
            else _backend(verification.backend, deployment.lowered),
            "shown": _shown(verification),
            "gates": [asdict(finding) for finding in verification.findings],
            "ok": not verification.broken,
        }
    )


def _deployed(network: FixedPointNetwork) -> dict[str, str]:
    """Return the SHA-256 of the files that ``-o`` writes for a network, by name."""
    with tempfile.TemporaryDirectory() as folder:
        write_network(network, Path(folder))
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(Path(folder).iterdir())
        }


def _stage(verification: Verification, score: Score) -> dict[str, Any]:
    interval = score.interval
    same, answered = score.shared
    return {
        "name": score.stage,
        "samples": len(score.classes),
        "no_answer": {"samples": score.no_answer, "value": score.no_answer / len(score.classes)},
        "accuracy": None
        if score.right is None or interval is None
        else {
            "right": score.right,
            "value": score.accuracy,
            "low": interval[0],
            "high": interval[1],
        },
        "agreement": {"same": same, "answered": answered, "value": score.agreement},
        "populations": [
            {
                "name": name,
                "neurons": len(seen.counts),
                "rate": seen.rate,
                "silent": seen.silent,
                "always_firing": seen.saturated,
            }
            for name, seen in verification.firing.get(score.stage, {}).items()
        ],
    }


def _step(verification: Verification, step: Step) -> dict[str, Any]:
    paired = verification.paired.get(step.name)
    before, after = verification.score(step.before), verification.score(step.after)
    return {
        "name": step.name,
        "before": step.before,
        "after": step.after,
        "classes_changed": int(np.count_nonzero(before.classes != after.classes)),
        "test": None if paired is None else asdict(paired),
        "populations": [
            {
                "name": name,
                "spiking": name in verification.firing["float"],
                "propagated": _difference(seen),
                "isolated": _difference(step.isolated[name]) if name in step.isolated else None,
            }
            for name, seen in step.propagated.items()
        ],
    }


def _difference(seen: Difference) -> dict[str, Any]:
    return {
        "neuron_steps": seen.neuron_steps,
        "mismatches": seen.mismatches,
        "mismatch": seen.mismatch,
        "first_step": {
            "earliest": seen.earliest,
            "median": seen.median,
            "samples": sum(step >= 0 for step in seen.first),
        },
        "van_rossum": seen.van_rossum,
        "membrane_error": seen.membrane,
    }


def _registers(verification: Verification) -> list[dict[str, Any]]:
    limit = verification.deployment.lowered.network.formats.state_limit
    return [
        {
            "population": name,
            "u_range_used": seen.u_peak / limit,
            "v_range_used": seen.v_peak / limit,
            "wraps": seen.wraps,
            "saturations": seen.saturations,
            "silenced": verification.silenced.get(name, 0),
        }
        for name, seen in verification.activity.items()
    ]


def _layer(verification: Verification, cost: LayerCost) -> dict[str, Any]:
    right = verification.score("float").right
    return {
        "population": cost.population,
        "projections": list(cost.projections),
        "weights": cost.weights,
        "nonzero": cost.nonzero,
        "bits": list(cost.bits),
        "pruned": None if cost.pruned is None else _effect(cost.pruned, right),
        "compressed": _effect(cost.compressed, right),
    }


def _effect(seen: Effect, float_right: int | None) -> dict[str, Any]:
    known = seen.right is not None and float_right is not None
    return {
        "samples": seen.samples,
        "agreement": seen.agreement,
        "accuracy_drop": (float_right - seen.right) / seen.samples  # type: ignore[operator]
        if known
        else None,
        "output_error": seen.output_error,
    }


def _backend(seen: BackendComparison, lowered: Lowered) -> dict[str, Any]:
    return {
        "name": seen.backend,
        "reference": seen.reference,
        "samples": seen.samples,
        "left_out": seen.left_out,
        "restarts": seen.restarts,
        "different": seen.different,
        "populations": [
            {
                "name": name,
                "neurons_left_out": lowered.left_out.get(name, 0),
                **{
                    quantity: asdict(bits[quantity]) if quantity in bits else None
                    for quantity in ("spikes", "u", "v")
                },
            }
            for name, bits in seen.populations.items()
        ],
        "first_difference": None if seen.first is None else asdict(seen.first),
    }


def _shown(verification: Verification) -> dict[str, Any]:
    shown = verification.shown
    # Neurons are counted as the float network has them, those that are left out too.
    lowered = verification.deployment.lowered.whole
    thresholds = {
        stage: _float_thresholds(network)
        for stage, network in (
            ("float", verification.deployment.network),
            ("compressed", verification.deployment.compressed.network),
        )
    }
    shift = lowered.formats.state_shift
    thresholds["fixed point"] = {
        p.name: p.v_scale * (p.vth.astype(np.float64) * 2**shift) + p.v_offset
        for p in lowered.populations
        if p.spiking
    }
    populations = []
    for name, neurons in shown.neurons.items():
        spiking = name in shown.records["float"].spikes
        populations.append(
            {
                "name": name,
                "neurons": list(neurons),
                "spikes": {
                    stage: [np.flatnonzero(r.spikes[name][0, :, k]).tolist() for k in neurons]
                    for stage, r in shown.records.items()
                }
                if spiking
                else None,
                "traces": [
                    {
                        "neuron": k,
                        "v": {
                            stage: [float(x) for x in r.v[name][0, :, k]]
                            for stage, r in shown.records.items()
                        },
                        "thresholds": {
                            stage: float(values[name][k]) for stage, values in thresholds.items()
                        }
                        if spiking
                        else None,
                    }
                    for k in shown.traced[name]
                ],
            }
        )
    return {
        "sample": shown.sample,
        "label": shown.label,
        "classes": {k: None if c == NO_ANSWER else c for k, c in shown.classes.items()},
        "populations": populations,
    }


def _float_thresholds(network: Any) -> Mapping[str, Any]:
    return {
        p.name: np.broadcast_to(p.neuron.parameters["v_threshold"], p.shape).reshape(-1)
        for p in network.populations
        if p.neuron.spiking
    }
