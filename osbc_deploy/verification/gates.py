"""Gates: limits that a verification must keep, given as ``NAME=VALUE``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from osbc_deploy.errors import UsageError

if TYPE_CHECKING:
    from osbc_deploy.verification.result import Verification

__all__ = ["KNOWN", "Gate", "GateResult", "check_gates", "parse_gates"]


@dataclass(frozen=True)
class GateKind:
    """What a gate measures.

    Attributes
    ----------
    about : str
        In words, with the unit.
    bound : {"most", "least"}
    share : bool
        Whether limits are 0 to 1; whole numbers otherwise, unless `free`.
    free : bool
        Whether limits may be any number of at least 0.
    needs : {"", "labels", "backend"}
        Without what it cannot be measured.
    """

    about: str
    bound: Literal["most", "least"] = "most"
    share: bool = True
    free: bool = False
    needs: str = ""


KNOWN: dict[str, GateKind] = {
    "accuracy": GateKind("accuracy in fixed point", bound="least", needs="labels"),
    "accuracy_drop": GateKind("accuracy lost from float to fixed point", needs="labels"),
    "agreement": GateKind(
        "answered samples that keep the float network's class in fixed point", bound="least"
    ),
    "mismatch": GateKind("spike mismatch of any population, float to fixed point"),
    "lowering_mismatch": GateKind("spike mismatch of any population, compressed to fixed point"),
    "van_rossum": GateKind(
        "van Rossum distance of any population, float to fixed point", free=True
    ),
    "membrane_error": GateKind("membrane error of any population, float to fixed point", free=True),
    "silenced": GateKind("neurons that fire in float and never in fixed point", share=False),
    "clipped": GateKind("currents wrapped and potentials clipped in fixed point", share=False),
    "backend_mismatches": GateKind(
        "spikes, currents and potentials in which backend and engine differ",
        share=False,
        needs="backend",
    ),
}


@dataclass(frozen=True)
class Gate:
    """A limit by name."""

    name: str
    limit: float


@dataclass(frozen=True)
class GateResult:
    """A gate and how it was kept.

    Attributes
    ----------
    name : str
    limit : float
    value : float or None
        None where there is nothing to measure, which does not keep a gate.
    ok : bool
    message : str
    """

    name: str
    limit: float
    value: float | None
    ok: bool
    message: str


def parse_gates(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Read ``NAME=VALUE`` gates.

    Raises
    ------
    UsageError
        For all that are unknown, given twice, or have a value out of range, at once.
    """
    faults, found = [], {}
    for text in texts:
        name, equals, value = str(text).partition("=")
        name = name.strip().replace("-", "_")
        kind = KNOWN.get(name)
        if not equals:
            faults.append(f"{text!r} is not of the form NAME=VALUE")
        elif kind is None:
            faults.append(f"{name!r} is unknown")
        elif name in found:
            faults.append(f"{name} is given twice")
        elif (limit := _limit(value, kind)) is None:
            faults.append(f"{name}: {value.strip()!r} is not a {_range(kind)}")
        else:
            found[name] = Gate(name, limit)
    if faults:
        raise UsageError(f"--gate: {'; '.join(faults)}. Known gates: {', '.join(KNOWN)}.")
    return tuple(found.values())


def _limit(text: str, kind: GateKind) -> float | None:
    try:
        limit = float(text)
    except ValueError:
        return None
    whole = not kind.share and not kind.free
    outside = limit > 1.0 and kind.share and not kind.free
    if not math.isfinite(limit) or limit < 0 or outside or (whole and limit != int(limit)):
        return None
    return limit


def _range(kind: GateKind) -> str:
    if kind.free:
        return "number of at least 0"
    return "share from 0 to 1" if kind.share else "whole number of at least 0"


def check_needs(gates: Sequence[Gate], *, labels: bool, backend: bool) -> None:
    """Refuse gates that the job could never measure, before it is started.

    Raises
    ------
    UsageError
    """
    there = {"": True, "labels": labels, "backend": backend}
    missing = [g.name for g in gates if not there[KNOWN[g.name].needs]]
    if missing:
        raise UsageError(
            f"--gate: {', '.join(missing)} cannot be measured here: accuracies need labels in "
            "the test data, backend_mismatches needs --backend-samples of at least 1."
        )


def check_gates(verification: Verification, gates: Sequence[Gate]) -> tuple[GateResult, ...]:
    """Return how each gate was kept."""
    return tuple(_check(verification, gate) for gate in gates)


def _check(verification: Verification, gate: Gate) -> GateResult:
    kind = KNOWN[gate.name]
    value, where = _MEASURES[gate.name](verification)
    if value is None:
        return GateResult(gate.name, gate.limit, None, False, f"{kind.about}: nothing to measure")
    # What is lost is a difference of shares: 3 of 150 samples are 0.020000000000000018.
    within = value <= gate.limit or math.isclose(value, gate.limit, rel_tol=1e-9)
    ok = within if kind.bound == "most" else value >= gate.limit
    place = f" ({where})" if where else ""
    limit = f"at {kind.bound} {_shown(gate.limit, kind)} is allowed"
    return GateResult(
        gate.name, gate.limit, value, ok, f"{kind.about}: {_shown(value, kind)}{place}, {limit}"
    )


def _shown(value: float, kind: GateKind) -> str:
    if kind.free:
        return f"{value:.4g}"
    return f"{value:.2%}" if kind.share else f"{value:,.0f}"


Measured = tuple[float | None, str]


def _worst(values: dict[str, float | None]) -> Measured:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None, ""
    name = max(known, key=lambda name: known[name])
    return known[name], name


def _accuracy(v: Verification) -> Measured:
    return v.score("fixed point").accuracy, ""


def _accuracy_drop(v: Verification) -> Measured:
    before, after = v.score("float").accuracy, v.score("fixed point").accuracy
    return (None if before is None or after is None else before - after), ""


def _agreement(v: Verification) -> Measured:
    return v.score("fixed point").agreement, ""


def _mismatch(v: Verification) -> Measured:
    return _worst({n: d.mismatch for n, d in v.step("total").propagated.items()})


def _lowering_mismatch(v: Verification) -> Measured:
    return _worst({n: d.mismatch for n, d in v.step("lower").propagated.items()})


def _van_rossum(v: Verification) -> Measured:
    return _worst({n: d.van_rossum for n, d in v.step("total").propagated.items()})


def _membrane_error(v: Verification) -> Measured:
    return _worst({n: d.membrane for n, d in v.step("total").propagated.items()})


def _silenced(v: Verification) -> Measured:
    return float(sum(v.silenced.values())), ""


def _clipped(v: Verification) -> Measured:
    return float(sum(a.wraps + a.saturations for a in v.activity.values())), ""


def _backend_mismatches(v: Verification) -> Measured:
    backend = v.backend
    return (float(backend.different) if backend is not None and backend.compared else None), ""


_MEASURES: dict[str, Callable[[Verification], Measured]] = {
    "accuracy": _accuracy,
    "accuracy_drop": _accuracy_drop,
    "agreement": _agreement,
    "mismatch": _mismatch,
    "lowering_mismatch": _lowering_mismatch,
    "van_rossum": _van_rossum,
    "membrane_error": _membrane_error,
    "silenced": _silenced,
    "clipped": _clipped,
    "backend_mismatches": _backend_mismatches,
}
