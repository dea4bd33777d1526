"""What is kept of the deployment of a point: plain data, the same wherever it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from osbc_deploy.deployment import Deployment
from osbc_deploy.deviations import Deviation
from osbc_deploy.fidelity import Fidelity

__all__ = ["check_record", "record_of"]

_NUMBER = (int, float)
_SCORES = dict.fromkeys(("float", "compressed", "fixed_point", "agreement"), (*_NUMBER, type(None)))
_BACKENDS = dict.fromkeys(("backend", "reference"), (str, type(None)))

_KINDS: dict[str, Any] = {
    "fits": bool,
    "excesses": [str],
    "remedy": str,
    "cores": int,
    "memory_bytes": int,
    "weights": int,
    "nonzero": int,
    "accuracy": {**_SCORES, "samples": int},
    "loss": (*_NUMBER, type(None)),
    "synaptic_operations": _NUMBER,
    "fidelity": {**dict.fromkeys(Fidelity.__dataclass_fields__, int), **_BACKENDS},
    "exact": bool,
    "network_sha256": str,
    "output_sha256": str,
    "warnings": [str],
    "deviations": [dict.fromkeys(Deviation.__dataclass_fields__, str)],
}
"""The kinds of a record's values: a list of one kind, a mapping with a kind for each name."""


def record_of(done: Deployment) -> dict[str, Any]:
    """Return what is kept of a deployment."""
    mapping, accuracy, layers = done.mapping, done.accuracy, done.compressed.projections.values()
    # All projections into a population have the loss of the population.
    first = [done.network.afferents(p.name)[0].name for p in done.network.trained]
    losses = [done.compressed.projections[name].relative_loss.get("total") for name in first]
    return {
        "fits": mapping.fits,
        "excesses": list(mapping.excesses()),
        "remedy": mapping.remedy(),
        "cores": mapping.cores_used,
        "memory_bytes": mapping.bytes,
        "weights": sum(layer.codes.size for layer in layers),
        "nonzero": sum(layer.nonzero for layer in layers),
        "accuracy": {
            "float": accuracy.float_,
            "compressed": accuracy.compressed,
            "fixed_point": accuracy.fixed_point,
            "agreement": accuracy.agreement,
            "samples": accuracy.samples,
        },
        "loss": None if None in losses else sum(filter(None, losses)),
        "synaptic_operations": sum(op.performed for op in done.operations.values()),
        "fidelity": asdict(done.fidelity),
        "exact": done.fidelity.exact,
        "network_sha256": done.provenance["network_sha256"],
        "output_sha256": done.provenance["output_sha256"],
        "warnings": list(done.warnings),
        "deviations": [asdict(deviation) for deviation in done.deviations],
    }


def check_record(record: object) -> None:
    """Raise ValueError unless everything said of a point is of the kind it is used as."""
    if fault := _fault(record, _KINDS, "record"):
        raise ValueError(fault)


def _fault(value: object, kind: Any, name: str) -> str:
    if isinstance(kind, dict):
        if not isinstance(value, Mapping):
            return f"{name} is none"
        if other := sorted(kind.keys() ^ value.keys()):
            return f"{name} lacks or has no place for {', '.join(map(str, other))}"
        parts = [(value[key], kind[key], str(key)) for key in kind]
    elif isinstance(kind, list):
        if not isinstance(value, list):
            return f"{name} is no list"
        parts = [(part, kind[0], name) for part in value]
    else:
        # True is an int to Python.
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        return "" if right else f"{name} is {value!r:.40}"
    return next(filter(None, (_fault(*part) for part in parts)), "")
