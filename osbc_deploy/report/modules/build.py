"""Build the report of a module's compressed weights: plain data with a versioned schema."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from osbc_deploy.modules.file import weights_digest
from osbc_deploy.modules.result import CompressedModel, CompressedWeight
from osbc_deploy.options import REQUESTED, CompressionRequest
from osbc_deploy.options.option import reported, schema
from osbc_deploy.parsing import schema_of
from osbc_deploy.provenance import origin, sealed

__all__ = ["SCHEMA", "build_compression", "compression_json_schema"]

SCHEMA = "osbc-deploy/compress/1"


def compression_json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the report, with the options of the table."""
    found = schema_of("osbc_deploy.report.modules")
    found["properties"]["requested"] = schema(REQUESTED, CompressionRequest)
    return found


def build_compression(result: CompressedModel) -> dict[str, Any]:
    """Return the report of a module's compressed weights; numbers only, no rounding."""
    accuracy = result.accuracy
    return sealed(
        {
            "schema": SCHEMA,
            "provenance": {
                **origin(
                    result.asked,
                    model=result.source,
                    model_sha256=result.fingerprint,
                    calibration=result.calibration,
                    test=result.test,
                ),
                "weights_sha256": weights_digest(result.state),
            },
            "warnings": list(result.warnings),
            "framework": result.framework,
            "call": result.call,
            "sparsity": result.sparsity,
            "accuracy": {
                "before": accuracy.float_,
                "after": accuracy.compressed,
                "agreement": accuracy.agreement,
                "no_answer": {
                    "before": accuracy.no_answer["float"],
                    "after": accuracy.no_answer["compressed"],
                },
                "samples": accuracy.samples,
                "data": accuracy.data,
            },
            "requested": reported(REQUESTED, CompressionRequest, result.options),
            "layers": [_layer(weight, result.options.method) for weight in result.weights],
            "left": dict(result.left),
            "deviations": [asdict(deviation) for deviation in result.deviations],
        }
    )


def _layer(compressed: CompressedWeight, method: str) -> dict[str, Any]:
    weight, layer = compressed.weight, compressed.layer
    size = layer.codes.size
    hessian = "current" if method == "obc" or weight.why else "membrane"
    return {
        "name": weight.name,
        "parameters": list(weight.names),
        "kind": weight.uses[0].geometry.function,
        "weights": size,
        "nonzero": layer.nonzero,
        "sparsity": 1.0 - layer.nonzero / size,
        "bits": layer.bits,
        "relative_loss": dict(layer.relative_loss) or None,
        "hessian": "none" if method == "magnitude" else hessian,
        "why": weight.why if method == "osbc" else "",
        "neurons": list(weight.neurons),
        "uses": len(weight.uses),
        "selection": layer.selection,
        "variant": layer.chosen,
        "tried": dict(layer.tried),
        "bias": weight.slot.name if weight.slot is not None and layer.bias is not None else None,
        "dead_inputs": layer.dead_inputs,
        "damping": layer.damping,
    }
