"""Time and energy in the report: events times figures, each with its label and source."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from osbc_deploy.chip.target import load_target
from osbc_deploy.chip.unpruned import footprint
from osbc_deploy.deployment import Deployment
from osbc_deploy.firmware.work import StepCost
from osbc_deploy.provenance import sealed
from osbc_deploy.report.check.consistency import contradictions
from osbc_deploy.report.deployment.build import build_report, json_schema
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.deployment.terminal import print_report
from verified import verification

DEPLOYED = verification().deployment


def shown(done: Deployment, *, details: bool) -> tuple[dict[str, Any], str]:
    report = build_report(done)
    jsonschema.validate(report, json_schema())
    out = io.StringIO()
    print_report(report, Console(file=out, width=200), details=details)
    return report, " ".join(out.getvalue().split())


def test_time_and_energy_are_labelled_with_basis_and_source() -> None:
    loihi1 = load_target("loihi1")
    report, text = shown(replace(DEPLOYED, target=loihi1), details=False)
    operations = report["operations"]
    time, energy = operations["step"]["time"], operations["energy"]
    for found in (time, energy):
        assert (found["label"], found["basis"]) == ("modelled", "simulated")
        assert "Table 2" in found["source"]
    steps = DEPLOYED.provenance["steps"]
    parts = {"synaptic_operations": operations["synaptic"] * 23.6}
    parts["neuron_updates"] = operations["neuron_updates"] * 81.0
    assert {name: energy["parts"][name] for name in parts} == pytest.approx(parts)
    idle = energy["picojoules"] - operations["neuron_updates"] * (81.0 - 52.0)
    assert energy["idle_picojoules"] == pytest.approx(idle)
    core = operations["step"]["busiest_core"]
    work = core["synaptic"] * 3.5e-9 + core["neuron_updates"] * 8.4e-9
    assert time["parts"]["core"] == pytest.approx(work)
    assert operations["synaptic"] == pytest.approx(DEPLOYED.load.synaptic.sum() * steps)
    assert f"mean step: {time['seconds'] * 1e6:.3g} us" in text
    assert "modelled from simulated figures: Davies" in text
    assert "modelled from simulated figures" in report_page(report)


def test_what_no_source_states_is_said_to_be_unknown() -> None:
    report, text = shown(replace(DEPLOYED, target=load_target("loihi2")), details=True)
    assert report["operations"]["energy"] is None
    assert report["operations"]["step"]["time"] is None
    assert "busiest core" in text
    assert "no figure of its time is public" in text
    assert " uJ" not in text


def test_a_processor_has_energy_where_its_file_states_that_of_an_instruction(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'schema = 1\ninherits = "cortex-m4"\nname = "mine"\n[energy]\nbasis = "measured"\n'
        'instruction = { value = 150.0, unit = "pJ", grade = "derived", source = "part" }\n'
    )
    cost = StepCost(1000.0, 2000.0, 9000.0, 4, DEPLOYED.provenance["steps"])
    target = load_target(path)
    took = footprint(DEPLOYED.mapping, target)
    report, text = shown(
        replace(DEPLOYED, target=target, unpruned=took, steps=cost, placement=None), details=True
    )
    energy = report["operations"]["energy"]
    assert energy["picojoules"] == 150.0 * 1000.0 * DEPLOYED.provenance["steps"]
    assert energy["basis"] == "measured"
    assert "step" not in report["operations"]
    assert "modelled from measured figures: Nordic" in text


def test_a_report_from_before_pruning_and_steps_were_counted_is_read() -> None:
    report = build_report(DEPLOYED)
    del report["pruning"], report["operations"]["step"]
    report = sealed(report)
    jsonschema.validate(report, json_schema())
    assert not contradictions(report)
    assert "neurons; unpruned" not in report_page(report)
