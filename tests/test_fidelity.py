"""A comparison that could not fail is none: the engine is held against its specification."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

import osbc_deploy
from osbc_deploy import fidelity
from osbc_deploy.backends import Availability, BackendRun, load_backend
from osbc_deploy.cli.deploy import exit_code
from osbc_deploy.data.samples import check_samples
from osbc_deploy.deployment import Deployment
from osbc_deploy.errors import BackendError
from osbc_deploy.fixedpoint import compiled, learning
from osbc_deploy.fixedpoint.engine import run
from osbc_deploy.fixedpoint.network import FixedConv, FixedPointNetwork
from osbc_deploy.fixedpoint.plain import work_of
from osbc_deploy.report.check.budget import Budget
from osbc_deploy.report.check.findings import check_report
from osbc_deploy.verification import verify

QUICK: dict[str, Any] = {"sparsity": 0.2, "bits": 8, "tune": False}
SHAPE = (16, 10, 12)


def model() -> norse.SequentialState:
    torch.manual_seed(1)
    layers = norse.SequentialState(
        nn.Linear(12, 30), norse.LIFCell(), nn.Linear(30, 4), norse.LICell()
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(12)
    return layers


def spikes() -> np.ndarray:
    return (np.random.default_rng(0).random(SHAPE) < 0.3).astype(np.uint8)


def deployed(**options: Any) -> Deployment:
    return osbc_deploy.deploy(model(), spikes(), **{"target": "loihi2", **QUICK, **options})


def lower_threshold(network: FixedPointNetwork) -> FixedPointNetwork:
    """Return the network with the first population's thresholds halved."""
    first = network.populations[0]
    wrong = replace(first, vth=first.vth // 2)
    return replace(network, populations=(wrong, *network.populations[1:]))


@pytest.fixture
def broken_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled engine run other thresholds than the network's."""
    plan, kept = compiled.EnginePlan, []

    def wrong(network: FixedPointNetwork, *rest: Any, **options: Any) -> compiled.EnginePlan:
        kept.append(lower_threshold(network))
        return plan(kept[-1], *rest, **options)

    monkeypatch.setattr(learning, "EnginePlan", wrong)


def test_the_engine_is_compared_with_its_specification(capsys: pytest.CaptureFixture[str]) -> None:
    found = deployed(backend_samples=3).fidelity
    assert (found.backend, found.reference, found.samples) == ("engine", "specification", 3)
    assert (found.compared_spikes, found.compared_potentials) == (3 * 10 * 30, 3 * 10 * 4)
    assert found.exact
    assert exit_code(deployed(backend_samples=0)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("broken_kernels")
def test_a_kernel_that_computes_something_else_is_found_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = deployed()
    plain = run(done.lowered.network, spikes(), record=["1"], kernels="plain")
    other = run(lower_threshold(done.lowered.network), spikes(), record=["1"], kernels="plain")
    wrong = np.count_nonzero(plain.spikes["1"] != other.spikes["1"])
    assert done.fidelity.mismatched_spikes == wrong > 0
    assert done.fidelity.mismatched_potentials == np.count_nonzero(plain.output != other.output)
    assert exit_code(done) == 5
    said = capsys.readouterr().err
    assert f"NumPy specification and the compiled engine differ in {wrong} spikes" in said
    seen = verify(model(), spikes(), target="loihi2", gates=["backend_mismatches=0"], **QUICK)
    assert [f.name for f in seen.broken] == ["backend_mismatches"]
    assert seen.backend is not None
    assert seen.backend.mismatches("spikes") == wrong
    assert seen.deployment.fidelity.reference == "specification"


def test_another_backend_is_compared_with_the_engine() -> None:
    found = deployed(target="loihi2-sim", backend_samples=2).fidelity
    assert (found.backend, found.reference) == ("lava", "engine")


def test_the_work_of_the_specification_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    network = deployed(backend_samples=0).lowered.network
    # 12 * 30 and 30 * 4 synapses, 34 neurons.
    work = work_of(network)
    assert work == 12 * 30 + 30 * 4 + 100 * 34
    steps = SHAPE[1]
    monkeypatch.setattr(fidelity, "_MOST_WORK", 4 * steps * work + 1)
    found = deployed()
    assert (found.fidelity.samples, found.fidelity.left_out) == (4, 12)
    assert found.fidelity.compared_potentials == 4 * steps * 4
    assert (found.fidelity.exact, found.report()["fidelity"]["left_out"]) == (True, 12)
    # Lava runs what it is asked for, and one sample is run whatever it takes.
    samples = check_samples("some", spikes())
    monkeypatch.setattr(fidelity, "_MOST_WORK", 1)
    assert fidelity.reference_of(load_backend("lava")) == "engine"
    ours = run(network, samples.spikes, record=[p.name for p in network.populations])
    seen = fidelity.compare(
        load_backend("engine"), network, samples, 16, ours=ours, time_limit=60.0
    )
    assert (seen.samples, seen.left_out) == (1, 15)
    text = verify(model(), spikes(), target="loihi2", **QUICK)
    assert text.backend is not None
    assert (text.backend.samples, text.backend.left_out) == (1, 15)


def test_work_counts_every_window_of_a_convolution() -> None:
    network = deployed(backend_samples=0).lowered.network
    a, b = network.projections
    first = network.populations[0]
    conv = replace(a, connection=FixedConv(np.zeros((3, 2, 1, 2)), (1, 1), (0, 0), (1, 1), 1))
    # 3 x 2 x 1 x 2 weights at 2 x 5 places make the 30 neurons.
    images = replace(
        network,
        input_shape=(2, 2, 6),
        populations=(replace(first, shape=(3, 2, 5)), network.populations[1]),
        projections=(conv, b),
    )
    assert work_of(images) == 12 * 10 + 30 * 4 + 100 * 34


class Mute:
    """A backend that leaves out what is to be compared."""

    name, summary = "mute", "gives no spikes"

    def availability(self) -> Availability:
        return Availability(True, "")

    def run(self, network: Any, spikes: Any, **_: Any) -> BackendRun:
        return BackendRun({}, np.zeros((len(spikes), 1, 4), np.int32))


def test_what_a_backend_leaves_out_does_not_count_as_equal() -> None:
    network = deployed(backend_samples=0).lowered.network
    samples = check_samples("some", spikes())
    ours = run(network, samples.spikes)
    with pytest.raises(BackendError) as error:
        fidelity.compare(Mute(), network, samples, 2, ours=ours, time_limit=1.0)
    assert "spikes of '1' is missing" in str(error.value)
    assert "output has shape (2, 1, 4), needed (2, 10, 4)" in str(error.value)


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """A real report of two samples, as read from JSON."""
    report: dict[str, Any] = json.loads(json.dumps(deployed(backend_samples=2).report()))
    return report


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"mismatched_spikes": 1}, False),
        ({"backend": None, "reference": None, "samples": 0, "compared_spikes": 0}, False),
        ({"backend": None}, False),
        ({"reference": None}, False),
        ({"reference": "engine"}, False),
        ({"samples": 0}, False),
        ({"compared_spikes": 0, "compared_potentials": 0}, False),
    ],
)
def test_a_budget_of_mismatches_needs_a_comparison(
    change: dict[str, Any], kept: bool, compared: dict[str, Any]
) -> None:
    report = copy.deepcopy(compared)
    report["fidelity"].update(change)
    budget = Budget.model_validate({"schema": 1, "budget": {"mismatched_spikes": 0}})
    found = {finding.name: finding for finding in check_report(report, budget)}
    seen = found["mismatched spikes and potentials"]
    assert (seen.ok, seen.kind) == (kept, "quality")
    assert ("nothing was compared" in seen.message) == (
        not kept and "mismatched_spikes" not in change
    )
