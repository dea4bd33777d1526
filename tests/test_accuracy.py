"""What counts as an answer, what as right, and what puts it in doubt: all worked out by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import norse.torch as norse
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import osbc_deploy
from osbc_deploy.accuracy import Accuracy, check_classes, doubts
from osbc_deploy.cli.main import main
from osbc_deploy.data.samples import Samples, check_samples
from osbc_deploy.errors import ArtefactError, FidelityError, OsbcError, UsageError
from osbc_deploy.fitting import FitBudget, fit
from osbc_deploy.model.readout import decode, shared_answers
from osbc_deploy.options import InputOptions
from osbc_deploy.report.deployment.build import json_schema
from osbc_deploy.report.deployment.page import report_page
from osbc_deploy.report.deployment.terminal import print_report
from osbc_deploy.report.formats import cores_csv
from osbc_deploy.report.verification.build import verify_json_schema
from osbc_deploy.report.verification.page import verify_page
from osbc_deploy.report.verification.terminal import print_verification
from osbc_deploy.verification import verify

QUICK = {"sparsity": 0.0, "bits": 8, "tune": False, "target": "loihi2"}


def echo() -> norse.SequentialState:
    """Each of three outputs fires when its input does: 2 is above the threshold of 1."""
    layers = norse.SequentialState(nn.Linear(3, 3, bias=False), norse.IAFCell())
    with torch.no_grad():
        layers[0].weight.copy_(2 * torch.eye(3))
    return layers


# Which inputs are active in each of four steps, the label, and the class by sum and by last.
SAMPLES = [
    ([{0}, {0}, {0}, {0}], 0, 0, 0),
    ([set(), set(), set(), set()], 0, -1, -1),
    ([set(), set(), set(), set()], 1, -1, -1),
    ([{1}, {1}, {1}, {1}], 1, 1, 1),
    ([set(), {2}, set(), {2}], 2, 2, 2),
    ([{2}, {2}, {2}, {2}], 1, 2, 2),
    ([{0}, set(), set(), set()], 0, 0, -1),
    ([{1, 2}, {1, 2}, {1, 2}, {1, 2}], 1, 1, 1),
]


def data(samples: Any = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    spikes = np.zeros((len(samples), 4, 3), np.uint8)
    for n, (steps, *_) in enumerate(samples):
        for t, active in enumerate(steps):
            spikes[n, t, list(active)] = 1
    return spikes, np.array([label for _, label, *_ in samples])


def shown(report: Any, draw: Any) -> str:
    out = io.StringIO()
    draw(report, Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize(("readout", "column", "right"), [("sum", 2, 5), ("last", 3, 4)])
def test_silent_samples_are_wrong_and_counted(readout: Any, column: int, right: int) -> None:
    spikes, labels = data()
    expected = [sample[column] for sample in SAMPLES]
    assert decode(spikes, readout, spiking=True).tolist() == expected
    done = osbc_deploy.deploy(echo(), (spikes, labels), readout=readout, **QUICK)
    accuracy, silent = done.accuracy, expected.count(-1) / 8
    # The first of a class counted for the silent samples too: 6 and 6 of 8.
    assert (accuracy.float_, accuracy.compressed, accuracy.fixed_point) == (right / 8,) * 3
    assert accuracy.no_answer == {"float": silent, "compressed": silent, "fixed_point": silent}
    assert accuracy.agreement == 1.0
    report = done.report()
    jsonschema.validate(report, json_schema())
    share = f"no answer: float {silent:.2%}, compressed {silent:.2%}, fixed point {silent:.2%}"
    assert share in shown(report, print_report)
    assert f"<strong>{silent:.2%}</strong>no answer in fixed point" in report_page(report)
    assert f"{right / 8:.2%}</strong>fixed-point accuracy" in report_page(report)
    row = next(csv.DictReader(io.StringIO(cores_csv(report))))
    assert float(row["no_answer_fixed_point"]) == silent
    assert float(row["accuracy_fixed_point"]) == right / 8


def test_a_network_that_is_silent_agrees_with_nothing() -> None:
    spikes, _ = data()
    done = osbc_deploy.deploy(echo(), spikes, test=spikes[1:3], **QUICK)
    assert done.accuracy.agreement is None
    report = done.report()
    jsonschema.validate(report, json_schema())
    assert (
        "accuracy: no labels; no sample gets a class on 2 samples of test; no answer: float 100.00%"
        in (shown(report, print_report))
    )
    assert "100.00%</strong>no answer" in report_page(report)
    # Nothing can be lost, so no limit of loss can be kept.
    with pytest.raises(FidelityError, match="gives no class to any sample of test"):
        fit(echo(), spikes, test=spikes[1:3], budget=FitBudget(accuracy_drop=0.5), target="loihi2")


def test_answers_are_shared_only_where_there_are_any() -> None:
    a, b = np.array([-1, -1, 0, 1, 2, 2]), np.array([-1, 0, 0, 2, -1, 2])
    assert shared_answers(a, b) == shared_answers(b, a) == (2, 5)
    assert shared_answers(a[:1], b[:1]) == (0, 0)


@pytest.mark.parametrize(
    ("potentials", "readout", "found"),
    [
        # The same for all outputs says nothing, at whatever height a bias holds them.
        ([[0.0, 0.0], [0.0, 0.0]], "sum", -1),
        ([[0.5, 0.5], [0.7, 0.7]], "sum", -1),
        ([[-1.0, 0.0], [-1.0, 0.0]], "max", 1),
        ([[1.0, 0.0], [0.0, 0.0]], "last", -1),
        # Some that are equal are a tie, which the first one wins.
        ([[3.0, 3.0, 1.0], [0.0, 0.0, 0.0]], "sum", 0),
        # The only class there is.
        ([[0.0], [0.0]], "sum", 0),
    ],
)
def test_potentials_speak_by_their_differences(
    potentials: list[list[float]], readout: Any, found: int
) -> None:
    for output in (np.array([potentials]), 10 * np.array([potentials])):
        assert decode(output, readout, spiking=False).tolist() == [found]
        assert decode(output.astype(int), readout, spiking=False).shape == (1,)


def test_verify_counts_what_gets_no_answer() -> None:
    gates = ("agreement=1", "accuracy=0.625", "accuracy_drop=0")
    found = verify(echo(), data(), gates=gates, backend_samples=3, **QUICK)
    score = found.score("fixed point")
    assert (score.no_answer, score.right, score.shared) == (2, 5, (6, 6))
    assert not found.broken
    cost = found.layers[0].compressed
    assert (cost.samples, cost.same, cost.answered, cost.agreement) == (8, 6, 6, 1.0)
    report = found.report()
    jsonschema.validate(report, verify_json_schema())
    assert report["stages"][0]["no_answer"] == {"samples": 2, "value": 0.25}
    # The specification ran the first three: one class, and two without.
    assert report["stages"][-1]["name"] == "specification"
    assert report["stages"][-1]["no_answer"] == {"samples": 2, "value": 2 / 3}
    assert report["backend"]["reference"] == "specification"
    assert "NumPy specification against the compiled engine on 3 samples" in shown(
        report, print_verification
    )
    assert "<strong>25.00%</strong>no answer in fixed point; float 25.00%" in verify_page(report)


def test_gates_on_agreement_fail_where_nobody_answers() -> None:
    spikes, _ = data()
    found = verify(echo(), spikes, test=spikes[1:3], gates=["agreement=0"], **QUICK)
    assert [f.message for f in found.broken] == [
        "answered samples that keep the float network's class in fixed point: nothing to measure"
    ]
    report = found.report()
    jsonschema.validate(report, verify_json_schema())
    assert set(report["shown"]["classes"].values()) == {None}
    assert "Taken for no class by float" in verify_page(report)


def labelled(name: str, *labels: int) -> Samples:
    return check_samples(name, np.zeros((len(labels), 2, 3)), np.array(labels))


def test_outputs_must_stand_for_one_class_each() -> None:
    ten, five = labelled("ten", *range(10)), labelled("five", *range(5))
    for good in (10, 19):
        check_classes((ten,), good)
    check_classes((ten, five), 10)
    check_classes((ten,), 100, classes=100)
    check_classes((five,), 10, classes=10)
    check_classes((check_samples("bare", np.zeros((1, 2, 3))),), 100)
    bad: list[tuple[Any, int, int | None, type[OsbcError], str]] = [
        ((ten,), 100, None, ArtefactError, r"^ten: 10 .* 100 outputs.* 19 .*--classes 100"),
        ((ten, five), 20, None, ArtefactError, r"^ten and five: 10 classes .* 20 outputs"),
        ((five,), 10, None, ArtefactError, r"^five: 5 .*--classes 10"),
        ((labelled("one", 0, 0),), 5, None, ArtefactError, r"^one: 1 class is .* 5 outputs"),
        ((ten,), 100, 50, ArtefactError, r"^classes: 50 .* 99 are allowed.*--readout vote:N\.$"),
        ((ten,), 100, 9, UsageError, r"^classes: 9 is outside 10 to 100"),
        ((ten,), 100, 101, UsageError, r"^classes: 101 is outside 10 to 100"),
        ((ten,), 9, None, ArtefactError, r"^ten: labels go up to 9"),
    ]
    for samples, outputs, classes, kind, said in bad:
        with pytest.raises(kind, match=said):
            check_classes(samples, outputs, classes)


def accuracy(share: float | None) -> Accuracy:
    return Accuracy(share, share, share, 1.0, {}, 8, "data")


def test_chance_is_the_commonest_class() -> None:
    labels = data()[1]
    (line,) = doubts(accuracy(5 / 8), labels, 3)
    # At least 5 of 8 at 4 / 8 each: (56 + 28 + 8 + 1) / 256.
    assert "5 of 8 right (62.50%), always class 1 would be 4 (50.00%" in line
    assert "p = 0.36)" in line
    # 7 of 8: (8 + 1) / 256 = 0.035 is below 0.05.
    assert list(doubts(accuracy(7 / 8), labels, 3)) == []
    assert list(doubts(accuracy(None), None, 3)) == []
    # One class alone shows nothing, even if all are right.
    lines = list(doubts(accuracy(1.0), np.zeros(8, int), 1))
    assert "8 of 8 right (100.00%), always class 0 would be 8" in lines[0]


def test_classes_without_a_sample_are_said_once() -> None:
    labels = np.arange(40) % 10
    lines = list(doubts(accuracy(1.0), labels, 11))
    assert lines == [
        "labels: data holds 10 of the 11 classes that the network's outputs stand for; accuracy "
        "says nothing of the others"
    ]
    assert list(doubts(accuracy(1.0), labels, 11, classes=11)) == []


MODEL = """
import norse.torch as norse
import torch
from torch import nn

