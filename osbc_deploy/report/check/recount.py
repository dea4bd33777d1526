"""A deployment's folder believed as far as it can be counted again.

What network and target decide (fit, cores, resources, memory) is computed anew and compared with
the report, and with the test data also what the integer network does on them. The rest (accuracy
of the float network, the backend's bits) is bound to the network by digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from osbc_deploy.chip.mapping import map_network
from osbc_deploy.chip.target import Target, load_target, target_names
from osbc_deploy.errors import ArtefactError
from osbc_deploy.fixedpoint.coding import InputSeen
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.model.readout import NO_ANSWER, decode
from osbc_deploy.report.deployment.build import activity_parts, counted_parts, input_parts
from osbc_deploy.report.read import read_deployment

__all__ = ["read_recounted"]

Report = Mapping[str, Any]

_SHOWN = 5
"""Differences listed before the rest is counted."""


def read_recounted(
    path: Path, target: str | None = None, test: str | None = None, *, some: bool = False
) -> dict[str, Any]:
    """Read a report that agrees with the network beside it and with its target.

    Parameters
    ----------
    path : Path
        A folder written by ``osbc-deploy -o``, or the report in it.
    target : str, optional
        Name or file of the target it must be for; the shipped one of the report's name by default.
    test : str, optional
        The data it was evaluated on, all of them, which are then run again: an .npz or a factory.
    some : bool
        Whether it may be on the first of them alone; a limit then says how many are enough.

    Raises
    ------
    UsageError
        When there is nothing at `path`, or no such target or data.
    ArtefactError
        When the report is broken or contradicts itself, belongs to another network or target, or
        says anything else than what is counted.
    """
    report, network = read_deployment(path)
    if network is None:
        raise ArtefactError(
            f"{path}: is no report.json with its network beside it, so nothing can be counted "
            "again. Give the folder that osbc-deploy ... -o wrote."
        )
    chip = _target(path, report, target)
    if chip.formats is None or network.formats != chip.number_formats:
        raise ArtefactError(
            f"{path}: the network's registers are not those of {chip.name}. Deploy again."
        )
    counted = counted_parts(network, map_network(network, chip), chip) | _sizes(network, report)
    counted["target"] = {"name": chip.name, "title": chip.title}
    counted["input"] = input_parts(network.input).get("input")
    lines = list(_differences("", counted, report))
    if test is not None and not lines:
        lines = list(_differences("", _evaluated(path, network, report, test, some=some), report))
    if lines:
        listed = "; ".join(lines[:_SHOWN])
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise ArtefactError(
            f"{path}: the report differs from what is counted: {listed}{more}. Deploy again."
        )
    return report


def _target(path: Path, report: Report, asked: str | None) -> Target:
    name, digest = (report["provenance"]["target"][key] for key in ("name", "sha256"))
    if asked is None and name not in target_names():
        raise ArtefactError(
            f"{path}: was deployed on {name!r}, which is not one of the targets that come with the "
            "tool. Give its file with --target."
        )
    chip = load_target(name if asked is None else asked)
    if chip.name != name:
        raise ArtefactError(
            f"{path}: was deployed on {name!r}, not on {chip.name!r}. Deploy on that, or give "
            "the target it was made for."
        )
    if chip.digest != digest:
        raise ArtefactError(
            f"{path}: was deployed on another description of {name} ({digest[:12]}) than this "
            f"one ({chip.digest[:12]}). Deploy again, or give the one it was made for as --target "
            "FILE.toml."
        )
    return chip


def _sizes(network: FixedPointNetwork, report: Report) -> dict[str, Any]:
    """Return the numbers of samples and steps times the network's size."""
    steps = report["provenance"]["steps"]
    compared = report["fidelity"]["samples"] * steps
    spiking = sum(p.size for p in network.populations if p.spiking)
    potentials = 0 if network.output.spiking else network.output.size
    return {
        "fidelity": {
            "compared_spikes": compared * spiking,
            "compared_potentials": compared * potentials,
        },
        "operations": {"neuron_updates": steps * sum(p.size for p in network.populations)},
    }


def _evaluated(
    path: Path, network: FixedPointNetwork, report: Report, test: str, *, some: bool
) -> dict[str, Any]:
    """Return the parts of a report that the integer network and the test data decide."""
    from osbc_deploy.fixedpoint.engine import run
    from osbc_deploy.references import as_samples

    expected = report["provenance"]["test"]
    # How long samples without a time axis were shown is the report's own word.
    repeat = report["provenance"]["options"].get("repeat")
    repeat = repeat if isinstance(repeat, int) else None
    given = as_samples(test, "test", repeat)
    samples = given.take(expected["samples"])
    if samples.fingerprint() != expected["sha256"]:
        raise ArtefactError(
            f"{path}: was evaluated on other data ({expected['name']}, {expected['sha256'][:12]}) "
            f"than {samples.name} ({samples.fingerprint()[:12]}). Give those."
        )
    # Whoever evaluates some alone chooses the accuracy that the budget sees.
    if len(given) > len(samples) and not some:
        raise ArtefactError(
            f"{path}: was evaluated on {len(samples):,} of the {len(given):,} samples of "
            f"{given.name}, all are asked for. Evaluate all of them (verify: without --samples), "
            f"or say in the budget that fewer are enough: [budget] samples = {len(samples)}."
        )
    done = run(network, network.input.codes(samples.spikes))
    found: dict[str, Any] = {
        "provenance": {"output_sha256": done.fingerprint()},
        "populations": activity_parts(network, done.activity),
        **input_parts(network.input, InputSeen.of(network.input, samples.spikes)),
    }
    classes = decode(done.output, network.readout, spiking=network.output.spiking)
    found["accuracy"] = {"no_answer": {"fixed_point": float((classes == NO_ANSWER).mean())}}
    if samples.labels is not None:
        found["accuracy"]["fixed_point"] = float((classes == samples.labels).mean())
    return found


def _differences(place: str, counted: Any, written: Any) -> Iterator[str]:
    """Yield one line for every value of `counted` that is written otherwise."""
    if isinstance(counted, dict) and isinstance(written, dict):
        for key, value in counted.items():
            yield from _differences(f"{place}.{key}" if place else key, value, written.get(key))
    elif isinstance(counted, list) and isinstance(written, list):
        if len(counted) != len(written):
            yield f"{place}: {len(written)} instead of {len(counted)}"
            return
        for number, (value, other) in enumerate(zip(counted, written, strict=True)):
            yield from _differences(f"{place}.{number}", value, other)
    elif counted != written:
        yield f"{place}: {written} instead of {counted}"
