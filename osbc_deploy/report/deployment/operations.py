"""What a network does in a sample and a step: its part of the report, and that in sentences.

Every time and energy is modelled: counted events times the figures that the target states, with
how the source found these (its basis).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osbc_deploy.chip.step import StepLoad
    from osbc_deploy.chip.target import Target
    from osbc_deploy.deployment import Deployment

__all__ = ["energy_text", "instruction_lines", "operations_part", "step_lines"]


def operations_part(deployment: Deployment) -> dict[str, Any]:
    """Return the events of a calibration sample and of its mean step, their time and energy."""
    target, network = deployment.target, deployment.lowered.network
    steps = deployment.provenance["steps"]
    performed = sum(o.performed for o in deployment.operations.values())
    found = {
        "synaptic": performed,
        "useful": sum(o.useful for o in deployment.operations.values()),
        "neuron_updates": sum(p.size for p in network.populations) * steps,
        "energy": _energy(deployment, steps),
    }
    if target.cores > 1:
        found["step"] = _step(deployment)
    return found | _instructions(deployment)


def _energy(deployment: Deployment, steps: int) -> dict[str, Any] | None:
    """Return the picojoules of a sample, or None where the target states nothing."""
    target = deployment.target
    if target.energy is None:
        return None
    parts, saved = {}, 0.0
    found = deployment.load.energy(target)
    if found is not None:
        parts = {name: value * steps for name, value in found.parts.items()}
        saved = found.idle_saves * steps
    each = target.energy.instruction
    if each is not None and deployment.steps is not None:
        parts["instructions"] = each.value * deployment.steps.typical * steps
    if not parts:
        return None
    facts = [f for f in (target.energy.synaptic_operation, each) if f is not None]
    return {
        "picojoules": sum(parts.values()),
        "idle_picojoules": sum(parts.values()) - saved,
        "parts": parts,
        "label": "modelled",
        "basis": target.energy.basis,
        "grade": facts[0].grade,
        "source": target.sources[facts[0].source],
    }


def _step(deployment: Deployment) -> dict[str, Any]:
    """Return the busiest core and link of a mean step, and its time where that is known."""
    target, load = deployment.target, deployment.load
    busiest = load.busiest(target)
    return {
        "busiest_core": {
            "core": busiest,
            "layers": [c.layer for c in deployment.mapping.cores if c.index == busiest],
            "synaptic": float(load.synaptic[busiest]),
            "neuron_updates": int(load.updates[busiest]),
            "spikes": float(load.received[busiest]),
        },
        "links": _links(load),
        "time": _time(target, load),
    }


def _links(load: StepLoad) -> dict[str, Any] | None:
    if not load.placed:
        return None
    first = load.links[0] if load.links else None
    busiest = first and {"from": list(first.source), "to": list(first.sink), "spikes": first.spikes}
    count = len(load.links)
    return {
        "used": count,
        "mean_spikes": sum(link.spikes for link in load.links) / count if count else 0.0,
        "busiest": busiest,
    }


def _time(target: Target, load: StepLoad) -> dict[str, Any] | None:
    found = load.time(target)
    if found is None or target.time is None:
        return None
    return {
        "seconds": found.total,
        "parts": dict(found.parts),
        "bottleneck": found.bottleneck,
        "label": "modelled",
        "basis": target.time.basis,
        "source": target.sources[target.time.synaptic_operation.source],
    }


def _instructions(deployment: Deployment) -> dict[str, Any]:
    """Return the modelled instructions of a step, where the target says what operations take."""
    target, steps = deployment.target, deployment.steps
    if steps is None or target.instructions is None:
        return {}
    clock, cost = target.instructions.clock.value, target.instructions.costs.step
    found = {name: getattr(steps, name) for name in ("typical", "worst", "bound")}
    return {
        "instructions": found
        | {"clock_hz": clock, "grade": "modelled", "source": target.sources[cost.source]}
    }


def energy_text(energy: Mapping[str, Any]) -> str:
    """Return the energy of a sample with its label, such as ``0.06 uJ (modelled from ...)``."""
    text = f"{energy['picojoules'] / 1e6:,.3g} uJ"
    least = energy.get("idle_picojoules", energy["picojoules"])
    if least < energy["picojoules"]:
        text = f"{least / 1e6:,.3g} (if neurons were idle) to {text}"
    return f"{text} ({_said(energy)})"


def _said(found: Mapping[str, Any]) -> str:
    """Return where figures come from; reports of older versions name the grade alone."""
    if "label" not in found:
        return f"{found['grade']}: {found['source']}"
    return f"{found['label']} from {found['basis']} figures: {found['source']}"


def step_lines(operations: Mapping[str, Any], *, details: bool) -> list[str]:
    """Return what a step takes, and on which core and link; times that are known in any case."""
    if "step" not in operations:
        return []
    step = operations["step"]
    core, time = step["busiest_core"], step["time"]
    if time is None and not details:
        return []
    where = (
        f"busiest core {core['core']} ({' + '.join(core['layers'])}): {core['synaptic']:,.1f} "
        f"synaptic operations, {core['neuron_updates']:,} neuron updates"
    )
    links = step["links"]
    if links is not None and links["busiest"] is not None:
        (x, y), (to_x, to_y) = links["busiest"]["from"], links["busiest"]["to"]
        where += (
            f"; busiest of {links['used']} links {x},{y} to {to_x},{to_y}: "
            f"{links['busiest']['spikes']:,.1f} spikes, {links['mean_spikes']:,.1f} on average"
        )
    if time is None:
        return [f"mean step: {where}; no figure of its time is public"]
    parts = ", ".join(f"{name} {seconds * 1e6:,.3g}" for name, seconds in time["parts"].items())
    return [
        f"mean step: {time['seconds'] * 1e6:,.3g} us ({parts}; the {time['bottleneck']} takes "
        f"longest; {_said(time)}); {where}"
    ]


def instruction_lines(operations: Mapping[str, Any]) -> list[str]:
    """Return what a step takes on a processor, as modelled; none where that is not known."""
    if "instructions" not in operations:
        return []
    found = operations["instructions"]
    typical, worst, bound = (found[name] for name in ("typical", "worst", "bound"))
    clock = found["clock_hz"]
    return [
        f"instructions: {typical:,.0f} a step on average, {worst:,.0f} at most on the calibration "
        f"samples, {bound:,.0f} if everything fired; {worst / clock * 1e3:,.3g} ms at "
        f"{clock / 1e6:,.4g} MHz and one a cycle (modelled: {found['source']})"
    ]
