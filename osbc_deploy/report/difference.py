"""What changed between two reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from osbc_deploy.report.measures import layer_measures, on_processor, totals

__all__ = ["difference"]

Report = Mapping[str, Any]

_LAYER_KEYS = ("cores", "memory_bytes", "nonzero", "bits", "loss", "rate")


def difference(before: Report, after: Report) -> list[dict[str, Any]]:
    """Return every measure that differs.

    Returns
    -------
    list of dict
        ``{"where", "what", "before", "after", "change"}``; `change` is None where one side has no
        such number (a layer that is new or gone).
    """
    rows = [_row("network", key, totals(before)[key], totals(after)[key]) for key in totals(before)]
    old, new = on_processor(before), on_processor(after)
    rows += [_row("network", key, old.get(key), new.get(key)) for key in old | new]
    rows += [
        _row("network", f"accuracy {key}", before["accuracy"][key], after["accuracy"][key])
        for key in ("float", "compressed", "fixed_point")
    ]
    rows.append(
        _row(
            "network",
            "no answer",
            before["accuracy"]["no_answer"]["fixed_point"],
            after["accuracy"]["no_answer"]["fixed_point"],
        )
    )
    rows.append(
        _row(
            "network",
            "sparsity",
            before["compression"]["sparsity"],
            after["compression"]["sparsity"],
        )
    )
    rows += [
        _row("network", f"{name} {what}", before["fidelity"][key], after["fidelity"][key])
        for name in ("compared", "mismatched")
        for what in ("spikes", "potentials")
        for key in (f"{name}_{what}",)
    ]
    rows += [
        _row("network", key, before[part][name], after[part][name])
        for key, part, name in (("target", "target", "name"), ("model", "provenance", "model"))
    ]
    was, now = _digests(before), _digests(after)
    rows += [_row("network", f"{key} sha256", was[key], now[key]) for key in was]
    rows += _layers(layer_measures(before), layer_measures(after))
    return [row for row in rows if row["before"] != row["after"]]


def _digests(report: Report) -> dict[str, str]:
    """Return the first digits of what measures alone do not tell apart."""
    made = report["provenance"]
    found = {key: made[f"{key}_sha256"] for key in ("network", "model")}
    found |= {key: made[key]["sha256"] for key in ("target", "calibration", "test")}
    return {key: digest[:12] for key, digest in found.items()}


def _layers(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, {}), after.get(name, {})
        for key in _LAYER_KEYS:
            yield _row(f"layer {name}", key, old.get(key), new.get(key))


def _row(where: str, what: str, before: Any, after: Any) -> dict[str, Any]:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (before, after))
    return {
        "where": where,
        "what": what,
        "before": before,
        "after": after,
        "change": after - before if numbers else None,
    }