def votes():
    torch.manual_seed(0)
    return norse.SequentialState(nn.Linear(6, 100), norse.IAFCell())

def echo():
    return norse.SequentialState(nn.Linear(3, 3, bias=False), norse.IAFCell())
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from safetensors.torch import save_file

    (tmp_path / "readout_models.py").write_text(MODEL)
    spikes, labels = data()
    np.savez(tmp_path / "data.npz", spikes=spikes, labels=labels)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "ten.npz", spikes=rng.random((20, 5, 6)) < 0.5, labels=np.arange(20) % 10)
    save_file(echo().state_dict(), tmp_path / "echo.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*args: Any) -> int:
    try:
        main([str(a) for a in args])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


COMMON = ("--target", "loihi2", "--no-tune", "--sparsity", 0, "--bits", 8)
FORGOT = "warning: weights: --weights was not given; readout_models.py:echo keeps the 9 parameters"


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("command", ["deploy", "verify"])
def test_forgotten_weights_come_first(
    command: str, user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (command, "readout_models.py:echo", "--calibration", "data.npz", *COMMON)
    assert call(*model) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith(FORGOT)
    assert second.startswith("warning: accuracy: the float network is not above chance")
    assert call(*model, "--weights", "echo.safetensors", "-o", "out", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    doubted, few = report["warnings"]
    assert "5 of 8 right" in doubted
    assert few.startswith("calibration: data.npz holds 8 samples, few to fit weights to")
    if command == "verify":
        page = (user / "out" / "verify.html").read_text()
    else:
        assert call("report", "out", "--format", "html") == 0
        page = capsys.readouterr().out
    assert page.index("warning: accuracy: the float network") < page.index('class="cards"')


@pytest.mark.usefixtures("user")
def test_inspect_says_that_weights_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "readout_models.py:echo", "--shape", 3) == 0
    assert capsys.readouterr().out.startswith(FORGOT)
    weights = ("--weights", "echo.safetensors")
    assert call("inspect", "readout_models.py:echo", "--shape", 3, *weights, "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("command", ["deploy", "fit", "verify"])
def test_a_hundred_outputs_for_ten_labels_are_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = (command, "readout_models.py:votes", "--calibration", "ten.npz", "--target", "loihi2")
    assert call(*model) == 6
    said = capsys.readouterr()
    assert said.out == ""
    assert "ten.npz: 10 classes are told apart by 100 outputs" in said.err
    if command == "deploy":
        assert call(*model, "--classes", 100, "--no-tune") == 0
        assert "labels:" not in capsys.readouterr().out


def test_the_bundled_network_brings_its_weights() -> None:
    from osbc_deploy.cli.job import load_inputs
    from osbc_deploy.importing import import_network

    given = load_inputs(None, InputOptions())
    network = import_network(given["module"], given["weights"], given["calibration"])
    assert network.warnings == ()
    # The same network by its name is whatever torch draws.
    assert len(import_network(given["module"], None, given["calibration"]).warnings) == 1
